//! Chunks: the objects of a backup, each sealed by a hash.
//!
//! ```text
//! magic      8 bytes    "dkvback" and the version of the format
//! header     u32 le, then that many bytes, postcard
//! body       u64 le, then that many bytes, a zstd frame
//! hash      32 bytes    SHA-256 of all of the above
//! ```
//!
//! The header has the hash of the chunk before, so the last hash of a chain covers all of it: a bit
//! that changes anywhere is found. Lengths are checked before anything is allocated.

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use dkv_wire::codec;
use dkv_wire::network::KeyspaceSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::Record;

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

const MAGIC: &[u8; 8] = b"dkvback\x01";
/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;
/// Records are collected until they have this many bytes.
pub(crate) const CHUNK_BYTES: usize = 8 << 20;
/// Most bytes of the records of a chunk: the last one may be the largest that there is.
const BODY_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of a header.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// A compromise: values are mostly small, and a backup must not cost its network the processor.
const LEVEL: i32 = 1;

/// A cut at which a keyspace can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CutMark {
    /// The token of the snapshot.
    pub(crate) token: String,
    /// The time when it was taken, in milliseconds since 1970.
    pub(crate) taken_ms: u64,
    /// Whether all leases of the cut are between this one and the one before. If not, they are
    /// those of the cut before.
    pub(crate) leases: bool,
    /// The time when the base that it stands on began, in milliseconds since 1970.
    pub(crate) base_ms: u64,
}

/// What a chunk is in its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    /// A base begins.
    Base {
        /// The settings of the keyspace.
        settings: KeyspaceSettings,
        /// The snapshot that the first pages are of.
        from: String,
        /// Whether the changes that follow are also those of the run before, without a gap.
        continues: bool,
    },
    /// Changes after a cut of another backup begin.
    After {
        /// The settings of the keyspace.
        settings: KeyspaceSettings,
        /// The other backup.
        parent: String,
        /// Its cut.
        cut: String,
    },
    /// Keys in order.
    Pages {
        /// The snapshot that they are of.
        of: String,
        /// Whether they are the last ones of the base.
        last: bool,
    },
    /// Changes in the order of the revisions of each shard.
    Changes {
        /// The position of the watch: the next changes come after it.
        position: String,
        /// The cut that is complete with them.
        cut: Option<CutMark>,
    },
    /// The keyspace was dropped.
    Dropped {
        /// When that was noticed, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// The header of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The backup.
    pub(crate) backup: String,
    /// The network.
    pub(crate) network: Uuid,
    /// The keyspace.
    pub(crate) keyspace: String,
    /// The number of the chunk in its chain, from one.
    pub(crate) number: u64,
    /// The hash of the chunk before it; zeros for the first.
    pub(crate) before: Hash,
    /// What it is.
    pub(crate) content: Content,
    /// The number of records.
    pub(crate) records: u64,
    /// Bytes of keys and values.
    pub(crate) data_bytes: u64,
    /// Bytes of the body before compression.
    pub(crate) body_bytes: u64,
}

/// A chunk is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    /// It ends too early, or something follows.
    #[error("it is cut short")]
    Short,
    /// It is no chunk, or one of another version.
    #[error("it is not a part of a backup of this version of dkv")]
    Magic,
    /// Its hash is another one.
    #[error("its hash does not match")]
    Hash,
    /// Its contents make no sense.
    #[error("{0}")]
    Malformed(String),
}

/// Seals a header and records. Completes the numbers of the header, and returns it with the sealed
/// form.
///
/// # Errors
/// The records cannot be compressed.
pub(crate) fn seal(
    mut header: Header,
    records: &[Record],
) -> std::io::Result<(Header, Bytes, Hash)> {
    let mut body = Vec::new();
    for record in records {
        body = record.encode_into(body);
    }
    header.records = records.len() as u64;
    header.data_bytes = records.iter().map(Record::bytes).sum();
    header.body_bytes = body.len() as u64;
    let body = zstd::bulk::compress(&body, LEVEL)?;
    let (sealed, hash) = seal_parts(&codec::encode_vec(&header), &body);
    Ok((header, sealed, hash))
}

