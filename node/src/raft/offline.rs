//! Reading and rewriting the log of a group that is not open, for a recovery.
//!
//! A group that has lost its majority for good cannot change its members by Raft: nobody is left to
//! agree. So its log is given one more entry by hand, a configuration with a single voter, in a
//! term that no election of the lost members can have reached. Everything before that entry counts
//! as committed from then on. A node that opens the log finds an ordinary one, and elects itself.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use dkv_base::id::{NodeId, Stamp};
use dkv_wire::codec::{decode, encode};
use openraft::{EntryPayload, Membership};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::codec::{decode_entry, encode_entry, invalid, log_id};
use super::{Entry, LogId, Proposal, StateMachine, Vote};
use dkv_wal::{Done, GroupLog};

/// Bytes of entries that are read at a time.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// What one replica of a group has on disk. Its state has all of that applied, also what was not
/// known to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// The term of its last vote.
    pub(crate) term: u64,
    /// Term and index of its last entry; zeros if it has none.
    pub(crate) last: (u64, u64),
    /// Index of the last entry that it knows to be committed.
    pub(crate) committed: u64,
    /// The voters of its newest configuration: several sets if that is joint, none if nothing has
    /// reached the replica yet.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    /// All members of that configuration.
    pub(crate) members: BTreeSet<NodeId>,
    /// The stamp of its last write.
    pub(crate) stamp: Stamp,
}

/// The end of a log that an unfinished recovery has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    /// Index of the first entry of the recovery, if it has written one.
    pub(crate) first: u64,
    /// The term of its entries.
    pub(crate) term: u64,
    /// Index of the last entry that was known to be committed before.
    pub(crate) committed: u64,
}

impl Unfinished {
    /// Returns whether the log has entries of the recovery.
    fn is_in(&self, log: &GroupLog) -> io::Result<bool> {
        Ok(term_at(log, self.first)? == Some(self.term))
    }
}

/// Whether one log can be made equal to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// It can: both have this entry, and all before it.
    From(u64),
    /// The other log has purged what this one lacks.
    Behind,
    /// Both have committed entries at one index, and not the same.
    Diverged,
}

/// Reads a replica, and applies its whole log to `state`, in memory only; what an unfinished
/// recovery has written does not count.
///
/// # Errors
/// If an entry is missing or cannot be applied, or the log cannot be read.
pub(crate) fn read(
    log: &GroupLog,
    state: &StateMachine,
    unfinished: Option<Unfinished>,
) -> io::Result<OnDisk> {
    let (handle, stored) = (state.handle(), log.state());
    let committed = match &stored.committed {
        Some(committed) => decode::<Option<LogId>>(committed).map_err(invalid)?,
        None => None,
    };
    let committed = committed.max(handle.applied_log_id());
    let vote = match &stored.vote {
        Some(vote) => Some(decode::<Vote>(vote).map_err(invalid)?),
        None => None,
    };
    let written = unfinished.map(|it| it.is_in(log)).transpose()?.unwrap_or(false);
    let unfinished = unfinished.filter(|_| written);
    let end = stored.last_index.map_or(0, |last| last + 1);
    let end = unfinished.map_or(end, |it| it.first);
    // The first entry of a log has the index 0.
    let mut next = handle.applied_log_id().map_or(0, |applied| applied.index + 1);
    while next < end {
        let entries = log.read_limited(next, end, READ_BYTES)?;
        for (index, entry) in &entries {
            if *index != next {
                break;
            }
            let Entry { log_id, payload } = decode_entry(entry).map_err(invalid)?;
            handle.apply_offline(log_id, payload)?;
            next += 1;
        }
        if entries.first().is_none_or(|(first, _)| *first >= next) {
            return Err(missing(next));
        }
    }
    let (membership, last) = (handle.membership(), handle.applied_log_id());
    let membership = membership.membership();
    Ok(OnDisk {
        term: vote.map_or(0, |vote| vote.leader_id.term),
        last: last.map_or((0, 0), |last| (*last.leader_id, last.index)),
        committed: unfinished
            .map_or(u64::MAX, |it| it.committed)
            .min(committed.map_or(0, |committed| committed.index)),
        voters: membership.get_joint_config().clone(),
        members: membership.nodes().map(|(node, _)| *node).collect(),
        stamp: handle.state_stamp(),
    })
}

