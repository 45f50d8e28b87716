//! Transactions over several shards as part of an entry of the log.
//!
//! To *prepare* is to judge the compares, to see whether each list of operations can be executed,
//! and to lock the keys. The verdict stays true as long as the locks are held, so that the decision
//! is a matter of the answers only, and finishing cannot fail. See [`Attempts`] for what
//! is remembered.
//!
//! [`Attempts`]: crate::attempts::Attempts

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits as wire_limits;
use dkv_wire::message::{
    AttemptId, Command, Commitment, Decide, Decision, Keys, PartReceipt, Prepare, Resolution,
    Transaction, TransactionOperation, Unfit, WriteAttached,
};

use super::ShardState;
use super::budget::Budget;
use super::needed::{MissingValue, Needed, Supply};
use crate::attempt_rows::Record;
use crate::attempts::Locking;
use crate::command::transaction::{validate, validate_part};
use crate::command::{self, CommandResult, Foreseen};
use crate::limits;
use crate::locks::PartKeys;
use crate::session::Outcome;
use crate::sessions::Admission;

/// A transaction that its home has decided or has still to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeRecord {
    /// It is prepared here and not decided.
    Undecided {
        /// The attempt.
        id: AttemptId,
        /// When it may be aborted, in milliseconds of the log's clock.
        deadline_ms: u64,
        /// The other shards.
        participants: Vec<GroupId>,
    },
    /// It is committed, and other shards may not have finished it.
    Unfinished {
        /// The attempt.
        id: AttemptId,
        /// What the other shards have to know.
        commitment: Commitment,
        /// The other shards.
        participants: Vec<GroupId>,
    },
}

impl ShardState {
    /// Returns whether a prepared transaction has locked a key.
    pub fn is_locked(&self, key: &[u8]) -> bool {
        self.attempts.locks().is_locked(key)
    }

    /// Returns the shard's latest revision when a prepared transaction locked a key that it may
    /// write; `None` if there is no such transaction.
    pub fn write_locked_at(&self, key: &[u8]) -> Option<Revision> {
        self.attempts.locks().write_locked_at(key)
    }

    /// Returns whether a prepared transaction may write a key with this prefix after one key and up
    /// to another, or to the end of the prefix.
    pub fn is_write_locked_between(
        &self,
        prefix: &[u8],
        after: &[u8],
        upto: Option<&[u8]>,
    ) -> bool {
        use std::ops::Bound::{Excluded, Included, Unbounded};

        let from = if after < prefix { Included(prefix) } else { Excluded(after) };
        let upto = upto.map_or(Unbounded, Included);
        self.attempts.locks().any_write_locked_between((from, upto), prefix)
    }

    /// Returns whether a prepared transaction may write a key of a range.
    pub fn is_range_write_locked(&self, keys: &Keys<'_>) -> bool {
        self.attempts.locks().any_write_locked(keys)
    }

    /// Returns the number of locked keys.
    pub fn locked_keys(&self) -> usize {
        self.attempts.locks().len()
    }

    /// Returns how often locks were released on this replica since it was loaded.
    pub fn releases(&self) -> u64 {
        self.attempts.locks().releases()
    }

