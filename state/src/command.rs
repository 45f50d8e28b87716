//! Validation of commands, and the results of executing them.
//!
//! The primary calls [`validate`] before it proposes a command, and tells the client what is wrong.
//! A command that reaches the log all the same (an older primary had other limits, or is broken) is
//! validated once more when it is applied, by rules that depend on nothing but its bytes, so that
//! all replicas reach the same verdict.

pub(super) mod transaction;

use std::time::Duration;

use dkv_base::id::{BadLeaseId, LeaseId, Revision, Serial, Stamp};
use dkv_wire::message::{
    Attach, Command, Commitment, Cut, LeaseAction, Operation, Refusal, Resolution, Unfit, Write,
    WriteAttached,
};
use dkv_wire::{codec, limits};

/// First byte of an encoded transaction: the position of its variant. No command before it needs
/// the values of keys.
const TRANSACT: u8 = 5;

/// The result of one command of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// The write was executed.
    Written {
        /// The revision of the write; for a delete that found no key, that of the shard's latest
        /// write.
        revision: Revision,
        /// Whether the key existed before.
        existed: bool,
    },
    /// The condition does not hold. No effect.
    Conflict {
        /// The current revision of the key, if it exists.
        current: Option<Revision>,
    },
    /// The transaction was executed.
    Transacted {
        /// The revision of its writes; the shard's latest if it changed nothing.
        revision: Revision,
        /// Whether its compares held.
        succeeded: bool,
        /// Whether it changed anything.
        changed: bool,
        /// Which of the transactions within it succeeded: one bit for each that was executed, in
        /// order, from the lowest on.
        path: u64,
    },
    /// An operation of the transaction cannot be executed. No effect.
    Unfit {
        /// The operation, counted from zero.
        operation: u32,
        /// Why.
        why: Unfit,
    },
    /// The cut that was asked for.
    Cut(Cut),
    /// The lease was granted.
    Granted {
        /// The shard's latest revision.
        revision: Revision,
    },
    /// The lease has ended.
    Revoked {
        /// The revision of the deletions; the shard's latest if there were none.
        revision: Revision,
        /// Keys that were deleted.
        deleted: u16,
        /// Keys that are still to be deleted; the highest number stands for itself and more.
        left: u32,
    },
    /// The lease does not exist. No effect.
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease exists already. No effect.
    LeaseExists {
        /// The lease.
        lease: LeaseId,
    },
    /// There are too many leases. No effect.
    TooManyLeases {
        /// Whether the holder has too many; otherwise all have together.
        own: bool,
    },
    /// What had ended is deleted.
    Expired {
        /// Keys that were deleted.
        deleted: u32,
        /// Whether there are more.
        more: bool,
    },
    /// The session is open.
    SessionOpened,
    /// The shard does not know the session, or has forgotten the result for this serial. Not
    /// executed.
    SessionExpired,
    /// The session table has no room at the moment. Not executed.
    Overloaded {
        /// Time to wait before a retry, in milliseconds.
        retry_after_ms: u32,
    },
    /// An eventual write whose predecessors in its outbox have not arrived yet. Not executed.
    TooEarly,
    /// The command can never be executed.
    Invalid,
    /// A prepared transaction has locked a key of the command. No effect; it is to come again.
    Locked,
    /// The part of a transaction is prepared.
    Prepared {
        /// Whether the compares of the part hold.
        holds: bool,
        /// The shard's latest revision when the part was prepared.
        revision: Revision,
        /// The latest stamp that the shard had given then.
        stamp: Stamp,
        /// What the operations would do if all compares hold.
        then: Foreseen,
        /// What they would do if one does not.
        otherwise: Foreseen,
    },
    /// A transaction over several shards is committed, and executed in this one, its home.
    Decided {
        /// The revision of its writes here; the shard's latest if it changed nothing here.
        revision: Revision,
        /// Whether it changed anything, here or elsewhere.
        changed: bool,
        /// What the other shards have to know.
        commitment: Commitment,
    },
    /// The attempt to prepare or decide is over. No effect.
    Over,
    /// What has become of an attempt.
    Resolved(Resolution),
    /// The floor is not below the one that was asked for.
    Compacted {
        /// The shard's latest revision.
        revision: Revision,
        /// The floor before.
        before: Revision,
    },
}

/// What a list of operations would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// The first operation that cannot be executed, counted from zero, and why.
    pub unfit: Option<(u32, Unfit)>,
    /// Whether the operations change anything.
    pub changes: bool,
}

