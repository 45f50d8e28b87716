//! The queue of an audit log, and the thread that writes the file.
//!
//! Who sends an event never waits. What cannot be written is counted, whether the queue had no room
//! or the disk, and the count goes into the file, and into the log of the process, as soon as
//! something can be written again.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Untold;
use super::event::{AuditEvent, Kind, Outcome, What, Who};
use super::file::AuditFile;
use crate::supervise::caught_call;

/// Events that may wait to be written; more are lost. Usually some 8 MiB.
const EVENTS_MAX: usize = 16 * 1024;
/// Bytes of lines that are written together.
const BATCH_BYTES: usize = 64 * 1024;
/// Time after which the thread looks after what was lost or suppressed, without an event.
const TICK: Duration = Duration::from_secs(1);
/// Time after which the end of the process tries again to find room in the queue.
const FLUSH_RETRY: Duration = Duration::from_millis(2);

/// What became of the events of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFigures {
    /// Lines in the file.
    pub written: u64,
    /// Events that found no room in the queue or on the disk.
    pub lost: u64,
    /// Denials and acts above the rate of their senders.
    pub suppressed: u64,
}

enum Item {
    Event(Box<AuditEvent>),
    /// Asks for a signal once all earlier events are written or lost.
    Flushed(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    /// Lost events that the file does not tell of yet.
    untold: AtomicU64,
    reopen: AtomicBool,
}

impl Counts {
    fn lose(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
        self.untold.fetch_add(events, Ordering::Relaxed);
    }
}

/// The way to the thread that writes.
pub(super) struct AuditQueue {
    items: SyncSender<Item>,
    counts: Arc<Counts>,
}

impl AuditQueue {
    /// Starts the thread. `untold` returns events that are due without any cause; the lines that it
    /// writes by itself say that they come from `process`.
    pub(super) fn start(
        file: AuditFile,
        process: &'static str,
        untold: fn(Untold) -> Vec<AuditEvent>,
    ) -> io::Result<Self> {
        let (items, waiting) = mpsc::sync_channel(EVENTS_MAX);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let writer = Writer { file, process, counts: shared, is_failing: false };
        let thread = std::thread::Builder::new().name("audit".into());
        thread.spawn(move || writer.run(&waiting, untold))?;
        Ok(Self { items, counts })
    }

    /// Hands an event over, or counts it as lost.
    pub(super) fn send(&self, event: AuditEvent) {
        // Those for which it stands are lost with it.
        let events = 1 + event.suppressed;
        if self.items.try_send(Item::Event(Box::new(event))).is_err() {
            self.counts.lose(events);
        }
    }

    pub(super) fn reopen(&self) {
        self.counts.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until all events so far are written or lost, those that were counted only among them,
    /// for at most `time`.
    pub(super) fn flush(&self, time: Duration) {
        let until = Instant::now() + time;
        let (flushed, done) = mpsc::sync_channel(1);
        let mut item = Item::Flushed(flushed);
        while let Err(TrySendError::Full(back)) = self.items.try_send(item) {
            if Instant::now() >= until {
                return;
            }
            item = back;
            std::thread::sleep(FLUSH_RETRY);
        }
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    /// Counts of written and lost events.
    pub(super) fn figures(&self) -> AuditFigures {
        AuditFigures {
            written: self.counts.written.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed),
            suppressed: 0,
        }
    }
}

struct Writer {
    file: AuditFile,
    process: &'static str,
    counts: Arc<Counts>,
    is_failing: bool,
}

/// Lines on their way to the file.
#[derive(Default)]
struct Batch {
    lines: String,
    events: u64,
    /// Events for which those stand.
    suppressed: u64,
}

impl Batch {
    fn push(&mut self, event: &AuditEvent) {
        self.lines.push_str(&event.line());
        self.lines.push('\n');
        self.events += 1;
        self.suppressed += event.suppressed;
    }
}

impl Writer {
    /// Writes until nobody can send any more. After a panic it goes on with the next events: acts
    /// that are only counted would not be missed for long.
    fn run(mut self, waiting: &Receiver<Item>, untold: fn(Untold) -> Vec<AuditEvent>) {
        loop {
            let mut batch = Batch::default();
            match caught_call(|| self.turn(&mut batch, waiting, untold)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(panicked) => {
                    self.counts.lose((batch.events + batch.suppressed).max(1));
                    error!(
                        "the writer of the audit log {panicked}; it goes on; this is a bug in dkv"
                    );
                }
            }
        }
    }

    /// Waits for events and writes them.
    fn turn(
        &mut self,
        batch: &mut Batch,
        waiting: &Receiver<Item>,
        untold: fn(Untold) -> Vec<AuditEvent>,
    ) -> ControlFlow<()> {
        let mut flushed = None;
        let first = match waiting.recv_timeout(TICK) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        for item in first.into_iter().chain(waiting.try_iter()) {
            match item {
                Item::Event(event) => batch.push(&event),
                Item::Flushed(to) => flushed = Some(to),
            }
            if batch.lines.len() >= BATCH_BYTES || flushed.is_some() {
                break;
            }
        }
        let due = if flushed.is_some() { Untold::All } else { Untold::Quiet };
        self.push_untold(batch, untold(due));
        self.write(batch);
        if let Some(to) = flushed {
            let _ = to.send(());
        }
        ControlFlow::Continue(())
    }

    fn push_untold(&self, batch: &mut Batch, untold: Vec<AuditEvent>) {
        for mut event in untold {
            event.who.at.get_or_insert(self.process);
            batch.push(&event);
        }
    }

    /// Writes lines, behind a word on what was lost before them.
    fn write(&mut self, batch: &Batch) {
        if self.counts.reopen.swap(false, Ordering::Relaxed) {
            self.file.reopen();
        }
        let untold = self.counts.untold.load(Ordering::Relaxed);
        let mut lines = String::new();
        if untold > 0 {
            let what = What::new("lost events", untold.to_string());
            let who = Who { at: Some(self.process), ..Who::default() };
            let why = "there was no room in the queue or on the disk".to_owned();
            let event = AuditEvent::new(Kind::Audit, who, what);
            let event = AuditEvent { outcome: Outcome::Failed(why), ..event };
            lines = event.line() + "\n";
        }
        lines.push_str(&batch.lines);
        if lines.is_empty() {
            return;
        }
        let path = self.file.path().display().to_string();
        match self.file.append(lines.as_bytes()) {
            Ok(()) => {
                self.counts.untold.fetch_sub(untold, Ordering::Relaxed);
                let written = batch.events + u64::from(untold > 0);
                self.counts.written.fetch_add(written, Ordering::Relaxed);
                if untold > 0 {
                    warn!(file = path, lost = untold, "events of the audit log were lost");
                }
                if std::mem::take(&mut self.is_failing) {
                    info!(file = path, "the audit log is written again");
                }
            }
            Err(error) => {
                self.counts.lose(batch.events + batch.suppressed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(file = path, %error, "the audit log cannot be written: events are lost");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
