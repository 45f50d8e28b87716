//! The content of one entry of a shard's log: commands in order, with the readings of the shard's
//! clock and of the network's clock at the time the primary assembled them.
//!
//! ```text
//! kind u8 = 2 | time_ms u64 le | stamp u64 le | count u32 le |
//! count times: length varint, command bytes
//! ```
//!
//! Commands stay as the client encoded them, so the primary builds a batch by copying each command
//! once and never encodes anything. The header has a fixed size; the count is filled in when the
//! batch is closed.

use bytes::Bytes;
use dkv_base::id::Stamp;
use dkv_wire::limits;

/// First byte of a batch of this layout. Another layout gets another byte.
const KIND: u8 = 2;
/// Bytes of the kind, the time, the stamp and the count.
const HEADER_BYTES: usize = 1 + 8 + 8 + 4;
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

/// Builds a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    encoded: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// Creates an empty batch for a shard whose clock shows `time_ms`, in milliseconds.
    pub fn new(time_ms: u64, stamp: Stamp) -> Self {
        let mut encoded = Vec::with_capacity(1024);
        encoded.push(KIND);
        encoded.extend_from_slice(&time_ms.to_le_bytes());
        encoded.extend_from_slice(&stamp.0.to_le_bytes());
        encoded.extend_from_slice(&0_u32.to_le_bytes());
        Self { encoded, count: 0 }
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
        self.encoded[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        Bytes::from(self.encoded)
    }
}

/// A batch that was checked as a whole, so that it is applied as a whole or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    time_ms: u64,
    stamp: Stamp,
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
        let Some((header, commands)) = encoded.split_first_chunk::<HEADER_BYTES>() else {
            return corrupt(0, "shorter than its header");
        };
        let [kind, t0, t1, t2, t3, t4, t5, t6, t7, stamp @ .., c0, c1, c2, c3] = *header;
        if kind != KIND {
            return corrupt(0, "of an unknown kind");
        }
        let time_ms = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        if count > limits::BATCH_COMMANDS_MAX {
            return corrupt(HEADER_BYTES - 4, "more commands than a batch can hold");
        }
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
        Ok(Self { time_ms, stamp: Stamp(u64::from_le_bytes(stamp)), count, commands })
    }

    /// Returns the reading of the shard's clock, in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Returns the moment at which the batch was assembled; no write in it is earlier.
    pub fn stamp(&self) -> Stamp {
        self.stamp
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