    /// Returns which commands can be executed now, in this order, that have met a lock before. If
    /// several would lock a key, only the first can.
    pub fn unblocked<'a>(&self, commands: impl Iterator<Item = &'a [u8]>) -> Vec<bool> {
        let mut claimed: BTreeSet<Vec<u8>> = BTreeSet::new();
        let is_free = |command: &'a [u8]| match command::decode_logged(command) {
            Some(Command::Write(write) | Command::WriteAttached(WriteAttached { write, .. })) => {
                !self.is_locked(write.key) && !claimed.contains(write.key)
            }
            Some(Command::Transact(transact)) => !self.blocks_transaction(transact.body),
            Some(Command::Cut { moment }) => !self.is_undecided_at(moment),
            Some(Command::Prepare(prepare)) => {
                let transaction = validate_part(prepare.body);
                let Some(keys) = transaction.as_ref().and_then(PartKeys::of) else { return true };
                let keys_of = || keys.written.iter().chain(&keys.read);
                let is_free = self.attempts.locks().are_free(&keys)
                    && !keys_of().any(|key| claimed.contains(*key));
                if is_free {
                    claimed.extend(keys_of().map(|key| key.to_vec()));
                }
                is_free
            }
            _ => true,
        };
        commands.map(is_free).collect()
    }

    /// Returns the parts that are prepared here, each with the time in milliseconds of the log's
    /// clock at which it was.
    pub fn prepared(&self) -> impl Iterator<Item = (AttemptId, u64)> {
        self.attempts.parts().iter().map(|(id, part)| (*id, part.since_ms))
    }

    /// Returns the body of a prepared part.
    pub fn prepared_body(&self, id: AttemptId) -> Option<&std::sync::Arc<[u8]>> {
        self.attempts.parts().get(&id).map(|part| &part.body)
    }

    /// Returns the transactions whose home this is and that are not over everywhere.
    pub fn home_records(&self) -> impl Iterator<Item = HomeRecord> {
        self.attempts.records().filter_map(|record| match record {
            Record::Pending { id, deadline_ms, participants } => Some(HomeRecord::Undecided {
                id: *id,
                deadline_ms: *deadline_ms,
                participants: participants.clone(),
            }),
            Record::Committed { id, commitment, parts, finished: false, .. } => {
                let participants = parts.iter().map(|part| part.shard).collect();
                Some(HomeRecord::Unfinished { id: *id, commitment: *commitment, participants })
            }
            Record::Fenced { .. } | Record::Committed { finished: true, .. } => None,
        })
    }

    /// Returns the receipts of the other shards of a committed transaction, as long as its client
    /// may ask.
    pub fn committed_parts(&self, session: SessionId, serial: Serial) -> Option<&[PartReceipt]> {
        match self.attempts.record(session, serial)? {
            Record::Committed { parts, .. } => Some(parts),
            Record::Fenced { .. } | Record::Pending { .. } => None,
        }
    }

    /// Returns whether a prepared transaction may get a stamp up to this moment, so that it is not
    /// known yet what a cut there has to show.
    pub(super) fn is_undecided_at(&self, moment: Stamp) -> bool {
        let mut parts = self.attempts.parts().values();
        !planted(Mutant::CutAfterMoment) && parts.any(|part| part.stamp < moment)
    }

    /// Returns whether a lock keeps a transaction of this shard from being executed.
    pub(super) fn blocks_transaction(&self, body: &[u8]) -> bool {
        let locks = self.attempts.locks();
        if locks.len() == 0 {
            return false;
        }
        let Ok(transaction) = validate(body, wire_limits::VALUE_BYTES_MAX as u64) else {
            return false;
        };
        let (compares, operations) = transaction.parts();
        let meets = |operation: &TransactionOperation<'_>| match operation {
            // Its operations are among these.
            TransactionOperation::Nested(_) => false,
            _ => match operation.written() {
                Some(keys) => locks.any_locked(&keys),
                None => locks.any_write_locked(&operation.keys()),
            },
        };
        let is_compared = |keys: &Keys<'_>| locks.any_write_locked(keys);
        compares.iter().any(|compare| is_compared(&compare.keys)) || operations.iter().any(meets)
    }

    /// Prepares a part.
    pub(super) fn prepare(
        &mut self,
        prepare: &Prepare<'_>,
        supply: Supply<'_>,
    ) -> Result<CommandResult, MissingValue> {
        let Prepare { id, over, after, body, .. } = *prepare;
        let (session, serial) = (id.session, id.serial);
        let no_room = Ok(CommandResult::Overloaded { retry_after_ms: limits::PARTS_RETRY_MS });
        let mut fence = None;
        match &prepare.at_home {
            Some(home) => {
                let admission = self.admit(session, serial, home.settled);
                let again = planted(Mutant::RepeatOverShards);
                if let Admission::Answer(answer) = admission
                    && !again
                {
                    return Ok(answer);
                }
                match self.attempts.record(session, serial).filter(|_| !again) {
                    Some(Record::Fenced { upto }) if id.attempt <= *upto => {
                        return Ok(CommandResult::Over);
                    }
                    Some(Record::Pending { id: earlier, .. }) if *earlier == id => {}
                    Some(Record::Pending { id: earlier, .. }) if earlier.attempt < id.attempt => {
                        fence = Some(*earlier);
                    }
                    Some(Record::Pending { .. } | Record::Committed { .. }) => {
                        return Ok(CommandResult::Over);
                    }
                    Some(Record::Fenced { .. }) | None => {}
                }
                let own = self.sessions.beside(session);
                if !self.attempts.has_room(session, serial, own) {
                    return no_room;
                }
            }
            None => {
                if !self.attempts.may_prepare(id, over, &mut self.digest) {
                    return Ok(CommandResult::Over);
                }
                if self.attempts.is_full_of(id.home) {
                    return no_room;
                }
            }
        }
        let Some(transaction) = validate_part(body) else { return Ok(CommandResult::Invalid) };
        let judged =
            self.holds_all(&transaction.compares, supply.needed, &mut Budget::default())?;
        let (holds, too_much) = (judged.unwrap_or_default(), judged.err());
        let then = self.foreseen(&transaction.then, too_much, supply)?;
        let otherwise = self.foreseen(&transaction.otherwise, too_much, supply)?;
        if let Some(earlier) = fence {
            // No attempt is decided once there is a later one.
            self.fence(earlier);
        }
        if let Some(part) = self.attempts.parts().get(&id) {
            let (revision, stamp) = (part.at, part.stamp);
            return Ok(CommandResult::Prepared { holds, revision, stamp, then, otherwise });
        }
        let (since_ms, revision, stamp) = (self.clock_ms(), self.revision(), self.stamp());
        match self.attempts.lock(id, (after, since_ms, revision, stamp), body, &mut self.digest) {
            Locking::Done => {}
            Locking::Locked => return Ok(CommandResult::Locked),
            Locking::NoRoom => return no_room,
        }
        self.changed_bytes += body.len();
        if let Some(home) = &prepare.at_home {
            let deadline_ms = since_ms.saturating_add(home.patience_ms.into());
            let participants = home.participants.clone();
            let record = Record::Pending { id, deadline_ms, participants };
            self.attempts.set_record((session, serial), Some(record), &mut self.digest);
        }
        Ok(CommandResult::Prepared { holds, revision, stamp, then, otherwise })
    }

    fn foreseen(
        &self,
        operations: &[TransactionOperation<'_>],
        unfit: Option<Unfit>,
        supply: Supply<'_>,
    ) -> Result<Foreseen, MissingValue> {
        if let Some(why) = unfit {
            return Ok(Foreseen { unfit: Some((0, why)), changes: false });
        }
        Ok(match self.planned(operations, supply)? {
            Ok(changes) => Foreseen { unfit: None, changes: self.is_changed_by(&changes) },
            Err(unfit) => Foreseen { unfit: Some(unfit), changes: false },
        })
    }

    /// Decides an attempt whose home this is, and executes the part here if it is committed.
    pub(super) fn decide(
        &mut self,
        decide: &Decide,
        now: Stamp,
        needed: &Needed,
    ) -> Result<CommandResult, MissingValue> {
        let Decide { id, decision } = decide;
        let name = (id.session, id.serial);
        match self.attempts.record(id.session, id.serial) {
            Some(Record::Pending { id: pending, .. }) if pending == id => {}
            Some(Record::Committed { id: committed, revision, commitment, changed, .. })
                if committed == id =>
            {
                let (revision, commitment, changed) = (*revision, *commitment, *changed);
                return Ok(CommandResult::Decided { revision, changed, commitment });
            }
            _ => return Ok(CommandResult::Over),
        }
        if !self.sessions.can_record(id.session, id.serial) {
            self.fence(*id);
            return Ok(CommandResult::Over);
        }
        let outcome = match decision {
            Decision::Commit { succeeded, changed, after, parts } => {
                let (succeeded, changed) = (*succeeded, *changed);
                let own = self.attempts.parts().get(id).map_or(Stamp(0), |part| part.after);
                let stamp = now.max(self.stamp().next()).max(after.next()).max(own.next());
                let commitment = Commitment { succeeded, stamp };
                let Some(revision) = self.execute_part(*id, commitment, needed)? else {
                    self.fence(*id);
                    return Ok(CommandResult::Over);
                };
                let finished = parts.is_empty();
                let (id, parts) = (*id, parts.clone());
                let record =
                    Record::Committed { id, revision, commitment, changed, parts, finished };
                let record = Some(record).filter(|_| !planted(Mutant::ForgetDecisions));
                self.attempts.set_record(name, record, &mut self.digest);
                let outcome = Outcome::Transacted { revision, succeeded, changed, path: 0 };
                self.record(id.session, id.serial, outcome);
                return Ok(CommandResult::Decided { revision, changed, commitment });
            }
            Decision::Unfit { operation, why } => {
                self.attempts.unlock(*id, &mut self.digest);
                self.attempts.set_record(name, None, &mut self.digest);
                Outcome::Unfit { operation: *operation, why: *why }
            }
        };
        Ok(self.record(id.session, id.serial, outcome))
    }

    /// Ends an attempt of another home.
    pub(super) fn finish(
        &mut self,
        id: AttemptId,
        committed: Option<Commitment>,
        needed: &Needed,
    ) -> Result<CommandResult, MissingValue> {
        let record = self.attempts.record(id.session, id.serial);
        let is_home = record.and_then(Record::pending) == Some(id);
        if is_home || !self.attempts.parts().contains_key(&id) {
            return Ok(self.nothing_new());
        }
        match committed {
            Some(commitment) => {
                self.execute_part(id, commitment, needed)?;
                self.attempts.executed(id, &mut self.digest);
            }
            None => self.attempts.unlock(id, &mut self.digest),
        }
        Ok(self.nothing_new())
    }

    /// Executes a prepared part and unlocks its keys. Returns its revision; `None` if it cannot be
    /// executed, which its preparation would have told.
    fn execute_part(
        &mut self,
        id: AttemptId,
        Commitment { succeeded, stamp }: Commitment,
        needed: &Needed,
    ) -> Result<Option<Revision>, MissingValue> {
        let Some(part) = self.attempts.parts().get(&id).cloned() else { return Ok(None) };
        let planned = match validate_part(&part.body) {
            Some(Transaction { then, otherwise, .. }) => {
                let operations = if succeeded { &then } else { &otherwise };
                self.planned(operations, Supply::of(needed))?.ok()
            }
            None => None,
        };
        let revision = planned.map(|changes| self.make(changes, stamp).0);
        self.attempts.unlock(id, &mut self.digest);
        Ok(revision)
    }

    /// Says what has become of an attempt whose home this is.
    pub(super) fn resolve(&mut self, id: AttemptId, abort: bool) -> CommandResult {
        let (session, serial) = (id.session, id.serial);
        let aborted = CommandResult::Resolved(Resolution::Aborted);
        match self.attempts.record(session, serial) {
            Some(Record::Committed { id: committed, commitment, .. }) if *committed == id => {
                return CommandResult::Resolved(Resolution::Committed(*commitment));
            }
            Some(Record::Committed { .. }) => return aborted,
            Some(Record::Fenced { upto }) if id.attempt <= *upto => return aborted,
            Some(Record::Pending { id: pending, deadline_ms, .. }) if *pending == id => {
                if !abort && self.clock_ms() < *deadline_ms {
                    if planted(Mutant::DecideTwice) {
                        return aborted;
                    }
                    return CommandResult::Resolved(Resolution::Pending);
                }
            }
            Some(Record::Pending { id: pending, .. }) if pending.attempt > id.attempt => {
                return aborted;
            }
            Some(Record::Fenced { .. } | Record::Pending { .. }) | None => {}
        }
        if !self.sessions.is_open(session, serial) {
            // Nothing is executed any more under this serial.
            return aborted;
        }
        if !self.attempts.may_fence(session, serial) {
            return CommandResult::Resolved(Resolution::Pending);
        }
        self.fence(id);
        aborted
    }

    /// Aborts all attempts at a transaction up to this one, of which none is decided.
    fn fence(&mut self, id: AttemptId) {
        let name = (id.session, id.serial);
        if let Some(pending) = self.attempts.record(id.session, id.serial).and_then(Record::pending)
        {
            self.attempts.unlock(pending, &mut self.digest);
        }
        let record = Record::Fenced { upto: id.attempt };
        self.attempts.set_record(name, Some(record), &mut self.digest);
    }

    /// Records that a committed attempt is finished in all other shards.
    pub(super) fn forget(&mut self, id: AttemptId) -> CommandResult {
        let name = (id.session, id.serial);
        let record = match self.attempts.record(id.session, id.serial) {
            Some(record @ Record::Committed { id: committed, .. }) if *committed == id => {
                record.clone()
            }
            _ => return self.nothing_new(),
        };
        let may_ask = self.sessions.outcome(id.session, id.serial).is_some();
        let record = match record {
            Record::Committed { revision, commitment, changed, parts, .. } if may_ask => {
                let finished = true;
                Some(Record::Committed { id, revision, commitment, changed, parts, finished })
            }
            _ => None,
        };
        self.attempts.set_record(name, record, &mut self.digest);
        self.nothing_new()
    }
}
