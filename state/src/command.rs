//! Whether a command can be executed at all, and what comes of one that was.
//!
//! The primary asks [`validate`] before it proposes, and tells the client what is wrong. A command
//! that is in the log all the same (an older primary had other limits, or is broken) is judged once
//! more when it is applied, by rules that depend on nothing but its bytes, so that all replicas
//! judge alike.

use dkv_base::id::Revision;
use dkv_wire::message::{Command, Operation, Refusal, Write};
use dkv_wire::{codec, limits};

/// What became of one command of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// The write was done.
    Written {
        /// Its number; of a delete that found nothing, that of the shard's latest write.
        revision: Revision,
        /// Whether the key was there before.
        existed: bool,
    },
    /// The condition does not hold. No effect.
    Conflict {
        /// The revision that the key is at, if it exists.
        current: Option<Revision>,
    },
    /// The session is open.
    SessionOpened,
    /// The shard does not know the session, or no longer this serial. Not executed.
    SessionExpired,
    /// The session table takes no more now. Not executed.
    Overloaded {
        /// When to come again.
        retry_after_ms: u32,
    },
    /// An eventual write whose predecessors in its outbox are not here yet. Not executed.
    TooEarly,
    /// Not a command that can be executed, ever.
    Invalid,
}

/// Decodes a command and checks all that can be checked without the state.
///
/// # Errors
/// [`Refusal::TooLarge`] for a key or a value over its limit, [`Refusal::Invalid`] for anything
/// else that makes the command impossible.
pub fn validate(command: &[u8], value_bytes_max: u64) -> Result<Command<'_>, Refusal> {
    let command: Command<'_> =
        codec::decode(command).map_err(|error| Refusal::Invalid(error.to_string()))?;
    match &command {
        Command::OpenSession(_) | Command::OpenSessionOf { .. } => {}
        Command::Write(write) => check_write(write, value_bytes_max)?,
        Command::Deposited(deposited) => {
            if deposited.number.0 == 0 {
                return Err(Refusal::Invalid("numbers count from one".into()));
            }
            check_key(deposited.key)?;
            check_value(deposited.operation, value_bytes_max)?;
        }
    }
    Ok(command)
}

fn check_write(write: &Write<'_>, value_bytes_max: u64) -> Result<(), Refusal> {
    if write.serial.0 == 0 {
        return Err(Refusal::Invalid("serials count from one".into()));
    }
    if write.settled > write.serial {
        return Err(Refusal::Invalid("a write cannot settle its own serial".into()));
    }
    check_key(write.key)?;
    check_value(write.operation, value_bytes_max)
}

/// Whether this can be a key.
///
/// # Errors
/// As [`validate`].
pub fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Invalid("the key is empty".into()));
    }
    check_size("key", key, limits::KEY_BYTES_MAX as u64)
}

/// Whether what an operation stores can be a value.
///
/// # Errors
/// As [`validate`].
pub fn check_value(operation: Operation<'_>, value_bytes_max: u64) -> Result<(), Refusal> {
    match operation {
        Operation::Put(value) => check_size("value", value, value_bytes_max),
        Operation::Delete => Ok(()),
    }
}

fn check_size(what: &str, bytes: &[u8], limit: u64) -> Result<(), Refusal> {
    let length = bytes.len() as u64;
    if length <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge { what: what.to_owned(), bytes: length, limit })
}

/// Decodes a command out of the log. Limits that an operator can change are not asked here: a
/// replica could know them before or after another.
pub(super) fn decode_logged(command: &[u8]) -> Option<Command<'_>> {
    validate(command, limits::VALUE_BYTES_MAX as u64).ok()
}
