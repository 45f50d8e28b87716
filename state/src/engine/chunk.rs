//! Rows in transit from one node to another: a chunk is a sequence of rows.
//!
//! ```text
//! table u8 | key length u32 le | value length u32 le | key | value
//! ```

use crate::rows::{MalformedRow, Table};

/// Bytes in front of the key.
const HEADER_BYTES: usize = 1 + 4 + 4;

/// Appends a row.
pub(super) fn push_row(chunk: &mut Vec<u8>, table: Table, key: &[u8], value: &[u8]) {
    // Keys and values have limits far below this; a row that exceeded it could not be stored.
    debug_assert!(u32::try_from(key.len()).is_ok() && u32::try_from(value.len()).is_ok());
    chunk.push(table.byte());
    chunk.extend_from_slice(&(key.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&(value.len() as u32).to_le_bytes());
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(value);
}

/// A row as decoded from a chunk.
pub(super) struct ChunkRow<'a> {
    pub(super) table: Table,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// Splits a row off the front of a chunk, and returns the rest as well.
///
/// # Errors
/// If the bytes do not begin with a whole row.
pub(super) fn split_row(chunk: &[u8]) -> Result<(ChunkRow<'_>, &[u8]), MalformedRow> {
    const CUT: MalformedRow = MalformedRow("a row is cut short");
    let (header, rest) = chunk.split_first_chunk::<HEADER_BYTES>().ok_or(CUT)?;
    let [table, k0, k1, k2, k3, v0, v1, v2, v3] = *header;
    let table = Table::from_byte(table).ok_or(MalformedRow("a row of no table"))?;
    let key_bytes = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
    let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
    let (key, rest) = rest.split_at_checked(key_bytes).ok_or(CUT)?;
    let (value, rest) = rest.split_at_checked(value_bytes).ok_or(CUT)?;
    Ok((ChunkRow { table, key, value }, rest))
}
