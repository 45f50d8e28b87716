//! Whether a replica still has what it has promised to keep.
//!
//! A voter that acknowledges an entry promises to keep it: others count on its copy. A disk that
//! said it had synced and had not, or a data directory that was copied back, breaks that promise,
//! and its owner cannot tell: the log is shorter, and whole. Who can tell is a leader that was
//! given the acknowledgement. So a leader tells each voter how far it knows it to be
//! ([`Acknowledged`]), with each heartbeat and at the beginning of each stream of entries, before
//! anything that the voter answers can count. A voter that has less is unfit for good: with it on
//! board, a majority might not have an entry that was committed, and its votes may be forgotten
//! too. It stops, and comes back under a new identity, as one that has promised nothing.
//!
//! Nobody's bare word stops a node. With each acknowledgement goes a seal that only this node can
//! make (see [`dkv_wire::seal`]); the leader tells it the seal too, and what does not carry the
//! right one is a lie, or of somebody else, and is refused and no more.
//!
//! The same is asked for another reason: whether a leader is still followed here. openraft answers
//! a heartbeat once all that it gave to the log before is on disk, which is right for entries and
//! far more than a heartbeat asks. While a disk is slow, leaders would seem to have lost their
//! quorum, and no read could be confirmed. See [`Promises::follows`].
//!
//! Deliberately missing: what no leader is left to tell. If the leader dies together with the disk
//! of the voter, two failures have met, which is more than three voters are for.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::codec::decode;
use dkv_wire::message::Acknowledged;
use dkv_wire::seal::{Seal, Sealer};
use tokio::sync::watch;

use super::validation::Known;
use super::{LogId, MachineHandle, Vote};
use dkv_wal::GroupLog;

/// A disk that has written for so long may never end it.
const STALLED: Duration = Duration::from_millis(500);

/// What a replica has promised, and whether it has broken it.
#[derive(Clone)]
pub(crate) struct Promises {
    log: GroupLog,
    machine: MachineHandle,
    /// The last entry that concerned an earlier replica of the same group in the same directory.
    owed: u64,
    sealer: Sealer,
    broken: watch::Sender<Option<String>>,
}

/// What seals of acknowledgements are for.
const PURPOSE: &str = "dkv acknowledgement 1";

impl Promises {
    /// `secret` is this node's own, and the same for the life of its identity.
    pub(crate) fn new(log: GroupLog, machine: MachineHandle, owed: u64, secret: &[u8]) -> Self {
        let (sealer, broken) = (Sealer::new(secret, PURPOSE), watch::Sender::new(None));
        Self { log, machine, owed, sealer, broken }
    }

    /// The group that the replica is of.
    pub(super) fn group(&self) -> GroupId {
        self.log.id()
    }

    /// The replica's log.
    pub(super) fn log(&self) -> &GroupLog {
        &self.log
    }

    /// What is known here, to judge what others say by.
    pub(super) fn known(&self) -> Known {
        let vote = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok());
        let term = vote.map(|vote| Term(vote.leader_id.term));
        Known { term, last: self.last_index() }
    }

    /// The seal on the word that all up to that entry is on disk here, as a leader of that term is
    /// told.
    pub(super) fn seal(&self, term: Term, last: Option<LogId>) -> Option<Seal> {
        last.map(|last| self.sealer.seal(&self.word(term, last.index)))
    }

    /// What an acknowledgement says, in bytes.
    fn word(&self, Term(term): Term, index: u64) -> [u8; 20] {
        let mut word = [0; 20];
        word[..4].copy_from_slice(&self.log.id().0.to_le_bytes());
        word[4..12].copy_from_slice(&term.to_le_bytes());
        word[12..].copy_from_slice(&index.to_le_bytes());
        word
    }

    /// Whether this replica knows all that an earlier one in its place knew (see `former`). Until
    /// then it must not vote, and its members may be those of long ago.
    pub(crate) fn are_known(&self) -> bool {
        self.owed == 0 || self.owed <= self.last_index()
    }

    /// The last entry that is here, or was.
    fn last_index(&self) -> u64 {
        let log = self.log.state();
        let in_log = log.last_index.max(log.purged.map(|(purged, _)| purged)).unwrap_or(0);
        in_log.max(self.machine.applied_index())
    }

    /// Compares what `leader` knows to be here with what is here.
    ///
    /// # Errors
    /// If it is not here any more, with what is missing: the node must then stop for good, and
    /// hears of it by [`broken`](Self::broken). And if it was never said by this node; then nothing
    /// is to be done.
    pub(crate) fn check(
        &self,
        leader: NodeId,
        acknowledged: Option<Acknowledged>,
    ) -> Result<(), String> {
        let Some(Acknowledged { term, index, seal }) = acknowledged else { return Ok(()) };
        if !self.are_known() {
            // It was begun anew, and has promised nothing yet.
            return Ok(());
        }
        let log = self.log.state();
        let Some(vote) = log.vote.as_deref().and_then(|vote| decode::<Vote>(vote).ok()) else {
            // A replica that was begun anew: it has promised nothing yet.
            return Ok(());
        };
        let own = (Term(vote.leader_id.term), vote.leader_id.voted_for);
        // Of a later term: another leader may have had it drop what was never committed. In its own
        // term a leader never does.
        if own.0 > term || own.0 == term && own.1 != leader {
            return Ok(());
        }
        let last = self.last_index();
        if last >= index {
            return Ok(());
        }
        if !self.sealer.knows(&self.word(term, index), seal) {
            return Err(format!("this node has never acknowledged entry {index} in term {term}"));
        }
        let why = format!(
            "the log ends at entry {last} of group {}, and this node has acknowledged entry {index} \
             to node {leader:?} in term {term} under its own seal",
            self.log.id()
        );
        self.broken.send_replace(Some(why.clone()));
        Err(why)
    }

    /// Whether this replica follows the leader that has this vote, and its disk is slow at worst.
    ///
    /// What counts is the vote that was given to the log last. openraft tells a candidate that it
    /// has a vote only once that is on disk, which is after it was given to the log: as long as the
    /// leader's own vote is the last one there, no later leader has been elected with the help of
    /// this replica.
    pub(crate) fn follows(&self, vote: &Vote) -> bool {
        let own = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok());
        // One whose disk has stalled is as good as gone, and must seem so.
        own.as_ref() == Some(vote) && vote.committed && self.log.write_pending() < STALLED
    }

    /// The term in which this replica follows `leader`, in the same sense.
    pub(crate) fn followed(&self, leader: NodeId) -> Option<Term> {
        let own = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok())?;
        let follows = own.leader_id.voted_for == leader && self.follows(&own);
        follows.then_some(Term(own.leader_id.term))
    }

    /// Waits until a promise was found broken, and returns what is missing.
    pub(crate) async fn broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        match broken.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            // The sender is in `self`.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