/// Makes `keeper` the only member of a group, in `term`: appends `commands` and the configuration
/// to the log that ends with `last`, and declares all of it committed. Returns the index of the
/// last entry once everything is on disk. The configuration comes last, so that a log that has it
/// has the commands, too.
///
/// # Errors
/// If the log cannot be written. Then it may have the vote, or the vote and some of the commands,
/// and the recovery can be repeated.
pub(crate) async fn rewrite(
    log: &GroupLog,
    last: (u64, u64),
    keeper: NodeId,
    term: u64,
    commands: Vec<Bytes>,
) -> io::Result<u64> {
    let vote = committed_vote(term, keeper);
    durably(|done| log.save_vote(vote.clone(), done)).await?;
    let stored = log.state();
    let in_log = stored.last_index.max(stored.purged.map(|(purged, _)| purged));
    if in_log.is_none_or(|in_log| in_log < last.1) {
        // The state came as a snapshot, and the log before it was not cleaned up yet.
        let upto = encode(&log_id(last.0, last.1));
        durably(|done| log.purge(last.1, upto, done)).await?;
    }
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([keeper])], []);
    let commands = commands.into_iter().map(|command| EntryPayload::Normal(Proposal(command)));
    let payloads = commands.chain([EntryPayload::Membership(membership)]);
    let entries: Vec<(u64, Bytes)> = (last.1 + 1..)
        .zip(payloads)
        .map(|(index, payload)| {
            (index, encode_entry(&Entry { log_id: log_id(term, index), payload }))
        })
        .collect();
    let end = entries.last().map_or(last.1, |(index, _)| *index);
    durably(|done| log.append(entries, done)).await?;
    log.save_committed(encode(&Some(log_id(term, end))))?;
    // The committed position goes to disk with the next frame.
    durably(|done| log.save_vote(vote, done)).await?;
    Ok(end)
}

/// Takes back what an unfinished recovery has written. Its vote stays: terms never go back.
///
/// # Errors
/// If the log cannot be read or written.
pub(crate) async fn undo(log: &GroupLog, unfinished: Unfinished) -> io::Result<()> {
    if !unfinished.is_in(log)? {
        return Ok(());
    }
    let index = unfinished.committed;
    let committed = term_at(log, index)?.map(|term| log_id(term, index));
    // It goes to disk with the frame that drops the entries: no position outlives its entry.
    log.save_committed(encode(&committed))?;
    durably(|done| log.truncate_from(unfinished.first, done)).await
}

/// Gives a group whose log is empty a first entry with `keeper` as the only member, in `term`.
///
/// # Errors
/// If the log cannot be written.
pub(crate) async fn begin_anew(log: &GroupLog, keeper: NodeId, term: u64) -> io::Result<()> {
    let vote = committed_vote(term, keeper);
    durably(|done| log.save_vote(vote.clone(), done)).await?;
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([keeper])], []);
    let payload = EntryPayload::Membership(membership);
    let entry = encode_entry(&Entry { log_id: log_id(term, 0), payload });
    durably(|done| log.append(vec![(0, entry)], done)).await?;
    log.save_committed(encode(&Some(log_id(term, 0))))?;
    durably(|done| log.save_vote(vote, done)).await
}

/// Drops all data of a group from the log.
///
/// # Errors
/// If the log cannot be written.
pub(crate) async fn forget(log: &GroupLog) -> io::Result<()> {
    durably(|done| log.forget(done)).await
}

