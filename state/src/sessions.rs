//! The session table, which ensures that a write sent twice is executed once.
//!
//! A client opens a session and numbers its writes. The table remembers the outcome of each write
//! until the client reports it as settled, and returns the same outcome when a serial is repeated.
//! The table is part of the state, so every replica, checkpoint and snapshot includes it, and a new
//! primary knows what the old one executed. This is the scheme of section 6.3 of Ongaro's
//! dissertation, "Consensus: Bridging Theory and Practice".
//!
//! The table has four bounds: sessions, sessions of one holder, results of one session, and results
//! in total. A session that has not written for a long time ends by the clock of the log, which all
//! replicas share. Its later requests are answered with "expired" and never executed, because the
//! table no longer knows whether they were executed before.
//!
//! No holder of a certificate can take the room of the others. A holder at its limit of sessions
//! may lose its own oldest one. When the table is full of sessions, the holder with the most makes
//! room for a holder with fewer. When it is full of results, a holder with more than its share is
//! refused, and the holder with the most makes room for the rest.
//!
//! Deliberately missing: closing a session. A client that is gone cannot close its session, so
//! sessions end by idleness instead.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dkv_base::id::{HolderId, Serial, SessionId};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits as wire_limits;

use super::command::CommandResult;
use super::digest::Digest;
use super::ended_sessions::EndedSessions;
use super::limits;
use super::rows::{MalformedRow, Table};
use super::session::{Outcome, Session};
use super::tombstones::SmallRows;

/// The bounds of a table. Production uses a single set of them; tests use small ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) sessions_max: usize,
    pub(super) holder_max: usize,
    pub(super) window_max: usize,
    pub(super) results_max: usize,
    pub(super) idle_ms: u64,
    pub(super) own_idle_ms: u64,
    pub(super) life_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sessions_max: wire_limits::SESSIONS_MAX,
            holder_max: wire_limits::HOLDER_SESSIONS_MAX,
            window_max: wire_limits::SESSION_WINDOW_MAX,
            results_max: limits::SESSION_RESULTS_MAX,
            idle_ms: limits::SESSION_IDLE_MS,
            own_idle_ms: limits::SESSION_OWN_IDLE_MS,
            life_ms: limits::SESSION_LIFE_MS,
        }
    }
}

/// The decision on a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Execute it now, and [`record`](SessionTable::record) the outcome.
    Execute,
    /// Do not execute it; this is the answer.
    Answer(CommandResult),
}

/// The entries of one holder in the table.
#[derive(Debug, Default)]
struct OfHolder {
    /// The holder's sessions, in the order of their last use.
    by_use: BTreeSet<(u64, SessionId)>,
    /// Number of results over all its sessions.
    results: usize,
}

/// All sessions of a shard. Methods that change the table take the digest that has to follow.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    bounds: Bounds,
    // Hash order never decides anything: decisions that need an order use `by_use`.
    sessions: HashMap<SessionId, Session>,
    /// Sessions by time of last use, then by id, so that replicas agree on the order within one
    /// millisecond.
    by_use: BTreeSet<(u64, SessionId)>,
    holders: HashMap<HolderId, OfHolder>,
    /// Holders by number of sessions.
    by_count: BTreeSet<(usize, HolderId)>,
    changed: HashSet<SessionId>,
    /// Sessions that have ended, none of which is opened again.
    closed: EndedSessions,
    /// Those that have ended since this was last asked.
    ended: Vec<SessionId>,
}

impl SessionTable {
    #[cfg(test)]
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Ends every session that has been idle for longer than the lifetime of a session.
    pub(super) fn expire(&mut self, now_ms: u64, digest: &mut Digest) {
        while let Some((used_ms, id)) = self.by_use.first().copied() {
            if now_ms.saturating_sub(used_ms) <= self.bounds.life_ms {
                break;
            }
            self.remove(id, now_ms, digest);
        }
        self.closed.expire(now_ms, digest);
    }

