//! Progress: a bar on a terminal, and nothing in a pipe.

use std::io::IsTerminal;

use dkv_backup::Progress;
use dkv_console::Console;
use dkv_console::units::{bytes, number};
use indicatif::{ProgressBar, ProgressStyle};

use super::ago;

/// A bar for a long command.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    doing: &'static str,
    through_ms: Option<u64>,
    changes: u64,
    written: u64,
}

impl Bar {
    pub(super) fn new(doing: &'static str, silent: bool) -> Self {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(doing);
            bar.enable_steady_tick(std::time::Duration::from_millis(200));
            bar
        });
        Self { bar, doing, through_ms: None, changes: 0, written: 0 }
    }

    /// Shows an event; notes are shown without a terminal too.
    pub(super) fn show(&mut self, event: Progress, console: &mut Console) {
        match event {
            Progress::Note(note) => match &self.bar {
                Some(bar) => bar.suspend(|| console.note(&note)),
                None => console.note(&note),
            },
            Progress::Keys { keyspace, keys, bytes: done, bytes_of } => {
                let Some(bar) = &self.bar else { return };
                if bytes_of > 0 && bar.length().is_none() {
                    let template = "{prefix} {wide_bar} {msg}  {eta} left";
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        bar.set_style(style.progress_chars("━━─"));
                    }
                }
                if bytes_of > 0 {
                    bar.set_length(bytes_of.max(done));
                }
                bar.set_prefix(format!("{} {keyspace}", self.doing));
                bar.set_position(done);
                bar.set_message(format!("{} keys, {}", number(keys), bytes(done)));
            }
            Progress::Followed { through_ms, changes, bytes: written } => {
                self.through_ms = self.through_ms.max(Some(through_ms));
                (self.changes, self.written) = (self.changes + changes, self.written + written);
                let Some(bar) = &self.bar else { return };
                if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.unset_length();
                bar.set_prefix(self.doing);
                bar.set_message(format!(
                    "{} behind; {} records, {} written",
                    ago(through_ms),
                    number(self.changes),
                    bytes(self.written)
                ));
            }
            _ => {}
        }
    }

    /// Returns until when a followed backup has everything.
    pub(super) fn through(&self) -> Option<u64> {
        self.through_ms
    }

    /// Removes the bar.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