/// Returns the sealed form of a document.
pub(crate) fn seal_document<T: Serialize>(document: &T) -> (Bytes, Hash) {
    seal_parts(&codec::encode_vec(document), &[])
}

fn seal_parts(header: &[u8], body: &[u8]) -> (Bytes, Hash) {
    let mut sealed = Vec::with_capacity(MAGIC.len() + 12 + header.len() + body.len() + HASH_BYTES);
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&(header.len() as u32).to_le_bytes());
    sealed.extend_from_slice(header);
    sealed.extend_from_slice(&(body.len() as u64).to_le_bytes());
    sealed.extend_from_slice(body);
    let hash = hash_of(&sealed);
    sealed.extend_from_slice(&hash);
    (sealed.into(), hash)
}

/// Opens a chunk: its header, its records in encoded form, and its hash.
///
/// # Errors
/// It is not what was written.
pub(crate) fn open(sealed: &Bytes) -> Result<(Header, Bytes, Hash), ChunkError> {
    let (header, body, hash) = open_parts::<Header>(sealed)?;
    if header.body_bytes > BODY_BYTES_MAX {
        return Err(ChunkError::Malformed("its records are too long".into()));
    }
    let records = zstd::bulk::decompress(&body, header.body_bytes as usize)
        .map_err(|error| ChunkError::Malformed(format!("it does not decompress: {error}")))?;
    if records.len() as u64 != header.body_bytes {
        return Err(ChunkError::Malformed("its records are of another length".into()));
    }
    Ok((header, records.into(), hash))
}

/// Opens a document and returns it with its hash.
///
/// # Errors
/// It is not what was written.
pub(crate) fn open_document<T: DeserializeOwned>(sealed: &Bytes) -> Result<(T, Hash), ChunkError> {
    let (document, body, hash) = open_parts(sealed)?;
    if body.is_empty() { Ok((document, hash)) } else { Err(ChunkError::Short) }
}

fn open_parts<T: DeserializeOwned>(sealed: &Bytes) -> Result<(T, Bytes, Hash), ChunkError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(ChunkError::Magic)?;
    let (content, hash) = sealed.split_last_chunk::<HASH_BYTES>().ok_or(ChunkError::Short)?;
    if hash_of(content) != *hash {
        return Err(ChunkError::Hash);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(ChunkError::Short)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(ChunkError::Malformed("its header is too long".into()));
    }
    let (header, rest) = rest.split_at_checked(length).ok_or(ChunkError::Short)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(ChunkError::Short)?;
    let body_at = sealed.len() - rest.len();
    let body = rest.len().checked_sub(HASH_BYTES).ok_or(ChunkError::Short)?;
    if u64::from_le_bytes(*length) != body as u64 {
        return Err(ChunkError::Short);
    }
    let header = codec::decode(header).map_err(|error| ChunkError::Malformed(error.to_string()))?;
    Ok((header, sealed.slice(body_at..body_at + body), *hash))
}

/// Returns the SHA-256 hash of bytes.
pub(crate) fn hash_of(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Hashes keys in order, to compare two sets of them.
pub(crate) struct KeysHash {
    context: Context,
    keys: u64,
    bytes: u64,
}

impl KeysHash {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(&SHA256), keys: 0, bytes: 0 }
    }

    /// Adds a key: its name, its value, and the lease that it has, zero for none.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8], lease: u64) {
        for part in [key, value] {
            self.context.update(&(part.len() as u64).to_le_bytes());
            self.context.update(part);
        }
        self.context.update(&lease.to_le_bytes());
        self.keys += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    /// Returns the number of keys, their bytes, and the hash.
    pub(crate) fn finish(self) -> (u64, u64, Hash) {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        (self.keys, self.bytes, hash)
    }
}

/// Returns a hash as text.
pub(crate) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
