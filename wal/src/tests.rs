//! Tests of the log against a simple model, against crashes, against damaged files, and on a real
//! disk.

mod crash;
mod damage;
mod faults;
mod measure;
mod model;
mod reuse;
mod tasks;
mod threads;
mod underway;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::{
    Done, FatalHook, GroupLog, SegmentManager, SegmentManagerStep, Wal, WalError, WalOptions,
    Writer, WriterStep,
};
use crate::disk::MemoryDisk;

/// Small segments, so that a short test sees many of them.
fn small() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        cache_bytes: 600,
        staged_bytes: 2 * 1024 * 1024,
        reserve_bytes: 0,
        salt_seed: 7,
        ..WalOptions::default()
    }
}

fn no_hook() -> FatalHook {
    Box::new(|_| {})
}

fn ignore() -> Done {
    Box::new(|_| {})
}

/// A log whose writer and segment manager are stepped by the test.
struct Manual {
    wal: Wal,
    writer: Writer,
    segment_manager: SegmentManager,
}

impl Manual {
    fn open(disk: &MemoryDisk) -> Result<Self, WalError> {
        Self::open_with(disk, small(), no_hook())
    }

    fn open_with(
        disk: &MemoryDisk,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Self, WalError> {
        let (wal, writer, segment_manager) =
            Wal::open_by_hand(Arc::new(disk.clone()), options, on_fatal)?;
        Ok(Self { wal, writer, segment_manager })
    }

    fn group(&self, id: u32) -> GroupLog {
        self.wal.group(GroupId(id))
    }

    /// Steps both until there is nothing more to do.
    fn settle(&mut self) {
        loop {
            let wrote = self.writer.step();
            let kept = self.segment_manager.step();
            if wrote != WriterStep::Worked && kept != SegmentManagerStep::Worked {
                return;
            }
        }
    }

    fn seal(&mut self) {
        self.settle();
        self.writer.step_idle();
        self.settle();
    }

    fn close(mut self) {
        self.wal.close();
        self.settle();
    }
}

/// Returns an entry of `bytes` bytes that identifies itself.
fn entry(group: u32, index: u64, salt: u64, bytes: usize) -> Bytes {
    let mut payload = format!("{group}/{index}/{salt} ").into_bytes();
    payload.resize(bytes.max(payload.len()), b'.');
    Bytes::from(payload)
}

/// Records the results that callbacks received, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Outcome>>>, Arc<AtomicU64>);

/// The number of a call, and the result that its callback received.
type Outcome = (u64, Result<(), io::ErrorKind>);

impl Told {
    fn done(&self) -> (u64, Done) {
        let number = self.1.fetch_add(1, Ordering::SeqCst);
        let told = self.0.clone();
        let done = move |outcome: io::Result<()>| {
            told.lock().unwrap().push((number, outcome.map_err(|error| error.kind())));
        };
        (number, Box::new(done))
    }

    fn list(&self) -> Vec<Outcome> {
        self.0.lock().unwrap().clone()
    }
}
