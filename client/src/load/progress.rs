//! Progress: a bar on a terminal, otherwise a line now and then.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use dkv_base::output::Log;
use dkv_console::units::number;
use indicatif::{ProgressBar, ProgressStyle};

use super::Task;

/// Time between two lines if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The progress of a file.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Output of lines, unless a bar shows the progress or the caller wants none.
    lines: Option<Log>,
    doing: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts at zero.
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

    /// Shows the number of finished records.
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
            // Its own thread writes the line, so that a blocked reader delays nothing.
            if let Some(lines) = &mut self.lines {
                let _ = lines.write_all(line.as_bytes());
            }
        }
    }

    /// Runs a function while the bar is off the terminal.
    pub(super) fn suspend(&self, act: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(act),
            None => act(),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