/// Decodes a command and checks everything that can be checked without the state.
///
/// # Errors
/// [`Refusal::TooLarge`] for a key or a value over its limit, [`Refusal::Invalid`] for anything
/// else that makes the command impossible.
pub fn validate(command: &[u8], value_bytes_max: u64) -> Result<Command<'_>, Refusal> {
    let command: Command<'_> =
        codec::decode(command).map_err(|error| Refusal::Invalid(error.to_string()))?;
    match &command {
        Command::OpenSession(_)
        | Command::OpenSessionOf { .. }
        | Command::Compact { .. }
        | Command::Cut { .. }
        | Command::Expire(_) => {}
        Command::Write(write) => check_write(write, value_bytes_max)?,
        Command::WriteAttached(WriteAttached { write, attach }) => {
            check_write(write, value_bytes_max)?;
            check_attach(attach)?;
            if write.operation == Operation::Delete {
                return Err(Refusal::Invalid(
                    "a delete cannot have a lease or a time to live".into(),
                ));
            }
        }
        Command::Lease(change) => {
            check_serial(change.serial, change.settled)?;
            check_lease(change.lease)?;
            if let LeaseAction::Grant { ttl_ms } | LeaseAction::GrantTo { ttl_ms, .. } =
                change.action
            {
                check_ttl("a lease", ttl_ms, limits::LEASE_TTL_MIN)?;
            }
        }
        Command::Transact(transact) => {
            check_serial(transact.serial, transact.settled)?;
            transaction::validate(transact.body, value_bytes_max)?;
        }
        Command::TransactOver(over) => {
            check_serial(over.serial, over.settled)?;
            transaction::validate_over(over, value_bytes_max)?;
        }
        Command::Prepare(prepare) => transaction::validate_prepare(prepare)?,
        Command::Decide(decide) => transaction::validate_decide(decide)?,
        Command::Finish { .. } | Command::Resolve { .. } | Command::Forget(_) => {}
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
    check_serial(write.serial, write.settled)?;
    check_key(write.key)?;
    check_value(write.operation, value_bytes_max)
}

fn check_serial(serial: Serial, settled: Serial) -> Result<(), Refusal> {
    if serial.0 == 0 {
        return Err(Refusal::Invalid("serials count from one".into()));
    }
    if settled > serial {
        return Err(Refusal::Invalid("a write cannot settle its own serial".into()));
    }
    Ok(())
}

/// Checks that this can be the id of a lease.
///
/// # Errors
/// As for [`validate`].
pub fn check_lease(lease: LeaseId) -> Result<(), Refusal> {
    if lease.is_valid() { Ok(()) } else { Err(Refusal::Invalid(BadLeaseId.to_string())) }
}

/// Checks what a put attaches its key to.
pub(super) fn check_attach(attach: &Attach) -> Result<(), Refusal> {
    match *attach {
        Attach::Lease(lease) => check_lease(lease),
        Attach::Ttl(ttl_ms) => check_ttl("a key", ttl_ms, limits::KEY_TTL_MIN),
    }
}

fn check_ttl(what: &str, ttl_ms: u64, least: Duration) -> Result<(), Refusal> {
    let (least_ms, most_ms) = (least.as_millis(), limits::TTL_MAX.as_millis());
    if (least_ms..=most_ms).contains(&u128::from(ttl_ms)) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "the time to live of {what} is between {least_ms} ms and ten years, not {ttl_ms} ms"
    )))
}

/// Checks that these bytes can be a key.
///
/// # Errors
/// As for [`validate`].
pub fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Invalid("the key is empty".into()));
    }
    check_size("key", key, limits::KEY_BYTES_MAX as u64)
}

/// Checks that the value an operation stores, if any, is within its limit.
///
/// # Errors
/// As for [`validate`].
pub fn check_value(operation: Operation<'_>, value_bytes_max: u64) -> Result<(), Refusal> {
    match operation {
        Operation::Put(value) => check_size("value", value, value_bytes_max),
        Operation::Delete => Ok(()),
    }
}

pub(super) fn check_size(what: &str, bytes: &[u8], limit: u64) -> Result<(), Refusal> {
    let length = bytes.len() as u64;
    if length <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge { what: what.to_owned(), bytes: length, limit })
}

/// Decodes a command from the log. Limits that an operator can change do not apply here, since one
/// replica could learn of a change before or after another.
pub(super) fn decode_logged(command: &[u8]) -> Option<Command<'_>> {
    validate(command, limits::VALUE_BYTES_MAX as u64).ok()
}

/// Returns whether an encoded command may need the values of keys, by its first byte.
pub(super) fn may_need_values(command: &[u8]) -> bool {
    command.first().is_some_and(|first| *first >= TRANSACT)
}

/// What the primary does with a command that has met a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLock {
    /// It proposes the command again once the lock is released.
    Waits,
    /// It tells the sender of the command.
    Tells,
    /// It refuses the command, which comes again from its outbox with those after it.
    Refuses,
}

impl AtLock {
    /// Returns what the primary does with this command.
    pub fn of(command: &[u8]) -> Self {
        match codec::decode(command) {
            Ok(Command::Prepare(prepare)) if !prepare.patient => Self::Tells,
            Ok(Command::Deposited(_)) => Self::Refuses,
            _ => Self::Waits,
        }
    }
}
