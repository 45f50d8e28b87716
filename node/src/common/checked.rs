//! Small files that are either whole or known to be malformed: a checksum, and the encoded content.

use std::io;
use std::path::Path;

use dkv_base::durable;
use dkv_wire::codec::{decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// Writes a file durably, in place of an earlier one.
pub(crate) fn save<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let content = encode(content);
    let mut file = xxh3_64(&content).to_le_bytes().to_vec();
    file.extend_from_slice(&content);
    durable::write(path, &file)
}

/// Reads a file; the inner `None` means that it is malformed.
///
/// # Errors
/// If it exists and cannot be read.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<Option<T>>> {
    let Some(file) = durable::read(path)? else { return Ok(None) };
    let whole = file.split_first_chunk().and_then(|(checksum, content)| {
        (u64::from_le_bytes(*checksum) == xxh3_64(content)).then_some(content)
    });
    Ok(Some(whole.and_then(|content| decode(content).ok())))
}
