//! Applies entries of the log to the state.

use std::io;

use dkv_base::id::{Stamp, Term};
use openraft::{EntryPayload, StoredMembership};

use super::StateMachineHandle;
use crate::raft::{self, LogId, Outcome, Proposal, RaftNodeId};
use dkv_state::{Applied, GroupState, Needed, ShardState};

impl StateMachineHandle {
    /// Returns the values that the transactions of an entry need, read from the checkpoint if they
    /// are not in memory. Only applying an entry changes what they are.
    fn needed(&self, entry: &[u8]) -> io::Result<Needed> {
        if !self.shared.group.is_shard() || !dkv_state::has_transactions(entry) {
            return Ok(Needed::default());
        }
        let corrupt = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut needed = match self.read().state.as_shard() {
            Some(shard) => shard.needed(entry).map_err(corrupt)?,
            None => return Ok(Needed::default()),
        };
        for key in std::mem::take(&mut needed.stored) {
            let row = self.shared.store.get(&key).map_err(io::Error::other)?;
            if let Some(row) = row {
                needed.rows.insert(key, row);
            }
        }
        Ok(needed.or_from(&self.shared.store))
    }

    /// Takes note of the shard's clock after an entry.
    pub(super) fn note_clock(&self, entry: Option<LogId>, clock_ms: u64) {
        let term = entry.map_or(Term(0), |entry| Term(*entry.leader_id));
        super::lock(&self.shared.clock).observe(term, clock_ms, self.shared.began.elapsed());
    }

    /// Applies one entry of a group that is not open.
    pub(in crate::raft) fn apply_offline(
        &self,
        log_id: LogId,
        payload: EntryPayload<Proposal, RaftNodeId, openraft::EmptyNode>,
    ) -> io::Result<()> {
        self.apply(log_id, payload)?;
        self.shared.applied.set(log_id.index);
        Ok(())
    }

    /// Returns the last configuration that was applied.
    pub(in crate::raft) fn membership(&self) -> raft::StoredMembership {
        self.read().position.membership.clone()
    }

    /// Returns the stamp of the last write in the state.
    pub(in crate::raft) fn state_stamp(&self) -> Stamp {
        self.read().state.stamp()
    }

    /// Applies one entry.
    pub(super) fn apply(
        &self,
        log_id: LogId,
        payload: EntryPayload<Proposal, RaftNodeId, openraft::EmptyNode>,
    ) -> io::Result<Outcome> {
        let needed = match &payload {
            EntryPayload::Normal(proposal) => self.needed(&proposal.0)?,
            EntryPayload::Blank | EntryPayload::Membership(_) => Needed::default(),
        };
        let mut current = self.write();
        let due = current.position.applied.map(|applied| applied.index + 1);
        if let Some(due) = due.filter(|due| *due != log_id.index) {
            let why = format!("entry {} is to be applied, and entry {due} is due", log_id.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let releases = |state: &GroupState| state.as_shard().map(ShardState::releases);
        let before = releases(&current.state);
        let has_stamp = matches!(payload, EntryPayload::Normal(_));
        let outcome = match payload {
            EntryPayload::Blank => Outcome::None,
            EntryPayload::Normal(proposal) => {
                match current.state.apply_with(&proposal.0, &needed) {
                    Ok(Applied::Shard(results)) => Outcome::Shard(results),
                    Ok(Applied::Control(result)) => Outcome::Directory(result),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
            }
            EntryPayload::Membership(membership) => {
                current.position.membership = StoredMembership::new(Some(log_id), membership);
                Outcome::None
            }
        };
        current.position.applied = Some(log_id);
        self.note_lease_news(current.state.as_shard());
        if has_stamp {
            self.note_clock(Some(log_id), current.state.clock_ms());
        }
        self.shared.stamps.observe(current.state.stamp());
        if releases(&current.state) != before {
            self.note_released();
        }
        Ok(outcome)
    }
}
