//! The disk of a simulated machine. Its content outlives processes; a loss of power takes a part of
//! the data that was not synced, as the seed says.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_node::{Storage, StorageError};
use dkv_state::{Engine, EngineOptions, MemoryStore};
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{FatalHook, Wal, WalOptions};

use crate::random::Random;

/// The time that writes take.
#[derive(Clone, Copy, Debug)]
pub enum Speed {
    /// Each takes between so many milliseconds.
    Between(u64, u64),
    /// The next one takes so many milliseconds; all later ones are fast again.
    Stalled(u64),
}

/// A machine's disk. Clones are the same one.
#[derive(Clone)]
pub struct Disk {
    log: MemoryDisk,
    checkpoints: MemoryStore,
    pace: Arc<Mutex<(Speed, Random)>>,
}

impl Disk {
    /// Creates an empty disk.
    pub fn new(random: Random) -> Self {
        let pace = Arc::new(Mutex::new((Speed::Between(0, 1), random)));
        Self { log: MemoryDisk::new(), checkpoints: MemoryStore::new(), pace }
    }

    /// Loses the power: the next process finds what was synced, and some of the rest.
    pub fn lose_power(&mut self, seed: u64) {
        self.log = self.log.crash(seed);
        self.checkpoints = self.checkpoints.restart();
    }

    /// Survives the death of a process: the next one finds everything.
    pub fn restart(&mut self) {
        self.log = self.log.restart();
        self.checkpoints = self.checkpoints.restart();
    }

    /// Returns another disk with the same content: what a disk has that ignores all later syncs.
    pub fn copy(&self) -> Self {
        let (log, checkpoints) = (self.log.copy(), self.checkpoints.copy());
        Self { log, checkpoints, pace: Arc::clone(&self.pace) }
    }

    /// Returns a disk of another machine with what a process finds that starts on a copy of this
    /// one's content: everything, or what a loss of power at this moment would leave.
    pub fn copy_after_crash(&self, power: Option<u64>, random: Random) -> Self {
        let mut copy = Self { pace: Self::new(random).pace, ..self.copy() };
        copy.set_free_bytes(None);
        match power {
            Some(seed) => copy.lose_power(seed),
            None => copy.restart(),
        }
        copy
    }

    /// Returns how many syncs of the log the process has asked for since it started.
    pub fn syncs(&self) -> u64 {
        self.log.syncs()
    }

    /// Makes the power fail in the middle of a write to the log, after so many further operations.
    pub fn die_in_log(&self, operations: u64) {
        self.log.die_after(operations);
    }

    /// Makes the power fail before or after a write of a checkpoint or an installation.
    pub fn die_in_checkpoints(&self, calls: u64, happens: bool) {
        self.checkpoints.die_after(calls, happens);
    }

    /// Returns whether the power has failed in one of these ways.
    pub fn is_dead(&self) -> bool {
        self.log.is_dead() || self.checkpoints.is_dead()
    }

    /// Lets so many syncs succeed, then fails one.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.log.fail_sync_after(syncs);
    }

    /// Limits the free space, or lifts the limit.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.log.set_free_bytes(bytes);
        self.checkpoints.set_free_bytes(bytes);
    }

    /// Sets the time that writes take from now on.
    pub fn set_speed(&self, speed: Speed) {
        lock(&self.pace).0 = speed;
    }
}

impl Storage for Disk {
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, StorageError> {
        pretend(&path.join("0000000000000001.wal"))?;
        let pace = Arc::clone(&self.pace);
        let pace = move || {
            let mut pace = lock(&pace);
            let (speed, random) = &mut *pace;
            match *speed {
                Speed::Between(low, high) => Duration::from_millis(random.between(low, high)),
                Speed::Stalled(length) => {
                    *speed = Speed::Between(0, 1);
                    Duration::from_millis(length)
                }
            }
        };
        let salt_seed = lock(&self.pace).1.draw();
        let options = WalOptions { salt_seed, ..options };
        let disk = Arc::new(self.log.clone());
        let opened = Wal::open_with_tasks(disk, options, on_fatal, Box::new(pace));
        opened.map_err(|error| StorageError::of_log(&error, path))
    }

    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, StorageError> {
        pretend(&path.join("version"))?;
        Ok(Engine::in_memory(&self.checkpoints, options)?)
    }
}

/// Creates the file by which a node sees that it has data. The data itself is in memory.
fn pretend(file: &Path) -> Result<(), StorageError> {
    let directory = file.parent().unwrap_or(file);
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(file, ""))
        .map_err(|error| StorageError::Unusable(error.to_string()))
}
