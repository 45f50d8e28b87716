//! A disk in memory that fails on command, **for tests and simulation only**.
//!
//! For every file it stores the content that a reader sees, the content that a loss of power would
//! leave, and the writes in between. [`MemoryDisk::crash`] returns the disk as the next process
//! finds it: of the writes that were not synced any subset of sectors has landed, and every name
//! that was changed without a sync of the directory is bound to either the old or the new file, as
//! the seed decides. The old disk fails every call from then on, so a process that "died" cannot
//! write any more.
//!
//! A sync that fails behaves as on Linux: the written data stays readable, is *not* on the disk,
//! and the next sync succeeds without writing it. That is why a caller must never try again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, SECTOR_BYTES};
use dkv_base::sync::lock;

/// A disk in memory, for tests and simulation. Clones refer to the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    files: Vec<Contents>,
    /// Names as a reader sees them, and as a loss of power would leave them.
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    dead: bool,
    operations: u64,
    die_at_operation: Option<u64>,
    syncs: u64,
    fail_at_sync: Option<u64>,
    before_sync: Option<Hook>,
    before_read: Option<Hook>,
    bytes_read: u64,
    free_bytes: Option<u64>,
}

#[derive(Clone, Default)]
struct Contents {
    visible: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, oldest first: offset and data.
    pending: Vec<(usize, Vec<u8>)>,
}

impl MemoryDisk {
    /// Makes an empty disk of unlimited size.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power. Returns the disk as the next process finds it; this disk is dead from now
    /// on. The same seed loses the same writes.
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.lock();
        state.dead = true;
        let mut random = Random(seed);
        let mut files = state.files.clone();
        for file in &mut files {
            file.lose_power(&mut random);
        }
        let mut changed: BTreeSet<&String> = state.names.keys().collect();
        changed.extend(state.names_durable.keys());
        let mut names = BTreeMap::new();
        for name in changed {
            let source = if random.below(2) == 0 { &state.names } else { &state.names_durable };
            if let Some(&file) = source.get(name) {
                names.insert(name.clone(), file);
            }
        }
        forget_unnamed(&mut files, [&names]);
        let next = State {
            files,
            names_durable: names.clone(),
            names,
            free_bytes: state.free_bytes,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(next)) }
    }

    /// Ends the process, but not the machine: returns the same disk with everything that was
    /// written, whether synced or not, still readable and still not durable. This disk is dead from
    /// now on.
    pub fn restart(&self) -> Self {
        let copy = self.copy();
        self.lock().dead = true;
        copy
    }

    /// Returns another disk with the same content.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let mut files = state.files.clone();
        forget_unnamed(&mut files, [&state.names, &state.names_durable]);
        let next = State {
            files,
            names: state.names.clone(),
            names_durable: state.names_durable.clone(),
            free_bytes: state.free_bytes,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(next)) }
    }

    /// Lets `count` more operations succeed; the one after them, and all later ones, fail. A write
    /// that fails in this way may still land, wholly or in part, at the crash.
    pub fn die_after(&self, count: u64) {
        let mut state = self.lock();
        state.die_at_operation = Some(state.operations + count);
    }

    /// Lets `count` more syncs of files succeed, then fails one.
    pub fn fail_sync_after(&self, count: u64) {
        let mut state = self.lock();
        state.fail_at_sync = Some(state.syncs + count);
    }

    /// Calls `hook` before the next sync of a file, for actions of others while a write is under
    /// way.
    pub fn before_next_sync(&self, hook: impl FnOnce() + Send + 'static) {
        self.lock().before_sync = Some(Box::new(hook));
    }

    /// Calls `hook` before the next read of a file, on the thread that reads.
    pub fn before_next_read(&self, hook: impl FnOnce() + Send + 'static) {
        self.lock().before_read = Some(Box::new(hook));
    }

    /// Whether the power is gone: every call fails.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Returns how many bytes were read from files.
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// Limits the room for further growth of files to `bytes`, or lifts the limit.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes;
    }

    /// Returns how many operations were requested from the disk.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Returns how many syncs of files were requested from the disk.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Returns the bytes of a file as a reader sees them, if it exists.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|&file| state.files[file].visible.clone())
    }

    /// Creates or replaces a file, durably, as another process might.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.files.push(Contents { visible: bytes.clone(), durable: bytes, pending: Vec::new() });
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        state.names_durable.insert(name.to_owned(), file);
    }

    /// Removes a file, durably, as another process might.
    pub fn take(&self, name: &str) {
        let mut state = self.lock();
        state.names.remove(name);
        state.names_durable.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Locks the state for one more operation, unless the disk is dead.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.operations += 1;
        state.check_alive()?;
        Ok(state)
    }
}

