//! Offline recovery of a network whose groups have lost their majorities for good.
//!
//! The operator names the data directories that are left, all of them stopped. [`survey`] reads
//! what each has of every group, decides which replica goes on, finds out whether a lost node may
//! be alive, and changes nothing; [`Survey::carry_out`] then writes. The decisions are plain code
//! (`plan`); `raft::offline` reads and rewrites logs.
//!
//! Rules:
//! - Every node of the directory is either among the directories or lost. A lost node is removed
//!   and denied for good, in the same write that makes the control group go on. So it can never
//!   come back with an old majority, as far as anybody refuses it.
//! - Of the replicas that are left, the one with the latest entry goes on: by Raft's rules it has
//!   everything that any of them knows to be committed. Nothing that it has is dropped.
//! - All other replicas that are left get the same log, and with it the new configuration: they
//!   cannot elect anybody by the old one. One that is too far behind for that keeps its log, and
//!   nothing is recovered if such replicas could elect somebody without the one that goes on.
//! - A recovery that was cut off is taken back by the next one, whatever directories that is given,
//!   and no node starts before (`execution`).
//! - Silence is no consent: the registration server must say that it has not heard the lost nodes
//!   lately, or the operator that it is lost as well.
//!
//! Deliberately missing: recovery beside running nodes. The control group may then have a majority
//! that knows more than the directories here.

mod directories;
mod error;
mod execution;
mod plan;
mod probe;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;

use dkv_base::id::NodeId;
use dkv_base::platform::{random_u64, run_blocking};
use dkv_state::{DirectoryCommand, DirectoryEntry, DirectoryResult};

use self::directories::{Found, Opened};
use self::plan::{Fate, Plan};
use crate::common::unix_time::unix_ms;
use crate::raft::offline::{self, Alignment};

pub use self::error::RecoveryError;
pub use self::report::{
    DirectoryReport, GroupReport, MissingReport, ReplicaReport, Report, ServerReport,
};

/// What to recover from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The data directories that are left.
    pub directories: Vec<PathBuf>,
    /// The addresses of the registration server, to ask it which nodes it has heard lately.
    pub servers: Vec<String>,
    /// Whether the registration server is lost as well, or cannot be reached and need not be.
    pub server_lost: bool,
    /// Names or ids of nodes that are lost for good, although something answers at their addresses
    /// or the server has heard them lately.
    pub gone: Vec<String>,
    /// Whether shards of which no replica is left begin anew, without their keys.
    pub empty_shards: bool,
    /// Whether shards of which only a replica is left that is no longer theirs go on with that.
    pub stale_shards: bool,
}

/// The findings in the directories, and the plan of a recovery. It holds all of their locks.
pub struct Survey {
    options: Options,
    nodes: Vec<Opened>,
    found: Found,
    /// `None` if there is nothing to recover, and only an earlier recovery to take back.
    plan: Option<Plan>,
    report: Report,
}

/// Reads the directories and decides how their network can go on. Changes nothing, except that
/// opening a log and its checkpoints repairs what a crash has left, as at every start.
///
/// # Errors
/// If the directories cannot be used, if no group has lost its majority, or if a lost node may be
/// alive.
pub async fn survey(options: &Options) -> Result<Survey, RecoveryError> {
    let paths = options.directories.clone();
    let opened = run_blocking(move || directories::open(&paths));
    let (nodes, found) = opened.await.map_err(RecoveryError::System)??;
    let asked = probe::ask(&nodes, &options.servers).await?;
    let mut plan = match plan::plan(&found, plan::leap(random_u64())) {
        Ok(plan) => plan,
        Err(RecoveryError::NothingLost) if nodes.iter().any(Opened::is_held) => {
            let report = report::nothing_lost(&nodes, &found);
            let options = options.clone();
            return Ok(Survey { options, nodes, found, plan: None, report });
        }
        Err(error) => return Err(error),
    };
    check_copies(&nodes, &found, &plan)?;
    let missing = probe::look(&nodes, &found, &plan, options, asked).await?;
    plan.raise_control_term(missing.server.as_ref().and_then(|server| server.term));
    let report = report::report(&nodes, &found, &plan, &missing);
    let nowhere = plan.with_fate(|fate| matches!(fate, Fate::Nowhere { .. }));
    if !nowhere.is_empty() && !options.empty_shards {
        return Err(RecoveryError::Nowhere(nowhere));
    }
    if !plan.stale.is_empty() && !options.stale_shards {
        return Err(RecoveryError::Stale(plan.stale));
    }
    // Now, not after the first group was changed.
    let mut directory = found.directory.clone();
    match directory.execute(&entry(&plan)) {
        DirectoryResult::Done => {
            let (options, plan) = (options.clone(), Some(plan));
            Ok(Survey { options, nodes, found, plan, report })
        }
        DirectoryResult::Rejected(why) => Err(RecoveryError::Rejected(why)),
    }
}

impl Survey {
    /// Returns the findings, the plan, and what may be lost.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Makes the network go on, and releases the directories. Returns the report of what was done.
    ///
    /// # Errors
    /// If a lost node has shown a sign of life since the survey, or if a directory cannot be
    /// written. The same recovery can be repeated then.
    pub async fn carry_out(self) -> Result<Report, RecoveryError> {
        let Self { options, nodes, found, plan, mut report } = self;
        if let Some(plan) = &plan {
            // The operator may have taken hours to decide.
            let asked = probe::ask(&nodes, &options.servers).await?;
            probe::look(&nodes, &found, plan, &options, asked).await?;
        }
        let entry = plan.as_ref().map(|plan| entry(plan).encode());
        execution::carry_out(nodes, &found, plan.as_ref(), entry, &mut report).await?;
        report.finish();
        Ok(report)
    }
}

/// Checks that no replicas that are too far behind to learn the new configuration could elect a
/// leader by the old one, and that there are no two histories.
fn check_copies(nodes: &[Opened], found: &Found, plan: &Plan) -> Result<(), RecoveryError> {
    let node_of = |id: NodeId| nodes.iter().find(|it| it.id() == id);
    for (group, fate) in &plan.fates {
        let (Fate::Recovered { keeper: best, .. } | Fate::Serves { best }) = *fate else {
            continue;
        };
        let (copies, Some(best)) = (&found.copies[group], node_of(best)) else { continue };
        let from = best.log(*group);
        let mut behind = BTreeSet::new();
        for copy in copies.iter().filter(|copy| copy.node != best.id()) {
            let Some(node) = node_of(copy.node) else { continue };
            if !copy.is_whole {
                behind.insert(copy.node);
                continue;
            }
            let possible = offline::alignment(&from, &node.log(*group), &copy.disk);
            match possible.map_err(RecoveryError::System)? {
                Alignment::From(_) => {}
                Alignment::Behind => _ = behind.insert(copy.node),
                Alignment::Diverged => {
                    let (one, other) = (best.file().name.clone(), node.file().name.clone());
                    return Err(RecoveryError::Diverged { group: *group, one, other });
                }
            }
        }
        let can_elect = |copy: &directories::Copy| plan::have_majority(&copy.disk.voters, &behind);
        if matches!(fate, Fate::Recovered { .. }) && copies.iter().any(can_elect) {
            return Err(RecoveryError::Laggards(*group));
        }
    }
    Ok(())
}

/// Returns the entry of the control group's log that a plan makes.
fn entry(plan: &Plan) -> DirectoryEntry {
    DirectoryEntry { time_ms: unix_ms(), command: DirectoryCommand::Recover(plan.recovery.clone()) }
}
