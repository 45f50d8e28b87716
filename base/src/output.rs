//! What a process prints, and what becomes of it when it cannot be written.
//!
//! A disk may be full, a reader may have gone or may not read. `println!` and `eprintln!` panic
//! then, which ends a task or the whole process. Nothing here panics:
//!
//! - [`complain`] writes a line to standard error, if that takes one.
//! - [`say!`](crate::say) writes a line to standard output. If that fails, the process has not done
//!   what it was asked for: the first failure is told on standard error, and [`failed`] says so for
//!   the exit status.
//! - [`Log`] takes a process's log. It is written by a thread of its own, so that no other waits
//!   for whoever should read it; lines that cannot be written are counted, and the count is logged
//!   when they can be again.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

/// Lines of a log that may wait to be written; later ones are lost, and counted.
const LOG_LINES_MAX: usize = 4096;
/// Time that the last lines have to be written when a process ends.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Whether something could not be written to standard output.
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

/// Writes a line to standard output. The first failure is told on standard error; see [`failed`].
pub fn say(line: impl fmt::Display) {
    if let Err(error) = write_line(&mut io::stdout(), &line)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        complain(format_args!("error: cannot write to standard output: {error}"));
    }
}

/// Whether a line could not be written to standard output: the exit status should then be a
/// failure.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Writes a line to standard error. There is nobody to tell if that fails, and nobody waits long
/// for it.
pub fn complain(line: impl fmt::Display) {
    let line = line.to_string();
    within(LAST_WORDS, move || {
        let _ = write_line(&mut io::stderr(), &line);
    });
}

/// Runs what may block for ever, and waits for it for so long.
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
    // In one piece, so that lines of several processes do not mix.
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}

/// A log, as whoever logs sees it: writing to it neither fails nor waits. Clones write to the same.
#[derive(Clone)]
pub struct Log {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Everything before has been written, or counted as lost.
    Flushed(mpsc::Sender<()>),
}

impl Log {
    /// A log on standard error, and the thread that writes it.
    ///
    /// # Errors
    /// If the system gives no thread.
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

    /// Lines that could not be written and that the log has not mentioned yet.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was logged so far is written, but not for long.
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
