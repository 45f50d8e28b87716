//! The log as callers see it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use dkv_base::id::GroupId;
use dkv_base::supervise::Panicked;
use dkv_base::sync::lock;

use super::core::Core;
use super::error::WalError;
use super::group_log::GroupLog;
use super::options::{WalOptions, WalStats};
use super::replay::replay;
use super::segment_manager::{SegmentMaker, SegmentManager};
use super::segments::Wanted;
use super::shared::{Handle, WalInner};
use super::writer::Writer;
use super::{FatalHook, WriteDelay};
use crate::disk::Disk;

/// The write-ahead log of a node. Clones refer to the same log.
///
/// When the last clone, and the last [`GroupLog`], is dropped, the log closes in the background.
/// Use [`Wal::close`] to wait for that.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

impl Wal {
    /// Opens the log in the directory `disk`, or begins a new one there, and starts its two
    /// threads. Reads all segments, and blocks until that is done. If the log stops for good, one
    /// of the threads calls `on_fatal` before any caller learns of it; `on_fatal` must not use the
    /// log.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if acknowledged data may be lost, [`WalError::Missing`] if there are
    /// no segments and there must be, [`WalError::Disk`] if the disk failed or has no room for a
    /// first segment, [`WalError::Options`] if an option is out of bounds.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Self, WalError> {
        let (wal, writer, segment_manager) = Self::open_by_hand(disk, options, on_fatal)?;
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let builder = thread::Builder::new().name(name.to_owned());
            let (shared, name) = (Arc::clone(&wal.handle.shared), name.to_owned());
            let run = move || {
                // No other thread joins this one: if it ended silently, every caller that needs it
                // would wait for ever.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                    shared.die(format!("{name} {}", Panicked::new(&*payload)));
                }
            };
            builder.spawn(run).map_err(WalError::disk("start a thread"))
        };
        let threads = [
            start("wal-writer", Box::new(move || writer.run()))?,
            start("wal-segments", Box::new(move || segment_manager.run()))?,
        ];
        lock(&wal.handle.threads).extend(threads);
        Ok(wal)
    }

    /// Opens a log as [`Self::open`] does, but with two tasks of the runtime instead of threads,
    /// for simulations: each write takes as long as `pace` says, on the runtime's clock.
    /// [`Self::close`] then only begins to close.
    ///
    /// # Errors
    /// As for [`Self::open`].
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn open_with_tasks(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fatal: FatalHook,
        pace: WriteDelay,
    ) -> Result<Self, WalError> {
        let (wal, writer, segment_manager) = Self::open_by_hand(disk, options, on_fatal)?;
        tokio::spawn(writer.run_as_task(pace));
        tokio::spawn(segment_manager.run_as_task());
        Ok(wal)
    }

    /// Opens a log as [`Self::open`] does, but without threads: the caller steps the writer and the
    /// segment manager, as a simulation does. [`Self::close`] then only begins to close.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_by_hand(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<(Self, Writer, SegmentManager), WalError> {
        options.check()?;
        let mut replayed = replay(&*disk)?;
        let mut maker = SegmentMaker::new(&options);
        if replayed.segments.count() == 0 {
            if options.must_exist {
                return Err(WalError::Missing);
            }
            let bytes = options.segment_bytes;
            let first = Wanted { sequence: 1, bytes, may_use_reserve: false, zeroed: true };
            let segment =
                maker.make(&*disk, first).map_err(WalError::disk("make the first segment"))?;
            replayed.segments.spare = Some(segment);
        }
        let core = Core::new(
            options.clone(),
            replayed.groups,
            replayed.segments,
            replayed.next_frame,
            replayed.sealed,
            on_fatal,
        );
        let shared = Arc::new(WalInner::new(options, core));
        let writer = Writer::new(shared.clone());
        let segment_manager = SegmentManager::new(shared.clone(), disk, maker);
        let handle = Handle { shared, threads: Mutex::default() };
        Ok((Self { handle: Arc::new(handle) }, writer, segment_manager))
    }

    /// Returns the log of one group. A group exists once something was saved or appended to it.
    pub fn group(&self, id: GroupId) -> GroupLog {
        GroupLog { handle: self.handle.clone(), id }
    }

    /// Returns all groups that exist, in order.
    pub fn groups(&self) -> Vec<GroupId> {
        self.handle.shared.lock().groups.ids().collect()
    }

    /// Returns statistics of the log. Cheap enough for a few calls a second.
    pub fn stats(&self) -> WalStats {
        let core = self.handle.shared.lock();
        let (fsync_us_median, fsync_us_max) = core.timing.median_and_max_us();
        let oldest = core.segments.written.first_key_value();
        WalStats {
            bytes_on_disk: core.segments.bytes_on_disk(),
            bytes_held: core.segments.bytes_held(),
            segments: core.segments.count(),
            oldest: oldest.map_or_else(Vec::new, |(first, _)| core.groups.last_indexes_in(*first)),
            cached_bytes: core.groups.cached_bytes(),
            staged_bytes: core.staged_bytes(),
            short_of_room: core.segments.short_of_room,
            waiting_for_room: core.segments.waiting_for_room(),
            fsyncs: core.timing.count(),
            entries_written: core.entries_written(),
            fsync_us_median,
            fsync_us_max,
            write_pending_us: core.timing.pending_us(),
            dead: core.dead.clone(),
        }
    }

    /// Number of entries and votes that are on disk, of all groups and of all times: those that
    /// were dropped since count too. It only grows, through restarts too, for as long as the
    /// directory is not replaced.
    pub fn durable_records(&self) -> u64 {
        self.handle.shared.lock().durable_records
    }

    /// Durations of writes with their sync since the log was opened.
    pub fn sync_times(&self) -> dkv_base::histogram::Times {
        self.handle.shared.lock().timing.times()
    }

    /// Closes the log: writes what is staged, seals it, and waits until both threads have ended.
    /// Later calls return an error. If there is no room for what is staged, its callbacks get that
    /// error. The directory is free again once this returns, unless the caller kept the disk. A
    /// call from a callback only begins to close.
    pub fn close(&self) {
        self.handle.shared.begin_close();
        let threads = {
            let mut threads = lock(&self.handle.threads);
            if threads.iter().any(|thread| thread.thread().id() == thread::current().id()) {
                return;
            }
            std::mem::take(&mut *threads)
        };
        // Not under the lock: a callback that runs meanwhile may call this too.
        for thread in threads {
            // A panic in the thread has ended the log, and was reported.
            drop(thread.join());
        }
    }
}
