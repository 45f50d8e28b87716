//! Carries out a plan.
//!
//! The writes can be cut off anywhere. Before the first one each directory says what will be
//! written into it, and no node starts there until all is done; a repetition first takes back what
//! was written. In this order: incarnations, the undoing of an earlier recovery, marks, shards, the
//! control group, shards that begin anew, marks again.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_base::platform::{random_uuid, run_blocking};

use super::directories::{Copy, Found, Opened};
use super::error::RecoveryError;
use super::plan::{Fate, Plan};
use super::report::Report;
use crate::raft::Vote;
use crate::raft::offline::{self, Unfinished};
use crate::replica::recovery_mark::{MarkedWrite, RecoveryMark};
use crate::replica::tombstone::ReplicaTombstone;

/// Undoes a recovery that was cut off, and carries out `plan` if there is one. `entry` is the
/// command for the control group.
pub(super) async fn carry_out(
    nodes: Vec<Opened>,
    found: &Found,
    plan: Option<&Plan>,
    entry: Option<Bytes>,
    report: &mut Report,
) -> Result<(), RecoveryError> {
    for node in &nodes {
        let begun = node.begin_incarnation();
        begun.map_err(|error| RecoveryError::NotBegun(error.to_string()))?;
    }
    for node in &nodes {
        undo(node).await.map_err(|error| cut_off(node, error))?;
    }
    if let Some(plan) = plan {
        Execution::new(&nodes, found, plan).carry_out(entry, report).await?;
    } else {
        for node in &nodes {
            node.release().map_err(|error| cut_off(node, error))?;
        }
    }
    let closed = run_blocking(move || nodes.iter().for_each(Opened::close));
    closed.await.map_err(RecoveryError::System)
}

fn cut_off(
    node: &Opened,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RecoveryError {
    RecoveryError::NotWritten { path: node.path().to_owned(), why: io::Error::other(error) }
}

/// Takes back what a recovery that was cut off has written into a directory.
async fn undo(node: &Opened) -> io::Result<()> {
    for (group, write) in node.unfinished().into_iter().flat_map(|mark| &mark.writes) {
        match *write {
            MarkedWrite::Extended(unfinished) => {
                offline::undo(&node.log(*group), unfinished).await?;
            }
            MarkedWrite::Emptied { term, owed } => empty(node, *group, term, owed).await?,
        }
    }
    Ok(())
}

/// Deletes the replica of a group, and leaves a tombstone of one that has known the entry `owed`:
/// the next replica takes no part in elections before it has that.
async fn empty(node: &Opened, group: GroupId, term: u64, owed: u64) -> io::Result<()> {
    let former = ReplicaTombstone::load(node.path(), group).map_err(io::Error::other)?;
    let own = former.map(|former| former.vote);
    ReplicaTombstone::new(owed, Vote::new(term, node.id()), own).save(node.path(), group)?;
    offline::forget(&node.log(group)).await?;
    node.delete_rows(group).map_err(io::Error::other)
}

struct Execution<'a> {
    nodes: BTreeMap<NodeId, &'a Opened>,
    found: &'a Found,
    plan: &'a Plan,
    mark: RecoveryMark,
}

impl<'a> Execution<'a> {
    fn new(nodes: &'a [Opened], found: &'a Found, plan: &'a Plan) -> Self {
        let names = nodes.iter().map(|node| node.file().name.clone()).collect();
        let mark = RecoveryMark::new(random_uuid(), names, Vec::new());
        let nodes = nodes.iter().map(|node| (node.id(), node)).collect();
        Self { nodes, found, plan, mark }
    }