impl State {
    fn check_alive(&mut self) -> io::Result<()> {
        self.dead |= self.die_at_operation.is_some_and(|limit| self.operations > limit);
        if self.dead { Err(io::Error::other("the simulated disk is gone")) } else { Ok(()) }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"));
        self.names.get(name).copied().ok_or_else(missing)
    }
}

impl Contents {
    fn lose_power(&mut self, random: &mut Random) {
        for (offset, data) in std::mem::take(&mut self.pending) {
            // Most often a write lands as a whole or not at all; a torn write is the hard case.
            let fate = random.below(4);
            let mut start = 0;
            while start < data.len() {
                let at = offset + start;
                let end = (start + SECTOR_BYTES - at % SECTOR_BYTES).min(data.len());
                let lands = match fate {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                };
                if lands {
                    put_at(&mut self.durable, at, &data[start..end]);
                }
                start = end;
            }
        }
        self.visible = self.durable.clone();
    }
}

/// Releases the bytes of files that no name refers to.
fn forget_unnamed<'a>(
    files: &mut [Contents],
    names: impl IntoIterator<Item = &'a BTreeMap<String, usize>>,
) {
    let named: BTreeSet<usize> = names.into_iter().flat_map(BTreeMap::values).copied().collect();
    for (file, contents) in files.iter_mut().enumerate() {
        if !named.contains(&file) {
            *contents = Contents::default();
        }
    }
}

fn put_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// The splitmix64 generator: good enough to choose faults, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operate()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.operate()?.find(name)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.operate()?;
        state.files.push(Contents::default());
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let file = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let file = state.find(name)?;
        state.names.remove(name);
        let freed = state.files[file].visible.len() as u64;
        if let Some(free) = &mut state.free_bytes {
            *free += freed;
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        state.names_durable = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.operate()?.free_bytes.unwrap_or(u64::MAX))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.operate()?.files[self.file].visible.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let hook = self.disk.lock().before_read.take();
        if let Some(hook) = hook {
            hook();
        }
        let mut state = self.disk.operate()?;
        state.bytes_read += buffer.len() as u64;
        let visible = &state.files[self.file].visible;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = visible.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.operations += 1;
        let was_dead = state.dead;
        let outcome = state.check_alive();
        if was_dead {
            return outcome;
        }
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let grows = (offset + data.len()).saturating_sub(state.files[self.file].visible.len());
        if let Some(free) = &mut state.free_bytes {
            *free = free.checked_sub(grows as u64).ok_or(io::ErrorKind::StorageFull)?;
        }
        let file = &mut state.files[self.file];
        put_at(&mut file.visible, offset, data);
        file.pending.push((offset, data.to_vec()));
        // The write at which the disk dies is under way: it may land, but the caller gets an error.
        outcome
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let begins = self.bytes()?;
        self.write_at(&vec![0; bytes.saturating_sub(begins) as usize], begins)
    }

    fn sync_data(&self) -> io::Result<()> {
        let hook = self.disk.lock().before_sync.take();
        if let Some(hook) = hook {
            hook();
        }
        let mut state = self.disk.operate()?;
        let fails = state.fail_at_sync == Some(state.syncs);
        state.syncs += 1;
        let file = &mut state.files[self.file];
        let pending = std::mem::take(&mut file.pending);
        if fails {
            return Err(io::Error::other("the simulated sync failed"));
        }
        for (offset, data) in pending {
            put_at(&mut file.durable, offset, &data);
        }
        Ok(())
    }
}
