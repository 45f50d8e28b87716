//! The content of one entry of a shard's log: commands in order, with the readings of the shard's
//! clock and of the network's clock at the time the primary assembled them.
//!
//! ```text
//! kind u8 = 2 | time_ms u64 le | stamp u64 le |                            count u32 le |
//! kind u8 = 3 | time_ms u64 le | stamp u64 le | value_bytes_max u32 le |   count u32 le |
//! count times: length varint, command bytes
//! ```
//!
//! A batch of the second kind says how long the values may be that its commands make out of others;
//! without that, they may be as long as a value can be. The limit is in the log because an operator
//! sets it, and replicas would otherwise learn of it at different moments.
//!
//! Commands stay as the client encoded them, so the primary builds a batch by copying each command
//! once and never encodes anything. The header has a fixed size; the count is filled in when the
//! batch is closed.

use bytes::Bytes;
use dkv_base::id::Stamp;
use dkv_wire::limits;

/// First byte of a batch without a limit of values.
const PLAIN: u8 = 2;
/// First byte of a batch with one.
const LIMITED: u8 = 3;
/// Bytes of the kind, the time, the stamp and the count.
const HEADER_BYTES: usize = 1 + 8 + 8 + 4;
/// Bytes of the limit, which comes before the count.
const LIMIT_BYTES: usize = 4;
/// Bytes of the longest accepted length prefix: 32 bits in groups of seven.
const LENGTH_BYTES_MAX: usize = 5;

/// Bytes in the log that are not a batch.
///
/// The log has its own checksums, so this is not damage on the way to or from the disk: the node
/// that proposed the entry was broken, or newer than this one. A replica that meets it must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt batch at byte {offset}: {problem}")]
pub struct CorruptBatch {
    /// Position in the batch, in bytes.
    pub offset: usize,
    /// The problem found there.
    pub problem: &'static str,
}

/// Where the time is in an encoded batch.
const TIME: std::ops::Range<usize> = 1..9;

/// Sets the reading of the shard's clock in an encoded batch, just before it is proposed. Bytes
/// that are no batch stay as they are.
pub fn stamp_batch(batch: Bytes, time_ms: u64) -> Bytes {
    // As a rule nobody else has it, and nothing is copied.
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
    if let Some(time) = batch.get_mut(TIME) {
        time.copy_from_slice(&time_ms.to_le_bytes());
    }
    batch.freeze()
}

/// Builds a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    encoded: Vec<u8>,
    header_bytes: usize,
    count: u32,
}

impl BatchBuilder {
    /// Creates an empty batch for a shard whose clock shows `time_ms`, in milliseconds.
    pub fn new(time_ms: u64, stamp: Stamp) -> Self {
        Self::begin(PLAIN, time_ms, stamp, &[])
    }

    /// Creates an empty batch as [`new`](Self::new) does, in which no command makes a value of more
    /// than `value_bytes_max` bytes out of others.
    pub fn with_limit(time_ms: u64, stamp: Stamp, value_bytes_max: u64) -> Self {
        let limit = u32::try_from(value_bytes_max).unwrap_or(u32::MAX);
        Self::begin(LIMITED, time_ms, stamp, &limit.to_le_bytes())
    }

    fn begin(kind: u8, time_ms: u64, stamp: Stamp, limit: &[u8]) -> Self {
        let mut encoded = Vec::with_capacity(1024);
        encoded.push(kind);
        encoded.extend_from_slice(&time_ms.to_le_bytes());
        encoded.extend_from_slice(&stamp.0.to_le_bytes());
        encoded.extend_from_slice(limit);
        encoded.extend_from_slice(&0_u32.to_le_bytes());
        Self { header_bytes: encoded.len(), encoded, count: 0 }
    }