    fn copies(&self, group: GroupId) -> &'a [Copy] {
        self.found.copies.get(&group).map_or(&[], Vec::as_slice)
    }

    async fn carry_out(
        &self,
        entry: Option<Bytes>,
        report: &mut Report,
    ) -> Result<(), RecoveryError> {
        for node in self.nodes.values() {
            self.mark(node, false)?;
        }
        let fates = self.plan.fates.iter();
        let shards = fates.clone().filter(|(group, _)| group.is_shard());
        let control = fates.clone().filter(|(group, _)| !group.is_shard());
        for (group, fate) in shards.chain(control) {
            let Fate::Recovered { keeper, term } = *fate else { continue };
            let commands = entry.clone().filter(|_| *group == GroupId::CONTROL);
            let end = self.rewrite(*group, keeper, term, commands).await?;
            report.recovered(*group, term, end);
        }
        for (group, fate) in fates {
            let Fate::Nowhere { term } = *fate else { continue };
            self.begin_anew(*group, term).await?;
        }
        for node in self.nodes.values() {
            self.mark(node, true)?;
        }
        Ok(())
    }

    /// Writes the mark of a directory.
    fn mark(&self, node: &Opened, is_finished: bool) -> Result<(), RecoveryError> {
        let writes =
            self.plan.fates.iter().map(|(group, fate)| {
                Ok(self.write(node, *group, *fate)?.map(|write| (*group, write)))
            });
        let writes: Result<Vec<_>, io::Error> = writes.filter_map(Result::transpose).collect();
        let writes = writes.map_err(|error| cut_off(node, error))?;
        let mark = self.mark.with(writes, is_finished);
        mark.save(node.path()).map_err(|error| cut_off(node, error))
    }

    /// Returns what is written into the log of a group in a directory.
    fn write(
        &self,
        node: &Opened,
        group: GroupId,
        fate: Fate,
    ) -> Result<Option<MarkedWrite>, io::Error> {
        let copies = self.copies(group);
        let copy = copies.iter().find(|copy| copy.node == node.id());
        Ok(match fate {
            Fate::Recovered { keeper, term } => {
                let kept = copies.iter().find(|copy| copy.node == keeper);
                copy.filter(|copy| copy.is_whole).zip(kept).map(|(copy, kept)| {
                    let (first, committed) = (kept.disk.last.1 + 1, copy.disk.committed);
                    MarkedWrite::Extended(Unfinished { first, term, committed })
                })
            }
            Fate::Nowhere { term } => {
                let owed = node.owes(group, copy)?;
                // The first entry of the shard's new life comes to the keeper in any case.
                let owed = owed.or((node.id() == self.plan.keeper).then_some(0));
                owed.map(|owed| MarkedWrite::Emptied { term, owed })
            }
            Fate::Serves { .. } | Fate::NotBegun => None,
        })
    }

    /// Rewrites the replica that goes on, and then the others. Returns the index of the last entry.
    async fn rewrite(
        &self,
        group: GroupId,
        keeper: NodeId,
        term: u64,
        command: Option<Bytes>,
    ) -> Result<u64, RecoveryError> {
        let copies = self.copies(group);
        let last = copies.iter().find(|copy| copy.node == keeper);
        let last = last.map_or((0, 0), |copy| copy.disk.last);
        let from = self.nodes[&keeper].log(group);
        let commands = command.into_iter().collect();
        let end = offline::rewrite(&from, last, keeper, term, commands).await;
        let end = end.map_err(|error| cut_off(self.nodes[&keeper], error))?;
        for copy in copies.iter().filter(|copy| copy.node != keeper && copy.is_whole) {
            let node = self.nodes[&copy.node];
            let aligned = offline::align(&from, &node.log(group), &copy.disk, keeper, term).await;
            aligned.map_err(|error| cut_off(node, error))?;
        }
        Ok(end)
    }

    /// Has a shard of which no replica is left begin anew at the keeper of the control group. What
    /// is left of it anywhere goes: nothing may ever bring the old keys back.
    async fn begin_anew(&self, group: GroupId, term: u64) -> Result<(), RecoveryError> {
        for node in self.nodes.values() {
            let write = self.write(node, group, Fate::Nowhere { term });
            if write.map_err(|error| cut_off(node, error))?.is_some() {
                let emptied = empty(node, group, term, 0).await;
                emptied.map_err(|error| cut_off(node, error))?;
            }
        }
        let keeper = self.nodes[&self.plan.keeper];
        let begun = offline::begin_anew(&keeper.log(group), keeper.id(), term).await;
        begun.map_err(|error| cut_off(keeper, error))?;
        ReplicaTombstone::delete(keeper.path(), group).map_err(|error| cut_off(keeper, error))
    }
}
