//! The session of one shard: what makes a write happen once however often it is sent.
//!
//! A shard remembers, for each session, which serials it has executed and what it replied. So a
//! write is stamped once with (session, serial), and every attempt carries the same stamp. With
//! each write the shard is told which serials are *settled*: below that number the client will
//! never ask again, and the shard may forget.
//!
//! A serial is settled when its write is finished for the caller: answered, given up at its
//! deadline, or dropped. Giving up settles it too, and that is safe: a shard refuses a serial that
//! it was told is settled, so an attempt that is still on its way somewhere can no longer have an
//! effect once a later write was executed.
//!
//! Serials span at most [`SESSION_WINDOW_MAX`] from the lowest that is not settled. It is the span
//! that counts, not the number under way: one slow write may hold back the settled mark, and the
//! shard must remember everything above it.

use std::collections::BTreeSet;

use dkv_base::id::{Serial, SessionId};
use dkv_wire::limits::SESSION_WINDOW_MAX;
use uuid::Uuid;

/// What names one write to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Whose write.
    pub(crate) session: SessionId,
    /// Which write.
    pub(crate) serial: Serial,
    /// Every serial below is settled.
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
    /// A session that is not open yet, named `first`.
    pub(crate) fn new(first: SessionId) -> Self {
        Self { first, generation: 0, state: State::Closed, next: 1, unsettled: BTreeSet::new() }
    }

    /// Its name now. After it has expired it goes by the next number: 122 random bits in the first
    /// one keep the names of different clients apart.
    pub(crate) fn id(&self) -> SessionId {
        let number = self.first.0.as_u128().wrapping_add(u128::from(self.generation));
        SessionId(Uuid::from_u128(number))
    }

    /// Whether it is neither open nor being opened.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// It is being opened.
    pub(crate) fn opening(&mut self) {
        self.state = State::Opening;
    }

    /// The shard has answered for `session`.
    pub(crate) fn opened(&mut self, session: SessionId) {
        if self.state == State::Opening && session == self.id() {
            self.state = State::Open;
        }
    }

    /// It could not be opened.
    pub(crate) fn not_opened(&mut self, session: SessionId) {
        if self.state == State::Opening && session == self.id() {
            self.state = State::Closed;
        }
    }

    /// The shard does not know `session`. The next one is another, with serials of its own.
    pub(crate) fn expired(&mut self, session: SessionId) {
        if session == self.id() {
            *self = Self { generation: self.generation + 1, ..Self::new(self.first) };
        }
    }

    /// Every serial below this one is settled.
    pub(crate) fn settled(&self) -> Serial {
        Serial(self.unsettled.first().copied().unwrap_or(self.next))
    }

    /// The stamp of a new write; `None` while the session is not open or its window is full.
    pub(crate) fn stamp(&mut self) -> Option<Stamp> {
        let span = self.next - self.settled().0;
        if self.state != State::Open || span >= SESSION_WINDOW_MAX as u64 {
            return None;
        }
        let serial = self.next;
        self.next += 1;
        self.unsettled.insert(serial);
        Some(Stamp { session: self.id(), serial: Serial(serial), settled: self.settled() })
    }

    /// The client will never ask for that write again.
    pub(crate) fn settle(&mut self, stamp: Stamp) {
        if stamp.session == self.id() {
            self.unsettled.remove(&stamp.serial.0);
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