    /// Appends one encoded command, valid or not.
    ///
    /// # Panics
    /// If the batch already contains [`limits::BATCH_COMMANDS_MAX`] commands, or the command is
    /// longer than a frame can be: check with [`takes`](Self::takes) first.
    pub fn push(&mut self, command: &[u8]) {
        assert!(self.len() < limits::BATCH_COMMANDS_MAX, "a full batch takes no more commands");
        assert!(command.len() <= limits::FRAME_BYTES_MAX, "a command is shorter than its frame");
        let mut rest = command.len() as u32;
        while rest >= 0x80 {
            self.encoded.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.encoded.push(rest as u8);
        self.encoded.extend_from_slice(command);
        self.count += 1;
    }

    /// Returns whether a command of this many bytes still fits. The first one always fits, however
    /// long.
    pub fn takes(&self, command_bytes: usize) -> bool {
        self.count == 0
            || self.len() < limits::BATCH_COMMANDS_MAX
                && self.bytes() + LENGTH_BYTES_MAX + command_bytes <= limits::BATCH_BYTES_TARGET
    }

    /// Returns the number of commands so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns whether the batch has no commands yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size so far in bytes, header included.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Closes the batch.
    pub fn finish(mut self) -> Bytes {
        let header = self.header_bytes;
        self.encoded[header - 4..header].copy_from_slice(&self.count.to_le_bytes());
        Bytes::from(self.encoded)
    }
}

/// A batch that was checked as a whole, so that it is applied as a whole or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    time_ms: u64,
    stamp: Stamp,
    value_bytes_max: usize,
    count: usize,
    commands: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the header and checks every length; copies nothing.
    ///
    /// # Errors
    /// If the bytes are not exactly one batch. The commands themselves are not checked.
    pub fn decode(encoded: &'a [u8]) -> Result<Self, CorruptBatch> {
        let corrupt = |offset, problem| Err(CorruptBatch { offset, problem });
        let header_bytes = match encoded.first() {
            Some(&PLAIN) | None => HEADER_BYTES,
            Some(&LIMITED) => HEADER_BYTES + LIMIT_BYTES,
            Some(_) => return corrupt(0, "of an unknown kind"),
        };
        let split = || {
            let (header, commands) = encoded.split_at_checked(header_bytes)?;
            let (time_ms, rest) = header.get(1..)?.split_first_chunk::<8>()?;
            let (stamp, rest) = rest.split_first_chunk::<8>()?;
            let (limit, count) = rest.split_last_chunk::<4>()?;
            let (time_ms, stamp) = (u64::from_le_bytes(*time_ms), u64::from_le_bytes(*stamp));
            Some((time_ms, stamp, limit, count, commands))
        };
        let Some((time_ms, stamp, limit, count, commands)) = split() else {
            return corrupt(0, "shorter than its header");
        };
        let count = u32::from_le_bytes(*count) as usize;
        if count > limits::BATCH_COMMANDS_MAX {
            return corrupt(header_bytes - 4, "more commands than a batch can hold");
        }
        let value_bytes_max = match <[u8; LIMIT_BYTES]>::try_from(limit) {
            Ok(limit) => (u32::from_le_bytes(limit) as usize).min(limits::VALUE_BYTES_MAX),
            Err(_) => limits::VALUE_BYTES_MAX,
        };
        let mut rest = commands;
        for _ in 0..count {
            let Some((_, after)) = split_command(rest) else {
                return corrupt(encoded.len() - rest.len(), "a command is cut short");
            };
            rest = after;
        }
        if !rest.is_empty() {
            return corrupt(encoded.len() - rest.len(), "bytes after the last command");
        }
        Ok(Self { time_ms, stamp: Stamp(stamp), value_bytes_max, count, commands })
    }

    /// Returns the reading of the shard's clock, in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Returns the moment at which the batch was assembled; no write in it is earlier.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Returns the longest value that a command may make out of others, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// Returns the number of commands.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether the batch has no commands.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the encoded commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.commands;
        std::iter::from_fn(move || {
            let (command, after) = split_command(rest)?;
            rest = after;
            Some(command)
        })
    }
}

/// Splits one command off the front; `None` if its length or its bytes are incomplete.
fn split_command(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // A zero as the last of several groups would be a second encoding of the same length.
            if *byte == 0 && index > 0 {
                return None;
            }
            return bytes[index + 1..].split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_the_time_alone() {
        for limit in [None, Some(17)] {
            let mut builder = match limit {
                None => BatchBuilder::new(0, Stamp(5)),
                Some(limit) => BatchBuilder::with_limit(0, Stamp(5), limit),
            };
            builder.push(b"one");
            let unstamped = builder.finish();
            // One time in place, one time because somebody else has it too.
            let shared = stamp_batch(unstamped.clone(), 1 << 40);
            assert_eq!(Batch::decode(&unstamped).unwrap().time_ms(), 0);
            let owned = stamp_batch(unstamped, 1 << 40);
            assert_eq!(shared, owned);
            let batch = Batch::decode(&owned).unwrap();
            assert_eq!((batch.time_ms(), batch.stamp()), (1 << 40, Stamp(5)));
            assert_eq!(batch.commands().collect::<Vec<_>>(), [b"one"]);
        }
        assert_eq!(stamp_batch(Bytes::from_static(b"none"), 9), Bytes::from_static(b"none"));
    }
}
