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
//! - Shards are rewritten before the control group. A recovery that was cut off is repeated, and
//!   finds the groups that are done.
//!
//! Deliberately missing: recovery beside running nodes. The control group may then have a majority
//! that knows more than the directories here.

mod directories;
mod error;
mod plan;
mod probe;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_base::platform::run_blocking;
use dkv_state::{DirectoryCommand, DirectoryEntry, DirectoryResult};

use self::directories::{Copy, Found, Opened};
use self::plan::{Fate, Plan};
use crate::common::unix_time::unix_ms;
use crate::raft::offline;
use crate::replica::tombstone::ReplicaTombstone;

pub use self::error::RecoveryError;
pub use self::report::{
    DirectoryReport, GroupReport, MissingReport, ReplicaReport, Report, ServerReport,
};

/// What to recover from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The data directories that are left.
    pub directories: Vec<PathBuf>,
    /// The address of the registration server, to ask it which nodes it has heard lately.
    pub server: Option<String>,
    /// Names or ids of nodes that are lost for good, although something answers at their addresses
    /// or the server has heard them lately.
    pub gone: Vec<String>,
    /// Whether shards of which no replica is left begin anew, without their keys.
    pub empty_shards: bool,
}

/// The findings in the directories, and the plan of a recovery. It holds all of their locks.
pub struct Survey {
    nodes: Vec<Opened>,
    found: Found,
    plan: Plan,
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
    let mut plan = plan::plan(&found)?;
    check_laggards(&nodes, &found, &plan)?;
    let missing = probe::look(&nodes, &found, &plan, options).await?;
    plan.raise_control_term(missing.server.as_ref().and_then(|server| server.term));
    let report = report::report(&nodes, &found, &plan, &missing);
    let nowhere = plan.with_fate(|fate| matches!(fate, Fate::Nowhere));
    if !nowhere.is_empty() && !options.empty_shards {
        return Err(RecoveryError::Nowhere(nowhere));
    }
    // Now, not after the first group was changed.
    let mut directory = found.directory.clone();
    match directory.execute(&entry(&plan)) {
        DirectoryResult::Done => Ok(Survey { nodes, found, plan, report }),
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
    /// If a log cannot be written. The same recovery can be repeated then.
    pub async fn carry_out(self) -> Result<Report, RecoveryError> {
        let Self { nodes, found, plan, mut report } = self;
        let by_id: BTreeMap<NodeId, &Opened> = nodes.iter().map(|node| (node.id(), node)).collect();
        let shards = plan.fates.iter().filter(|(group, _)| group.is_shard());
        let control = plan.fates.iter().filter(|(group, _)| !group.is_shard());
        for (group, fate) in shards.chain(control) {
            match fate {
                Fate::Serves { .. } | Fate::NotBegun => {}
                Fate::Nowhere => {
                    // A new replica would wait for what the one before it has known.
                    let keeper = by_id[&plan.keeper];
                    ReplicaTombstone::delete(keeper.path(), *group)
                        .map_err(RecoveryError::System)?;
                }
                Fate::Recovered { keeper, term } => {
                    let commands = match *group {
                        GroupId::CONTROL => vec![entry(&plan).encode()],
                        _ => Vec::new(),
                    };
                    let written = Rewrite { group: *group, keeper: *keeper, term: *term, commands };
                    let end = written.carry_out(&by_id, &found.copies[group]).await?;
                    report.recovered(*group, *term, end);
                }
            }
        }
        drop(by_id);
        let closed = run_blocking(move || nodes.iter().for_each(Opened::close));
        closed.await.map_err(RecoveryError::System)?;
        report.finish();
        Ok(report)
    }
}

/// The rewriting of one group.
struct Rewrite {
    group: GroupId,
    keeper: NodeId,
    term: u64,
    commands: Vec<Bytes>,
}

impl Rewrite {
    /// Rewrites the replica that goes on, and then the others. Returns the index of the last entry.
    async fn carry_out(
        self,
        nodes: &BTreeMap<NodeId, &Opened>,
        copies: &[Copy],
    ) -> Result<u64, RecoveryError> {
        let Self { group, keeper, term, commands } = self;
        let at = |node: &Opened| {
            let path = node.path().to_owned();
            move |why| RecoveryError::NotWritten { path, why }
        };
        let last = copies.iter().find(|copy| copy.node == keeper);
        let last = last.map_or((0, 0), |copy| copy.disk.last);
        let from = nodes[&keeper].log(group);
        let end = offline::rewrite(&from, last, keeper, term, commands).await;
        let end = end.map_err(at(nodes[&keeper]))?;
        for copy in copies.iter().filter(|copy| copy.node != keeper && copy.is_whole) {
            let to = nodes[&copy.node].log(group);
            let aligned = offline::align(&from, &to, &copy.disk, keeper, term).await;
            aligned.map_err(at(nodes[&copy.node]))?;
        }
        Ok(end)
    }
}

/// Checks that no replicas that are too far behind to learn the new configuration could elect a
/// leader by the old one.
fn check_laggards(nodes: &[Opened], found: &Found, plan: &Plan) -> Result<(), RecoveryError> {
    let log_of = |id: NodeId, group| nodes.iter().find(|it| it.id() == id).map(|it| it.log(group));
    for (group, fate) in &plan.fates {
        let Fate::Recovered { keeper, .. } = fate else { continue };
        let (copies, Some(from)) = (&found.copies[group], log_of(*keeper, *group)) else {
            continue;
        };
        let mut behind = BTreeSet::new();
        for copy in copies.iter().filter(|copy| copy.node != *keeper) {
            let Some(to) = log_of(copy.node, *group) else { continue };
            let can = copy.is_whole
                && offline::can_align(&from, &to, &copy.disk).map_err(RecoveryError::System)?;
            if !can {
                behind.insert(copy.node);
            }
        }
        if copies.iter().any(|copy| plan::have_majority(&copy.disk.voters, &behind)) {
            return Err(RecoveryError::Laggards(*group));
        }
    }
    Ok(())
}

/// Returns the entry of the control group's log that a plan makes.
fn entry(plan: &Plan) -> DirectoryEntry {
    DirectoryEntry { time_ms: unix_ms(), command: DirectoryCommand::Recover(plan.recovery.clone()) }
}
