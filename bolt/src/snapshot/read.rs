//! Reads snapshot files: the newest version of each key, and the leases.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek, SeekFrom};

use aws_lc_rs::digest::{Context, SHA256};
use prost::Message;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{CHECKSUM_BYTES, KeyValue, Lease, RowRevision, meta};
use crate::error::BoltError;
use crate::read::{Bucket, Database};

/// Most buckets of a database. etcd has ten.
const BUCKETS_MAX: usize = 64;
/// Bytes that are read at a time for the checksum.
const CHUNK_BYTES: usize = 1 << 18;

/// What to do about the checksum at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Refuse a file without one, or with that of other bytes.
    Check,
    /// Take any file, as one that was copied from the directory of a member.
    Skip,
}

/// A snapshot file that is read.
#[derive(Debug)]
pub struct SnapshotFile<R> {
    database: Database<R>,
    keys: Bucket,
    leases: Option<Bucket>,
    /// Whether users and roles are in force.
    auth_enabled: bool,
    /// The latest revision, and that below which the history is forgotten.
    revision: i64,
    /// The revision of each key's newest version, unless it is deleted, by the hash of the key.
    newest: HashMap<u128, RowRevision>,
    /// Makes the hashes unpredictable, so that no file has keys of equal ones on purpose.
    seed: u64,
}

impl<R: Read + Seek> SnapshotFile<R> {
    /// Opens a file, and reads it as a whole: its checksum, and which version of each key is the
    /// newest. Needs about 50 bytes of memory for each key.
    ///
    /// # Errors
    /// It is no such file, or damaged.
    pub fn open(mut input: R, checksum: Checksum) -> Result<Self, BoltError> {
        let mut bytes = input.seek(SeekFrom::End(0))?;
        // Pages have a multiple of 512 bytes.
        if bytes % 512 == CHECKSUM_BYTES {
            bytes -= CHECKSUM_BYTES;
            if checksum == Checksum::Check {
                check(&mut input, bytes)?;
            }
        } else if checksum == Checksum::Check {
            // If it is no database at all, that is the better answer.
            Database::open(&mut input, bytes)?;
            return Err(BoltError::NoChecksum);
        }
        let mut database = Database::open(input, bytes)?;
        let buckets: HashMap<_, _> = database.buckets(BUCKETS_MAX)?.into_iter().collect();
        let named = |name: &str| buckets.get(name.as_bytes()).cloned();
        let keys = named("key").ok_or(BoltError::NotEtcd("it has no bucket of keys"))?;
        let mut compacted = 0;
        if let Some(bucket) = named("meta") {
            let mut entries = database.entries(&bucket);
            while let Some(entry) = entries.next()? {
                if [meta::COMPACTED.as_bytes(), meta::COMPACTING.as_bytes()]
                    .contains(&&entry.key[..])
                {
                    let revision = RowRevision::read(&entry.value);
                    compacted = revision.map_or(compacted, |it| it.main.max(compacted));
                }
            }
        }
        let mut auth_enabled = false;
        if let Some(bucket) = named("auth") {
            let mut entries = database.entries(&bucket);
            while let Some(entry) = entries.next()? {
                auth_enabled |= entry.key == "authEnabled" && entry.value == [1][..];
            }
        }
        let leases = named("lease");
        let seed = RandomState::new().build_hasher().finish();
        let newest = HashMap::new();
        let mut file =
            Self { database, keys, leases, auth_enabled, revision: compacted, newest, seed };
        file.find_newest()?;
        Ok(file)
    }

    /// Finds the newest version of each key.
    fn find_newest(&mut self) -> Result<(), BoltError> {
        let mut entries = self.database.entries(&self.keys);
        while let Some(entry) = entries.next()? {
            let revision = RowRevision::read(&entry.key);
            let revision = revision.ok_or(BoltError::NotEtcd("a key is no revision"))?;
            self.revision = self.revision.max(revision.main);
            let row = key_value(&entry.value)?;
            if row.key.is_empty() {
                // etcdutl leaves such a row where it raised the revision.
                continue;
            }
            let hash = xxh3_128_with_seed(&row.key, self.seed);
            // Rows come in the order of revisions.
            match is_deletion(&entry.key) {
                true => self.newest.remove(&hash),
                false => self.newest.insert(hash, revision),
            };
        }
        Ok(())
    }

    /// Returns the latest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns the number of keys.
    pub fn count(&self) -> u64 {
        self.newest.len() as u64
    }

    /// Returns whether etcd asked for a user's name and password.
    pub fn auth_enabled(&self) -> bool {
        self.auth_enabled
    }

    /// Passes on the newest version of each key that exists, in the order of revisions.
    ///
    /// # Errors
    /// The file is damaged, or `each` fails.
    pub fn keys<E: From<BoltError>>(
        &mut self,
        mut each: impl FnMut(KeyValue) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut entries = self.database.entries(&self.keys);
        while let Some(entry) = entries.next()? {
            if is_deletion(&entry.key) {
                continue;
            }
            let row = key_value(&entry.value)?;
            let newest = self.newest.get(&xxh3_128_with_seed(&row.key, self.seed));
            if !row.key.is_empty() && newest.copied() == RowRevision::read(&entry.key) {
                each(row)?;
            }
        }
        Ok(())
    }

    /// Passes on the leases, in the order of ids.
    ///
    /// # Errors
    /// The file is damaged, or `each` fails.
    pub fn leases<E: From<BoltError>>(
        &mut self,
        mut each: impl FnMut(Lease) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(bucket) = &self.leases else { return Ok(()) };
        let mut entries = self.database.entries(bucket);
        while let Some(entry) = entries.next()? {
            let lease = Lease::decode(entry.value);
            each(lease.map_err(|_| BoltError::NotEtcd("a lease is malformed"))?)?;
        }
        Ok(())
    }
}

fn key_value(value: &bytes::Bytes) -> Result<KeyValue, BoltError> {
    let decoded = KeyValue::decode(value.clone());
    decoded.map_err(|_| BoltError::NotEtcd("the version of a key is malformed"))
}

fn is_deletion(key: &[u8]) -> bool {
    key.len() > super::ROW_KEY_BYTES
}

/// Compares the checksum after the first `bytes` bytes.
fn check(input: &mut (impl Read + Seek), bytes: u64) -> Result<(), BoltError> {
    input.seek(SeekFrom::Start(0))?;
    let mut hash = Context::new(&SHA256);
    let (mut left, mut chunk) = (bytes, vec![0; CHUNK_BYTES]);
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK_BYTES as u64) as usize];
        input.read_exact(part)?;
        hash.update(part);
        left -= part.len() as u64;
    }
    let mut stored = [0; CHECKSUM_BYTES as usize];
    input.read_exact(&mut stored)?;
    if hash.finish().as_ref() != stored {
        return Err(BoltError::WrongChecksum);
    }
    Ok(())
}
