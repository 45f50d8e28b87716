//! How far it is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use dkv_base::output::Log;
use indicatif::{ProgressBar, ProgressStyle};

use super::Task;
use crate::human::number;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The progress of a file.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Where lines go, unless nobody is to hear of it.
    lines: Option<Log>,
    doing: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins at nothing.
    pub(super) fn new(task: Task, total: u64, silent: bool) -> Self {
        let doing = match task {
            Task::Load => "loading",
            Task::Verify => "verifying",
        };
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total);
            let template = "{prefix:<9} {wide_bar} {msg}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar.set_prefix(doing);
            bar
        });
        let now = Instant::now();
        let lines = if silent || bar.is_some() { None } else { Log::to_stderr().ok() };
        Self { bar, lines, doing, total, done: 0, started: now, last_line: now }
    }

    /// So many records are done.
    pub(super) fn step(&mut self, done: u64, retries: u64) {
        self.done = done;
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-6);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            let retried = match retries {
                0 => String::new(),
                retries => format!("  {} retried", number(retries)),
            };
            bar.set_message(format!(
                "{} of {}  {}/s{retried}",
                number(done),
                number(self.total),
                number(rate as u64)
            ));
        } else if self.lines.is_some() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = done * 100 / self.total.max(1);
            let line = format!(
                "{}: {} of {} records ({percent}%), {}/s, {retries} retried\n",
                self.doing,
                number(done),
                number(self.total),
                number(rate as u64)
            );
            // By a thread of its own: whoever does not read it holds nothing up.
            if let Some(lines) = &mut self.lines {
                let _ = lines.write_all(line.as_bytes());
            }
        }
    }

    /// Does something with the terminal while the bar is not on it.
    pub(super) fn suspend(&self, act: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(act),
            None => act(),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
