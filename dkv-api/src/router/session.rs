//! The session of one shard, which makes a write happen once however often it is sent.
//!
//! For each session, a shard remembers which serials it has executed and what it replied. So each
//! write gets one id (session, serial), and every attempt carries it. Each write also tells the
//! shard which serials are *settled*: the client will never send one below that number again, and
//! the shard may forget those.
//!
//! A serial is settled when the caller is done with its write: answered, timed out, or dropped.
//! That is safe even while an attempt is still on its way: a shard refuses settled serials, so once
//! it has executed a later write, the attempt can have no effect.
//!
//! Serials span at most [`SESSION_WINDOW_MAX`] from the lowest unsettled one. The span counts, not
//! the number under way: one slow write can hold back the settled mark, and the shard must remember
//! everything above it.

use std::collections::BTreeSet;

use dkv_base::id::{Serial, SessionId};
use dkv_wire::limits::SESSION_WINDOW_MAX;
use uuid::Uuid;

/// The id of one write at a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteId {
    /// The session of the write.
    pub(crate) session: SessionId,
    /// The number of the write in its session.
    pub(crate) serial: Serial,
    /// All serials below this one are settled.
    pub(crate) settled: Serial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    Open,
}

/// One client's session at one shard.
#[derive(Debug)]
pub(crate) struct Session {
    first: SessionId,
    generation: u64,
    state: State,
    next: u64,
    unsettled: BTreeSet<u64>,
}

impl Session {
    /// Creates a session that is not open yet; `first` is its first id.
    pub(crate) fn new(first: SessionId) -> Self {
        Self { first, generation: 0, state: State::Closed, next: 1, unsettled: BTreeSet::new() }
    }

    /// Returns its present id. After an expiry it is the next number; 122 random bits in the first
    /// id keep those of different clients apart.
    pub(crate) fn id(&self) -> SessionId {
        let number = self.first.0.as_u128().wrapping_add(u128::from(self.generation));
        SessionId(Uuid::from_u128(number))
    }

    /// Returns whether the session is neither open nor being opened.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Records that the session is being opened.
    pub(crate) fn opening(&mut self) {
        self.state = State::Opening;
    }

    /// Records that the shard has opened `session`.
    pub(crate) fn opened(&mut self, session: SessionId) {
        if self.state == State::Opening && session == self.id() {
            self.state = State::Open;
        }
    }

    /// Records that `session` could not be opened.
    pub(crate) fn not_opened(&mut self, session: SessionId) {
        if self.state == State::Opening && session == self.id() {
            self.state = State::Closed;
        }
    }

    /// Records that the shard does not know `session`. The next session has another id and its own
    /// serials.
    pub(crate) fn expired(&mut self, session: SessionId) {
        if session == self.id() {
            *self = Self { generation: self.generation + 1, ..Self::new(self.first) };
        }
    }

    /// Returns the lowest serial that is not settled.
    pub(crate) fn settled(&self) -> Serial {
        Serial(self.unsettled.first().copied().unwrap_or(self.next))
    }

    /// Returns the id of a new write; `None` while the session is not open or its window is full.
    pub(crate) fn next_write_id(&mut self) -> Option<WriteId> {
        let span = self.next - self.settled().0;
        if self.state != State::Open || span >= SESSION_WINDOW_MAX as u64 {
            return None;
        }
        let serial = self.next;
        self.next += 1;
        self.unsettled.insert(serial);
        Some(WriteId { session: self.id(), serial: Serial(serial), settled: self.settled() })
    }

    /// Settles a write: the client will never send it again.
    pub(crate) fn settle(&mut self, write_id: WriteId) {
        if write_id.session == self.id() {
            self.unsettled.remove(&write_id.serial.0);
        }
    }
}

#[cfg(test)]
mod tests;
