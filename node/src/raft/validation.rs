//! Validation of Raft messages: an implausible message is refused before openraft sees it.
//!
//! Raft trusts its members, and openraft accepts their numbers unchecked: once a replica accepts a
//! term, all lower terms are ruled out for good, and some sums of indices overflow. A member whose
//! key was stolen, or whose memory is corrupt, must not be able to end elections for good or to
//! stop the other members. So terms and indices may advance only as far as a network in use can
//! have come, positions must follow each other as those of one log do, and the entries to append
//! must be of the kind that the group appends.
//!
//! The checks work on plain data: the replica's own figures come in, and a reason to refuse comes
//! out.
//!
//! Deliberately missing: proof that a leader was elected. Raft has none; a member that lies within
//! these bounds is the leader of its term to every node that accepts its messages.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::codec::DecodeError;
use dkv_wire::limits;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::{Entry, LogId, SnapshotMeta, StoredMembership, Types, Vote};
use dkv_state::{Batch, CorruptBatch, DirectoryEntry};

/// Highest valid index: sums with it do not overflow.
const INDEX_MAX: u64 = 1 << 62;
/// Latest valid reading of a shard's clock, in milliseconds: 8,900 years from now.
const CLOCK_MS_MAX: u64 = 1 << 48;

/// A replica's own figures, against which messages are checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The term of the last vote, if any.
    pub(super) term: Option<Term>,
    /// The index of the last entry.
    pub(super) last: u64,
}