    /// Opens a session for a holder, or finds it already open. One that has ended stays so.
    pub(super) fn open(
        &mut self,
        id: SessionId,
        holder: HolderId,
        now_ms: u64,
        digest: &mut Digest,
    ) -> CommandResult {
        if self.sessions.contains_key(&id) {
            self.touch(id, now_ms, digest);
            return CommandResult::SessionOpened;
        }
        if self.closed.contains(id) {
            return CommandResult::SessionExpired;
        }
        if self.count_of(holder) >= self.bounds.holder_max
            && !self.evict_own(holder, now_ms, digest)
        {
            return CommandResult::Overloaded { retry_after_ms: limits::SESSION_RETRY_MS };
        }
        if self.sessions.len() >= self.bounds.sessions_max
            && !self.evict_idle(now_ms, digest)
            && !self.evict_for(holder, now_ms, digest)
        {
            return CommandResult::Overloaded { retry_after_ms: limits::SESSION_RETRY_MS };
        }
        let (settled, results) = (Serial(0), BTreeMap::new());
        let session = Session { holder, settled, used_ms: now_ms, results };
        digest.add_whole_session(id, &session);
        self.insert(id, session);
        self.changed.insert(id);
        CommandResult::SessionOpened
    }

    /// Returns the holder of a session; nobody if it does not exist.
    pub(super) fn holder(&self, id: SessionId) -> HolderId {
        self.sessions.get(&id).map(|session| session.holder).unwrap_or_default()
    }

    /// Returns all sessions of the holder of a session.
    pub(super) fn beside(&self, id: SessionId) -> impl Iterator<Item = SessionId> {
        let own = self.holders.get(&self.holder(id)).map(|own| &own.by_use);
        own.into_iter().flatten().map(|(_, id)| *id)
    }

