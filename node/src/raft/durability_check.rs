//! Detection of a replica that no longer has what it promised to keep.
//!
//! A voter that acknowledges an entry promises to keep it: others count on its copy. A disk that
//! reported a sync that it had not done, or a data directory that was restored from a copy, breaks
//! that promise. The replica itself cannot tell: its log is shorter, but intact. A leader that
//! received the acknowledgement can tell. So a leader tells each voter how far it knows the voter
//! to be ([`Acknowledged`]), with each heartbeat and at the beginning of each stream of entries,
//! before any answer of the voter can count. A voter that has less is unfit for good: with it as a
//! member, a majority might not have an entry that was committed, and the voter may have forgotten
//! its votes too. It stops, and comes back under a new identity, as a node that has promised
//! nothing.
//!
//! No node stops on another's bare word. Each acknowledgement carries a seal that only the
//! acknowledging node can make (see [`dkv_wire::seal`]), and the leader sends the seal back with
//! its statement. A statement without the right seal is a lie, or concerns another node; the
//! replica refuses it and does no more.
//!
//! This module also answers a second question: whether a replica still follows a leader. openraft
//! answers a heartbeat once everything that it gave to the log before is on disk. That is right for
//! entries, and far more than a heartbeat needs: while a disk is slow, leaders would seem to have
//! lost their quorum, and no read could be confirmed. See [`DurabilityCheck::follows`].
//!
//! Deliberately missing: the case in which no leader is left to tell the voter. If the leader dies
//! together with the disk of the voter, two failures coincide, which is more than three voters
//! tolerate.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::codec::decode;
use dkv_wire::message::Acknowledged;
use dkv_wire::seal::{Seal, Sealer};
use tokio::sync::watch;

use super::refusal::{BrokenPromise, PromiseError};
use super::validation::Known;
use super::{LogId, StateMachineHandle, Vote};
use dkv_wal::GroupLog;

/// Time after which a disk write counts as stalled: it may never end.
const STALLED: Duration = Duration::from_millis(500);

/// The promises of a replica, and whether it has broken one.
#[derive(Clone)]
pub(crate) struct DurabilityCheck {
    log: GroupLog,
    state_machine: StateMachineHandle,
    /// Index of the last entry that concerned an earlier replica of the same group in the same data
    /// directory; zero if there was none.
    owed: u64,
    sealer: Sealer,
    broken: watch::Sender<Option<BrokenPromise>>,
}

/// The purpose of the seals of acknowledgements.
const PURPOSE: &str = "dkv acknowledgement 1";

impl DurabilityCheck {
    /// Creates the check of a replica.
    ///
    /// `secret` belongs to this node alone, and stays the same for the life of its identity.
    pub(crate) fn new(
        log: GroupLog,
        state_machine: StateMachineHandle,
        owed: u64,
        secret: &[u8],
    ) -> Self {
        let (sealer, broken) = (Sealer::new(secret, PURPOSE), watch::Sender::new(None));
        Self { log, state_machine, owed, sealer, broken }
    }

    /// Returns the group of the replica.
    pub(super) fn group(&self) -> GroupId {
        self.log.id()
    }

    /// Returns the replica's log.
    pub(super) fn log(&self) -> &GroupLog {
        &self.log
    }

    /// Returns the facts by which this replica judges the statements of others.
    pub(super) fn known(&self) -> Known {
        let vote = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok());
        let term = vote.map(|vote| Term(vote.leader_id.term));
        Known { term, last: self.last_index() }
    }

    /// Seals the statement, made to a leader of that term, that all entries up to `last` are on
    /// disk here.
    pub(super) fn seal(&self, term: Term, last: Option<LogId>) -> Option<Seal> {
        last.map(|last| self.sealer.seal(&self.word(term, last.index)))
    }

    /// Encodes the statement of an acknowledgement.
    fn word(&self, Term(term): Term, index: u64) -> [u8; 20] {
        let mut word = [0; 20];
        word[..4].copy_from_slice(&self.log.id().0.to_le_bytes());
        word[4..12].copy_from_slice(&term.to_le_bytes());
        word[12..].copy_from_slice(&index.to_le_bytes());
        word
    }

    /// Returns whether this replica knows everything that an earlier one in its place knew (see
    /// `replica/tombstone.rs`).
    ///
    /// Until then it must not vote, and the members that it knows may be long out of date.
    pub(crate) fn are_known(&self) -> bool {
        self.owed == 0 || self.owed <= self.last_index()
    }

    /// Returns the index of the last entry that this replica has, or had before it was purged.
    fn last_index(&self) -> u64 {
        let log = self.log.state();
        let in_log = log.last_index.max(log.purged.map(|(purged, _)| purged)).unwrap_or(0);
        in_log.max(self.state_machine.applied_index())
    }

    /// Compares what `leader` knows this replica to have with what it has.
    ///
    /// # Errors
    /// See [`PromiseError`]. A broken promise is also reported by [`broken`](Self::broken).
    pub(crate) fn check(
        &self,
        leader: NodeId,
        acknowledged: Option<Acknowledged>,
    ) -> Result<(), PromiseError> {
        let Some(Acknowledged { term, index, seal }) = acknowledged else { return Ok(()) };
        if !self.are_known() {
            // This replica was begun anew, and has promised nothing yet.
            return Ok(());
        }
        let log = self.log.state();
        let Some(vote) = log.vote.as_deref().and_then(|vote| decode::<Vote>(vote).ok()) else {
            // This replica was begun anew, and has promised nothing yet.
            return Ok(());
        };
        let own = (Term(vote.leader_id.term), vote.leader_id.voted_for);
        // In a later term, another leader may have had this replica drop entries that were never
        // committed. A leader never does that in its own term.
        if own.0 > term || own.0 == term && own.1 != leader {
            return Ok(());
        }
        let last = self.last_index();
        if last >= index {
            return Ok(());
        }
        if !self.sealer.knows(&self.word(term, index), seal) {
            return Err(PromiseError::NeverMade { index, term });
        }
        let why = BrokenPromise { group: self.log.id(), last, index, leader, term };
        self.broken.send_replace(Some(why.clone()));
        Err(PromiseError::Broken(why))
    }

    /// Returns whether this replica follows the leader with this vote and its disk is at worst
    /// slow.
    ///
    /// The vote that was last given to the log counts. openraft tells a candidate that it has a
    /// vote only once that vote is on disk, which is after it was given to the log. So as long as
    /// the leader's own vote is the last one there, no later leader has been elected with the help
    /// of this replica.
    pub(crate) fn follows(&self, vote: &Vote) -> bool {
        let own = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok());
        // A replica whose disk has stalled is as good as gone, and must appear so.
        own.as_ref() == Some(vote) && vote.committed && self.log.write_pending() < STALLED
    }

    /// Returns the term in which this replica follows `leader`, as [`follows`](Self::follows)
    /// defines it.
    pub(crate) fn followed(&self, leader: NodeId) -> Option<Term> {
        let own = self.log.state().vote.and_then(|own| decode::<Vote>(&own).ok())?;
        let follows = own.leader_id.voted_for == leader && self.follows(&own);
        follows.then_some(Term(own.leader_id.term))
    }

    /// Waits until a check finds a promise broken, and returns what is missing.
    pub(crate) async fn broken(&self) -> BrokenPromise {
        let mut broken = self.broken.subscribe();
        match broken.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            // The channel cannot close: `self` owns the sender.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