/// Makes the replica in `to`, which has what `disk` says, equal to the one in `from`, which was
/// rewritten in `term` for `keeper`: it gets the entries that it lacks, and loses those that the
/// other does not have. So it knows the new configuration, and can elect nobody by the old one.
/// Does nothing if [`alignment`] says that it cannot.
///
/// # Errors
/// If a log cannot be read or written.
pub(crate) async fn align(
    from: &GroupLog,
    to: &GroupLog,
    disk: &OnDisk,
    keeper: NodeId,
    term: u64,
) -> io::Result<()> {
    let last = disk.last;
    let Some(end) = from.state().last_index else { return Ok(()) };
    let Alignment::From(common) = alignment(from, to, disk)? else { return Ok(()) };
    let vote = committed_vote(term, keeper);
    durably(|done| to.save_vote(vote.clone(), done)).await?;
    let stored = to.state();
    let in_log = stored.last_index.max(stored.purged.map(|(purged, _)| purged));
    if in_log.is_none_or(|in_log| in_log < common) {
        let upto = encode(&log_id(last.0, last.1));
        durably(|done| to.purge(last.1, upto, done)).await?;
    }
    durably(|done| to.truncate_from(common + 1, done)).await?;
    let mut next = common + 1;
    while next <= end {
        let entries = from.read_limited(next, end + 1, READ_BYTES)?;
        let Some((read, _)) = entries.last() else {
            return Err(missing(next));
        };
        next = read + 1;
        durably(|done| to.append(entries, done)).await?;
    }
    to.save_committed(encode(&Some(log_id(term, end))))?;
    durably(|done| to.save_vote(vote, done)).await
}

/// Returns whether the replica in `to`, which has what `disk` says, can be made equal to the one in
/// `from`, which goes on.
///
/// # Errors
/// If a log cannot be read.
pub(crate) fn alignment(from: &GroupLog, to: &GroupLog, disk: &OnDisk) -> io::Result<Alignment> {
    let (last, stored) = (disk.last, from.state());
    let end = stored.last_index.max(stored.purged.map(|(purged, _)| purged)).unwrap_or(0);
    if end < disk.committed {
        // It came as a snapshot, and its log ends before: nothing there can be compared.
        return Ok(Alignment::Behind);
    }
    let mut index = last.1.min(end);
    // A committed entry is never dropped, and never missing in a later log.
    while index >= disk.committed {
        let theirs = if index == last.1 { Some(last.0) } else { term_at(to, index)? };
        match (term_at(from, index)?, theirs) {
            (Some(one), Some(other)) if one == other => return Ok(Alignment::From(index)),
            (Some(_), Some(_)) if index > 0 => index -= 1,
            (Some(_), Some(_)) => return Ok(Alignment::Diverged),
            _ => return Ok(Alignment::Behind),
        }
    }
    Ok(Alignment::Diverged)
}

fn committed_vote(term: u64, keeper: NodeId) -> Bytes {
    let mut vote = Vote::new(term, keeper);
    vote.committed = true;
    encode(&vote)
}

/// Returns the term of an entry, as far as the log knows it. Before the first entry it is zero.
fn term_at(log: &GroupLog, index: u64) -> io::Result<Option<u64>> {
    let stored = log.state();
    if let Some((_, entry)) = log.read_limited(index, index + 1, 1)?.first() {
        let entry = decode_entry(entry).map_err(invalid)?;
        return Ok(Some(*entry.log_id.leader_id));
    }
    match stored.purged {
        Some((purged, log_id)) if purged == index => {
            let log_id: LogId = decode(&log_id).map_err(invalid)?;
            Ok(Some(*log_id.leader_id))
        }
        None if index == 0 => Ok(Some(0)),
        _ => Ok(None),
    }
}

fn missing(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {index} of the log is missing"))
}

/// Gives one write to the log, and waits until it is durable.
async fn durably(write: impl FnOnce(Done) -> io::Result<()>) -> io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    // The receiver waits below, for as long as there is a sender.
    write(Box::new(move |result| drop(sender.send(result))))?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
}

#[cfg(test)]
mod tests;