    /// Returns whether a write was executed, and its outcome is still remembered.
    pub(super) fn has_executed(&self, id: SessionId, serial: Serial) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| session.results.contains_key(&serial))
    }

    /// Decides whether to execute the write with this serial now, for the first and only time.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        serial: Serial,
        settled: Serial,
        now_ms: u64,
        digest: &mut Digest,
    ) -> Admission {
        if !self.sessions.contains_key(&id) {
            return Admission::Answer(CommandResult::SessionExpired);
        }
        self.touch(id, now_ms, digest);
        self.settle(id, settled, digest);
        let Some(session) = self.sessions.get(&id) else {
            return Admission::Answer(CommandResult::SessionExpired);
        };
        if serial < session.settled {
            return Admission::Answer(CommandResult::SessionExpired);
        }
        if let Some(outcome) = session.results.get(&serial) {
            return Admission::Answer((*outcome).into());
        }
        if session.results.len() >= self.bounds.window_max {
            let retry_after_ms = limits::WINDOW_RETRY_MS;
            return Admission::Answer(CommandResult::Overloaded { retry_after_ms });
        }
        // The session was touched just now, so it is never the idle one that makes room.
        let holder = session.holder;
        if digest.results() >= self.bounds.results_max as u64
            && !self.evict_idle(now_ms, digest)
            && !self.evict_results_for(holder, now_ms, digest)
        {
            let retry_after_ms = limits::SESSION_RETRY_MS;
            return Admission::Answer(CommandResult::Overloaded { retry_after_ms });
        }
        Admission::Execute
    }

    /// Remembers the outcome of a write that was admitted.
    pub(super) fn record(
        &mut self,
        id: SessionId,
        serial: Serial,
        outcome: Outcome,
        digest: &mut Digest,
    ) {
        let session = self.sessions.get_mut(&id);
        debug_assert!(session.is_some(), "only an admitted write is recorded");
        if let Some(session) = session {
            let before = session.results.insert(serial, outcome);
            let is_new = before.is_none() || planted(Mutant::ForgetOutcomes);
            assert!(is_new, "no write is executed twice");
            let holder = session.holder;
            self.holders.entry(holder).or_default().results += 1;
            digest.add_result(id, serial, outcome);
            self.changed.insert(id);
        }
    }

    /// Returns whether the outcome of a write can be recorded that was admitted earlier.
    pub(super) fn can_record(&self, id: SessionId, serial: Serial) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            serial >= session.settled
                && !session.results.contains_key(&serial)
                && session.results.len() < self.bounds.window_max
        })
    }

    /// Returns whether a write may still be executed under this serial.
    pub(super) fn is_open(&self, id: SessionId, serial: Serial) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            serial >= session.settled && !session.results.contains_key(&serial)
        })
    }

    /// Returns the outcome that is remembered for a serial.
    pub(super) fn outcome(&self, id: SessionId, serial: Serial) -> Option<Outcome> {
        self.sessions.get(&id)?.results.get(&serial).copied()
    }

    /// Returns the number below which the serials of a session are settled; `None` if there is no
    /// such session.
    pub(super) fn settled(&self, id: SessionId) -> Option<Serial> {
        self.sessions.get(&id).map(|session| session.settled)
    }

    /// Returns the sessions that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.ended)
    }

    /// Adds a session that was read back.
    pub(super) fn load(&mut self, id: SessionId, session: Session, digest: &mut Digest) {
        digest.add_whole_session(id, &session);
        self.insert(id, session);
    }

    /// Returns the sessions that changed since the last call, encoded; `None` for those that ended.
    pub(super) fn take_changed(&mut self) -> Vec<(SessionId, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        let row = |id| (id, self.sessions.get(&id).map(Session::encode));
        changed.into_iter().map(row).collect()
    }

    /// Marks these sessions as changed again.
    pub(super) fn restore_changed(&mut self, ids: impl Iterator<Item = SessionId>) {
        self.changed.extend(ids);
    }

    /// Returns the number of changed sessions.
    pub(super) fn changed_len(&self) -> usize {
        self.changed.len() + self.closed.changed_len()
    }

    /// Adds a row of an ended session that was read back.
    pub(super) fn load_ended(
        &mut self,
        key: &[u8],
        value: &[u8],
        digest: &mut Digest,
    ) -> Result<(), MalformedRow> {
        self.closed.load(key, value, digest)
    }

    /// Returns the rows of ended sessions that changed since the last call.
    pub(super) fn take_changed_ended(&mut self) -> SmallRows {
        self.closed.take_changed()
    }

    /// Marks the row of an ended session as changed again, if it is one.
    pub(super) fn restore_changed_ended(&mut self, table: Table, key: &[u8]) {
        self.closed.restore_changed(table, key);
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.by_use.insert((session.used_ms, id));
        let own = self.holders.entry(session.holder).or_default();
        let before = own.by_use.len();
        own.by_use.insert((session.used_ms, id));
        own.results += session.results.len();
        self.by_count.remove(&(before, session.holder));
        self.by_count.insert((own.by_use.len(), session.holder));
        self.sessions.insert(id, session);
    }

    fn remove(&mut self, id: SessionId, now_ms: u64, digest: &mut Digest) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.closed.add(id, now_ms, digest);
        self.ended.push(id);
        self.by_use.remove(&(session.used_ms, id));
        digest.remove_whole_session(id, &session);
        self.changed.insert(id);
        let holder = session.holder;
        let Some(own) = self.holders.get_mut(&holder) else { return };
        self.by_count.remove(&(own.by_use.len(), holder));
        own.by_use.remove(&(session.used_ms, id));
        own.results -= session.results.len();
        if own.by_use.is_empty() {
            self.holders.remove(&holder);
        } else {
            self.by_count.insert((own.by_use.len(), holder));
        }
    }

    fn count_of(&self, holder: HolderId) -> usize {
        self.holders.get(&holder).map_or(0, |own| own.by_use.len())
    }

    /// Returns the session of a holder that was used longest ago.
    fn oldest_of(&self, holder: HolderId) -> Option<(u64, SessionId)> {
        self.holders.get(&holder)?.by_use.first().copied()
    }

    /// Ends a holder's own oldest session, unless a request on it may still be waiting.
    fn evict_own(&mut self, holder: HolderId, now_ms: u64, digest: &mut Digest) -> bool {
        let Some((used_ms, id)) = self.oldest_of(holder) else { return false };
        let idle = now_ms.saturating_sub(used_ms) >= self.bounds.own_idle_ms;
        if idle {
            self.remove(id, now_ms, digest);
        }
        idle
    }

    /// Ends a session of the holder with the most, in favour of a holder that will still have
    /// fewer.
    fn evict_for(&mut self, holder: HolderId, now_ms: u64, digest: &mut Digest) -> bool {
        let Some((count, heaviest)) = self.by_count.last().copied() else { return false };
        if count <= self.count_of(holder) + 1 {
            return false;
        }
        let Some((_, id)) = self.oldest_of(heaviest) else { return false };
        self.remove(id, now_ms, digest);
        true
    }

    /// Ends sessions of the holder with the most results, in favour of a holder below the average.
    /// It frees some room in advance, because it has to search for the holder.
    fn evict_results_for(&mut self, holder: HolderId, now_ms: u64, digest: &mut Digest) -> bool {
        let own = self.holders.get(&holder).map_or(0, |own| own.results);
        let holders = self.holders.len() as u64;
        if own as u64 * holders >= digest.results() {
            return false;
        }
        let most = self.holders.iter().map(|(holder, own)| (own.results, *holder)).max();
        let Some((_, heaviest)) = most else { return false };
        let enough = self.bounds.results_max - self.bounds.results_max.div_ceil(64);
        while digest.results() > enough as u64 {
            let Some((_, id)) = self.oldest_of(heaviest) else { break };
            self.remove(id, now_ms, digest);
        }
        digest.results() < self.bounds.results_max as u64
    }

    /// Ends the session that was used longest ago, if it has been idle for long enough.
    fn evict_idle(&mut self, now_ms: u64, digest: &mut Digest) -> bool {
        let Some((used_ms, id)) = self.by_use.first().copied() else { return false };
        let idle = now_ms.saturating_sub(used_ms) >= self.bounds.idle_ms;
        if idle {
            self.remove(id, now_ms, digest);
        }
        idle
    }

    fn touch(&mut self, id: SessionId, now_ms: u64, digest: &mut Digest) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // All writes of one batch have the same time, so only a session's first one pays for
        // reordering.
        if session.used_ms == now_ms {
            return;
        }
        digest.remove_session(id, session);
        self.by_use.remove(&(session.used_ms, id));
        let own = self.holders.entry(session.holder).or_default();
        own.by_use.remove(&(session.used_ms, id));
        own.by_use.insert((now_ms, id));
        session.used_ms = now_ms;
        self.by_use.insert((now_ms, id));
        digest.add_session(id, session);
        self.changed.insert(id);
    }

    /// Forgets the results below `settled`. A number smaller than before comes from an older
    /// message.
    fn settle(&mut self, id: SessionId, settled: Serial, digest: &mut Digest) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if settled <= session.settled {
            return;
        }
        digest.remove_session(id, session);
        session.settled = settled;
        digest.add_session(id, session);
        let before = session.results.len();
        while let Some(first) = session.results.first_entry() {
            if *first.key() >= settled {
                break;
            }
            let (serial, outcome) = first.remove_entry();
            digest.remove_result(id, serial, outcome);
        }
        let gone = before - session.results.len();
        if let Some(own) = self.holders.get_mut(&session.holder) {
            own.results -= gone;
        }
        self.changed.insert(id);
    }
}
