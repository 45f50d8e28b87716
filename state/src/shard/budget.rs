//! A bound on what one transaction looks at, reads and writes.
//!
//! A short command can stand for much: a compare or a read of a range looks at every key in it, a
//! delete of a range writes a change for each, and an append writes the whole value again. What a
//! transaction does is one step of every replica, its results are one answer, and its changes are
//! one frame of a watch. So all of these are bounded, by numbers that follow from the state alone:
//! a transaction that needs more has no effect.

use dkv_wire::limits::{TRANSACTION_BYTES_MAX, VERSION_OVERHEAD_BYTES};
use dkv_wire::message::Unfit;

/// Bytes that a transaction may still take.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: TRANSACTION_BYTES_MAX }
    }
}

impl Budget {
    /// Takes the bytes of one key, and of its value as far as that counts.
    ///
    /// # Errors
    /// [`Unfit::TooMuch`] if they are not left.
    pub(super) fn take(&mut self, key_and_value: usize) -> Result<(), Unfit> {
        self.take_all(key_and_value.saturating_add(VERSION_OVERHEAD_BYTES))
    }

    /// Returns the bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Takes the bytes of several keys, which include what counts for each beside it.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub(crate) fn take_all(&mut self, bytes: usize) -> Result<(), Unfit> {
        self.left = self.left.checked_sub(bytes).ok_or(Unfit::TooMuch)?;
        Ok(())
    }
}
