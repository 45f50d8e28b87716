//! Writes snapshot files. Keys come in any order, and the file has them in that of revisions: they
//! are spooled to a temporary file first, and the memory has 24 bytes of each.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest::{Context, SHA256};
use prost::Message;

use super::{CHECKSUM_BYTES, Lease, ROW_KEY_BYTES, RowRevision, meta};
use crate::write::{Plan, Tree};

/// Bytes that are gathered before they go to the temporary file.
const BUFFER_BYTES: usize = 1 << 18;
/// The buckets of etcd that are empty in the file, beside those with something.
const EMPTY: [&str; 7] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];

/// Keys on their way into a snapshot file. `F` is a temporary file, which is empty.
#[derive(Debug)]
pub struct Spool<F> {
    file: F,
    /// Bytes that the file does not have yet.
    buffer: Vec<u8>,
    /// Bytes before them.
    written: u64,
    index: Vec<Spooled>,
}

/// A version of a key in the temporary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spooled {
    revision: i64,
    offset: u64,
    bytes: u32,
}

/// What a member knows of its group. `etcdctl snapshot restore` replaces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// The index of the log.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The members with a vote.
    pub voters: Vec<u64>,
    /// The version of etcd whose layout this is, as in 3.6.0.
    pub version: String,
}

/// A snapshot file that only has to be written.
#[derive(Debug)]
pub struct SpooledSnapshot<F> {
    spool: Spool<F>,
    leases: BTreeMap<u64, Vec<u8>>,
    plan: Plan,
}

impl<F: Read + Write + Seek> Spool<F> {
    /// Creates a spool in a temporary file.
    pub fn new(file: F) -> Self {
        Self { file, buffer: Vec::new(), written: 0, index: Vec::new() }
    }

    /// Adds the newest version of a key: its revision, and the encoding of its
    /// [`KeyValue`](super::KeyValue).
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn add(&mut self, revision: i64, encoded: &[u8]) -> io::Result<()> {
        let bytes = u32::try_from(encoded.len()).map_err(io::Error::other)?;
        let offset = self.written + self.buffer.len() as u64;
        self.index.push(Spooled { revision, offset, bytes });
        self.buffer.extend(encoded);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Lays out the file of the keys so far, as of a revision.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn finish(
        mut self,
        revision: i64,
        leases: impl IntoIterator<Item = Lease>,
        members: &Members,
    ) -> io::Result<SpooledSnapshot<F>> {
        self.flush()?;
        self.file.flush()?;
        // Versions of one transaction are in the order in which they came.
        self.index.sort_unstable();
        let mut keys = Tree::new(ROW_KEY_BYTES);
        self.index.iter().for_each(|spooled| keys.add(spooled.bytes));
        let leases: BTreeMap<u64, Vec<u8>> =
            leases.into_iter().map(|lease| (lease.id as u64, lease.encode_to_vec())).collect();
        let mut lease_tree = Tree::new(size_of::<u64>());
        leases.values().for_each(|lease| lease_tree.add(lease.len() as u32));
        let mut plan = Plan::new()
            .tree("key", keys.finish())
            .tree("lease", lease_tree.finish())
            .small("meta", meta_entries(revision, members));
        for name in EMPTY {
            plan = plan.small(name, BTreeMap::new());
        }
        Ok(SpooledSnapshot { spool: self, leases, plan })
    }
}

impl<F: Read + Seek> SpooledSnapshot<F> {
    /// Returns the length of the database, in bytes, without the checksum.
    pub fn database_bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Returns the length of the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.database_bytes() + CHECKSUM_BYTES
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The output cannot be written, or the temporary file cannot be read.
    pub fn write(mut self, out: impl Write) -> io::Result<()> {
        let mut out = Hashing { out, hash: Context::new(&SHA256) };
        let (spool, leases) = (&mut self.spool, &self.leases);
        let mut value = Vec::new();
        self.plan.write(&mut out, |name, tree| {
            if name == "lease" {
                return leases
                    .iter()
                    .try_for_each(|(id, lease)| tree.entry(&id.to_be_bytes(), lease));
            }
            let mut last = RowRevision { main: -1, sub: 0 };
            for spooled in &spool.index {
                let same = spooled.revision == last.main;
                let sub = if same { last.sub + 1 } else { 0 };
                last = RowRevision { main: spooled.revision, sub };
                value.resize(spooled.bytes as usize, 0);
                spool.file.seek(SeekFrom::Start(spooled.offset))?;
                spool.file.read_exact(&mut value)?;
                tree.entry(&last.key(), &value)?;
            }
            Ok(())
        })?;
        let Hashing { mut out, hash } = out;
        out.write_all(hash.finish().as_ref())?;
        out.flush()
    }
}

/// Returns the entries of the bucket `meta`. There is no history before the revision, so it counts
/// as compacted; which also keeps the revision, even if no key has it.
fn meta_entries(revision: i64, members: &Members) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let Members { index, term, voters, version } = members;
    let compacted = RowRevision { main: revision, sub: 0 }.key().to_vec();
    let voters: Vec<String> = voters.iter().map(u64::to_string).collect();
    let voters = format!("{{\"voters\":[{}],\"auto_leave\":false}}", voters.join(","));
    let entries = [
        (meta::INDEX, index.to_be_bytes().to_vec()),
        (meta::TERM, term.to_be_bytes().to_vec()),
        (meta::MEMBERS, voters.into_bytes()),
        (meta::VERSION, version.clone().into_bytes()),
        (meta::COMPACTING, compacted.clone()),
        (meta::COMPACTED, compacted),
    ];
    entries.map(|(name, value)| (name.as_bytes().to_vec(), value)).into()
}

/// An output that hashes what goes through.
struct Hashing<W> {
    out: W,
    hash: Context,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
