//! Standard output, standard error and the log, written without panics.
//!
//! The disk may be full, the reader of a pipe may be gone or not reading. `println!` and
//! `eprintln!` panic then, which ends a task or the whole process. Nothing in this module panics:
//!
//! - [`complain`] writes a line to standard error, on a best-effort basis.
//! - [`say!`](crate::say) writes a line to standard output. If that fails, the process has not done
//!   its job: the first failure is reported on standard error, and [`failed`] tells it for the exit
//!   status.
//! - [`Log`] takes the log of a process. A separate thread writes it, so that no other thread waits
//!   for a slow reader. Lines that cannot be written are counted, and the count is logged once
//!   writing works again. Lines about what administrators do have room of their own.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::supervise::caught_call;
use crate::sync::lock;

/// Lines of a log that may wait to be written; more are dropped and counted.
const LOG_LINES_MAX: usize = 4096;
/// The same for [lines that a flood of others does not push out](Log::kept).
const KEPT_LINES_MAX: usize = 1024;
/// Time for writing the last lines when a process ends.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Whether a write to standard output has failed.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard output, as `println!` does; see [`output`](crate::output).
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::output::say(format_args!($($part)*)) };
}

/// Writes a line to standard error, as `eprintln!` does; see [`output`](crate::output).
#[macro_export]
macro_rules! complain {
    ($($part:tt)*) => { $crate::output::complain(format_args!($($part)*)) };
}

/// Writes a line to standard output. Reports the first failure on standard error; see [`failed`].
pub fn say(line: impl fmt::Display) {
    if let Err(error) = write_line(&mut io::stdout(), &line)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        complain(format_args!("error: cannot write to standard output: {error}"));
    }
}

/// Whether a write to standard output has failed. The exit status should then be a failure.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Writes a line to standard error. Ignores failures, and waits for 250 ms at most.
pub fn complain(line: impl fmt::Display) {
    let line = line.to_string();
    within(LAST_WORDS, move || {
        let _ = write_line(&mut io::stderr(), &line);
    });
}

/// Runs `work`, which may block for ever, on a separate thread and waits for it for at most `time`.
fn within(time: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let started = std::thread::Builder::new().name("output".into()).spawn(move || {
        work();
        let _ = done.send(());
    });
    if started.is_ok() {
        let _ = ended.recv_timeout(time);
    }
}

fn write_line(to: &mut impl Write, line: &impl fmt::Display) -> io::Result<()> {
    // In one write, so that lines of several processes do not mix.
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}

/// A log whose writes neither fail nor block. Clones write to the same log.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

/// Writes a line to a log that a flood of other lines does not push out: some room is for such
/// lines alone.
pub struct KeptLine<'a>(&'a Log);

/// Ends the thread that writes the log once its last clone is dropped.
struct Handle(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// How many of the lines have no room of their own, and how many have.
    plain: usize,
    kept: usize,
    /// Whether no more will come.
    ended: bool,
}

enum Line {
    Plain(Vec<u8>),
    Kept(Vec<u8>),
    /// Asks for a signal once all earlier lines are written or counted as lost.
    Flushed(mpsc::Sender<()>),
}

impl Log {
    /// Opens a log on standard error and starts the thread that writes it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn to_stderr() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let log = Self(Arc::new(Handle(Arc::clone(&queue))));
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || write_lines(output, &queue))?;
        Ok(log)
    }

    /// Returns a writer of lines that a flood of other lines does not push out.
    pub fn kept(&self) -> KeptLine<'_> {
        KeptLine(self)
    }

    /// Number of lines that were lost and that the log has not reported yet.
    pub fn lost(&self) -> u64 {
        self.0.0.lost.load(Ordering::Relaxed)
    }

    /// Waits until all lines so far are written, for 250 ms at most.
    pub fn flush(&self) {
        let (flushed, done) = mpsc::channel();
        self.0.0.push(Line::Flushed(flushed));
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.0.push(Line::Plain(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for KeptLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.0.0.push(Line::Kept(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0.waiting).ended = true;
        self.0.arrived.notify_one();
    }
}

impl Queue {
    /// Adds a line, or counts it as lost if there is no room for it.
    fn push(&self, line: Line) {
        let mut waiting = lock(&self.waiting);
        let has_room = match &line {
            Line::Plain(_) => take_place(&mut waiting.plain, LOG_LINES_MAX),
            Line::Kept(_) => take_place(&mut waiting.kept, KEPT_LINES_MAX),
            Line::Flushed(_) => true,
        };
        if has_room {
            waiting.lines.push_back(line);
            self.arrived.notify_one();
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the next line. `None` once no more will come.
    fn next(&self) -> Option<Line> {
        let waiting = lock(&self.waiting);
        let none_yet = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.ended;
        let waited = self.arrived.wait_while(waiting, none_yet);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
        let line = waiting.lines.pop_front();
        match &line {
            Some(Line::Plain(_)) => waiting.plain -= 1,
            Some(Line::Kept(_)) => waiting.kept -= 1,
            Some(Line::Flushed(_)) | None => {}
        }
        line
    }
}

/// Takes one of so many places, if one is free.
fn take_place(taken: &mut usize, most: usize) -> bool {
    let is_free = *taken < most;
    *taken += usize::from(is_free);
    is_free
}

fn write_lines(mut output: impl Write, queue: &Queue) {
    while let Some(line) = queue.next() {
        let text = match line {
            Line::Plain(text) | Line::Kept(text) => text,
            Line::Flushed(flushed) => {
                let _ = flushed.send(());
                continue;
            }
        };
        let before = queue.lost.load(Ordering::Relaxed);
        let note = match before {
            0 => String::new(),
            1 => "1 line of the log could not be written\n".to_owned(),
            _ => format!("{before} lines of the log could not be written\n"),
        };
        // A panic is one more line that was lost: the thread lives as long as the process.
        let written = caught_call(|| {
            output.write_all(note.as_bytes())?;
            queue.lost.fetch_sub(before, Ordering::Relaxed);
            output.write_all(&text).and_then(|()| output.flush())
        });
        if !matches!(written, Ok(Ok(()))) {
            queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