/// Reason why the terms, positions or entries of a message cannot be true. The message is refused,
/// and its sender reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Implausible {
    /// A term is farther ahead than a network in use can have come.
    #[error("the term leaps to {to} from {from}")]
    TermLeap {
        /// The term in the message.
        to: u64,
        /// The replica's own term.
        from: Term,
    },
    /// An index is farther ahead than a leader can be.
    #[error("the index leaps to {to} from {from}")]
    IndexLeap {
        /// The index in the message.
        to: u64,
        /// The replica's own last index.
        from: u64,
    },
    /// An entry is of a later term than the message.
    #[error("an entry of term {entry} in term {message}")]
    LaterTerm {
        /// The term of the entry.
        entry: u64,
        /// The term of the message.
        message: u64,
    },
    /// Only a leader may send such a message, and the vote in it was not granted by a quorum.
    #[error("{0} from a sender that is not the leader")]
    NoLeader(&'static str),
    /// Entries do not follow each other.
    #[error("entry {index} comes where {due} is due")]
    Gap {
        /// The index of the entry.
        index: u64,
        /// The index that is due.
        due: u64,
    },
    /// The terms of entries decrease.
    #[error("entry {0} is of an earlier term than the one before")]
    EarlierTerm(u64),
    /// Two positions cannot belong to one log.
    #[error("entries {0} and {1} cannot be in one log")]
    TwoLogs(LogId, LogId),
    /// The group cannot apply an entry.
    #[error("entry {index}: {why}")]
    Entry {
        /// The index of the entry.
        index: u64,
        /// The problem.
        why: InvalidPayload,
    },
    /// A snapshot has no last entry.
    #[error("an empty snapshot")]
    EmptySnapshot,
    /// The membership of a snapshot is later than the snapshot.
    #[error("the members of a snapshot are later than it is")]
    LaterMembers,
    /// No group can have such members.
    #[error(transparent)]
    Members(#[from] InvalidMembers),
    /// A heartbeat carries no entries of which a part could be accepted.
    #[error("a partial success of an empty request")]
    PartOfNothing,
    /// The beginning of the log cannot conflict with another log.
    #[error("a conflict with the beginning of the log")]
    ConflictAtBeginning,
    /// A conflict is at another entry than the one in the request.
    #[error("a conflict at entry {0}, which was not asked about")]
    UnaskedConflict(u64),
}

/// Reason why a group cannot apply an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPayload {
    /// It is a change to members that no group can have.
    #[error(transparent)]
    Members(#[from] InvalidMembers),
    /// It is no batch of a shard.
    #[error(transparent)]
    Batch(#[from] CorruptBatch),
    /// It is a batch from an impossible time.
    #[error("its clock shows a time that cannot be")]
    Clock,
    /// It is no change of the directory.
    #[error(transparent)]
    Directory(#[from] DecodeError),
}

/// The members of a configuration that no group can have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("an impossible set of members")]
pub(crate) struct InvalidMembers;

impl Known {
    /// Checks that a message may mention a term.
    fn term(&self, term: u64) -> Result<(), Implausible> {
        match Term(term).may_follow(self.term) {
            true => Ok(()),
            false => Err(Implausible::TermLeap { to: term, from: self.term.unwrap_or_default() }),
        }
    }

    /// Checks that an entry may be at this position if the latest term is `term`.
    fn position(&self, at: Option<&LogId>, term: u64) -> Result<(), Implausible> {
        let Some(at) = at else { return Ok(()) };
        let most = self.last.saturating_add(limits::ENTRIES_AHEAD_MAX).min(INDEX_MAX);
        if at.index > most {
            return Err(Implausible::IndexLeap { to: at.index, from: self.last });
        }
        if *at.leader_id > term {
            return Err(Implausible::LaterTerm { entry: *at.leader_id, message: term });
        }
        Ok(())
    }

    /// Checks the vote of a message.
    pub(super) fn vote(&self, vote: &Vote) -> Result<(), Implausible> {
        self.term(vote.leader_id.term)
    }

    /// Checks a request to append.
    pub(super) fn append(
        &self,
        group: GroupId,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), Implausible> {
        let AppendEntriesRequest { vote, prev_log_id, leader_commit, entries } = request;
        self.vote(vote)?;
        if !vote.committed {
            return Err(Implausible::NoLeader("entries"));
        }
        let term = vote.leader_id.term;
        self.position(prev_log_id.as_ref(), term)?;
        self.position(leader_commit.as_ref(), term)?;
        let mut before = *prev_log_id;
        for entry in entries {
            let next = before.map_or(0, |before| before.index + 1);
            if entry.log_id.index != next {
                return Err(Implausible::Gap { index: entry.log_id.index, due: next });
            }
            self.position(Some(&entry.log_id), term)?;
            if before.is_some_and(|before| before.leader_id > entry.log_id.leader_id) {
                return Err(Implausible::EarlierTerm(next));
            }
            let index = entry.log_id.index;
            payload(group, entry).map_err(|why| Implausible::Entry { index, why })?;
            before = Some(entry.log_id);
        }
        in_order(before.as_ref(), leader_commit.as_ref())?;
        in_order(prev_log_id.as_ref(), leader_commit.as_ref())
    }

    /// Checks a request for a vote.
    pub(super) fn vote_request(&self, request: &VoteRequest<Types>) -> Result<(), Implausible> {
        self.vote(&request.vote)?;
        self.position(request.last_log_id.as_ref(), request.vote.leader_id.term)
    }

    /// Checks a leader's request to take over the leadership.
    pub(super) fn transfer(
        &self,
        request: &TransferLeaderRequest<Types>,
    ) -> Result<(), Implausible> {
        let vote = request.from_leader();
        self.vote(vote)?;
        self.position(request.last_log_id(), vote.leader_id.term)
    }

    /// Checks the head of a snapshot.
    pub(super) fn snapshot(&self, vote: &Vote, meta: &SnapshotMeta) -> Result<(), Implausible> {
        self.vote(vote)?;
        if !vote.committed {
            return Err(Implausible::NoLeader("a snapshot"));
        }
        let last = meta.last_log_id.as_ref().ok_or(Implausible::EmptySnapshot)?;
        self.position(Some(last), vote.leader_id.term)?;
        let members = meta.last_membership.log_id().as_ref();
        self.position(members, vote.leader_id.term)?;
        if members > Some(last) {
            return Err(Implausible::LaterMembers);
        }
        Ok(stored_membership(&meta.last_membership)?)
    }

    /// Checks an answer to a vote or a pre-vote.
    pub(super) fn vote_response(&self, answer: &VoteResponse<Types>) -> Result<(), Implausible> {
        self.vote(&answer.vote)?;
        // A candidate of an earlier term that has met a later one may receive an entry of the later
        // term.
        self.position(answer.last_log_id.as_ref(), self.latest(answer.vote.leader_id.term))
    }

    /// Checks an answer to a heartbeat that follows on `sent`.
    pub(super) fn heartbeat_response(
        &self,
        answer: &AppendEntriesResponse<Types>,
        sent: Option<&LogId>,
    ) -> Result<(), Implausible> {
        match answer {
            AppendEntriesResponse::HigherVote(vote) => self.vote(vote),
            AppendEntriesResponse::PartialSuccess(_) => Err(Implausible::PartOfNothing),
            AppendEntriesResponse::Conflict if sent.is_none() => {
                Err(Implausible::ConflictAtBeginning)
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::Success => Ok(()),
        }
    }

    /// Checks a refusal to append after `sent`.
    pub(super) fn refusal(
        &self,
        refusal: &StreamAppendError<Types>,
        sent: Option<&LogId>,
    ) -> Result<(), Implausible> {
        match refusal {
            StreamAppendError::HigherVote(vote) => self.vote(vote),
            StreamAppendError::Conflict(at) if Some(at) != sent => {
                Err(Implausible::UnaskedConflict(at.index))
            }
            StreamAppendError::Conflict(_) => Ok(()),
        }
    }

    fn latest(&self, term: u64) -> u64 {
        self.term.map_or(0, |own| own.0).max(term)
    }
}

/// Checks that two positions can belong to one log: the later index has no earlier term, and an
/// index has only one term.
fn in_order(one: Option<&LogId>, other: Option<&LogId>) -> Result<(), Implausible> {
    let (Some(one), Some(other)) = (one, other) else { return Ok(()) };
    let by_place = one.index.cmp(&other.index);
    let by_term = one.leader_id.cmp(&other.leader_id);
    if by_place.is_eq() && by_term.is_ne() || by_place == by_term.reverse() && by_term.is_ne() {
        return Err(Implausible::TwoLogs(*one, *other));
    }
    Ok(())
}

/// Checks that a group of this kind can apply an entry: one that it cannot apply stops the replica.
fn payload(group: GroupId, entry: &Entry) -> Result<(), InvalidPayload> {
    match &entry.payload {
        EntryPayload::Blank => Ok(()),
        EntryPayload::Membership(membership) => {
            let members = membership.nodes().map(|(node, _)| *node).collect();
            Ok(self::membership(membership.get_joint_config(), &members)?)
        }
        EntryPayload::Normal(proposal) if group.is_shard() => {
            let batch = Batch::decode(&proposal.0)?;
            if batch.time_ms() <= CLOCK_MS_MAX { Ok(()) } else { Err(InvalidPayload::Clock) }
        }
        EntryPayload::Normal(proposal) => {
            DirectoryEntry::decode(&proposal.0)?;
            Ok(())
        }
    }
}

fn stored_membership(stored: &StoredMembership) -> Result<(), InvalidMembers> {
    let members = stored.nodes().map(|(node, _)| *node).collect();
    membership(stored.get_joint_config(), &members)
}

fn membership(
    configs: &[BTreeSet<NodeId>],
    members: &BTreeSet<NodeId>,
) -> Result<(), InvalidMembers> {
    let is_sized =
        |voters: &BTreeSet<NodeId>| (1..=limits::REPLICATION_MAX as usize).contains(&voters.len());
    let is_whole = (1..=2).contains(&configs.len())
        && configs.iter().all(|voters| is_sized(voters) && voters.is_subset(members))
        && members.len() <= limits::NODES_MAX;
    if is_whole { Ok(()) } else { Err(InvalidMembers) }
}

#[cfg(test)]
mod tests;
