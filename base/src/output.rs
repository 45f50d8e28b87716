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
//!   writing works again.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

/// Lines of a log that may wait to be written; more are dropped and counted.
const LOG_LINES_MAX: usize = 4096;
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
pub struct Log {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
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
        let (lines, waiting) = mpsc::sync_channel(LOG_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || write_lines(output, &waiting, &count))?;
        Ok(Self { lines, lost })
    }

    /// Number of lines that were lost and that the log has not reported yet.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all lines so far are written, for 250 ms at most.
    pub fn flush(&self) {
        let (flushed, done) = mpsc::channel();
        if self.lines.try_send(Line::Flushed(flushed)).is_ok() {
            let _ = done.recv_timeout(LAST_WORDS);
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(mut output: impl Write, lines: &Receiver<Line>, lost: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        let text = match line {
            Line::Text(text) => text,
            Line::Flushed(flushed) => {
                let _ = flushed.send(());
                continue;
            }
        };
        let before = lost.load(Ordering::Relaxed);
        let note = match before {
            0 => String::new(),
            1 => "1 line of the log could not be written\n".to_owned(),
            _ => format!("{before} lines of the log could not be written\n"),
        };
        let written = output.write_all(note.as_bytes()).and_then(|()| {
            lost.fetch_sub(before, Ordering::Relaxed);
            output.write_all(&text).and_then(|()| output.flush())
        });
        if written.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
