//! Progress: a bar on a terminal, and nothing in a pipe.

use std::collections::BTreeMap;
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
    reach: Reach,
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
        Self { bar, doing, reach: Reach::default(), changes: 0, written: 0 }
    }

    /// Shows an event; notes are shown without a terminal too.
    pub(super) fn show(&mut self, event: Progress, console: &mut Console) {
        self.reach.take(&event);
        match event {
            Progress::Note(note) => match &self.bar {
                Some(bar) => bar.suspend(|| console.remark(&note)),
                None => console.remark(&note),
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
            Progress::Followed { through_ms, changes, bytes: written, .. } => {
                let through_ms = self.reach.through().0.unwrap_or(through_ms);
                (self.changes, self.written) = (self.changes + changes, self.written + written);
                let Some(bar) = &self.bar else { return };
                if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.unset_length();
                bar.set_prefix(self.doing);
                bar.set_message(self.behind(through_ms));
            }
            _ => {}
        }
    }

    /// Shows how far behind a followed backup is by now.
    pub(super) fn age(&self) {
        let (Some(bar), (Some(through_ms), _)) = (&self.bar, self.reach.through()) else { return };
        // Until it follows, the bar shows keys.
        if bar.length().is_none() {
            bar.set_message(self.behind(through_ms));
        }
    }

    fn behind(&self, through_ms: u64) -> String {
        let (changes, written) = (number(self.changes), bytes(self.written));
        format!("{} behind; {changes} records, {written} written", ago(through_ms))
    }

    /// Writes to the console while the bar is hidden.
    pub(super) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Returns how far a followed backup reaches.
    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Removes the bar.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a followed backup reaches, of the keyspaces that are followed.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// `None` until there is a moment that can be restored, as far as this process knows.
    through_ms: BTreeMap<String, Option<u64>>,
}

impl Reach {
    fn take(&mut self, event: &Progress) {
        match event {
            Progress::FollowBegan { keyspace } => {
                self.through_ms.insert(keyspace.clone(), None);
            }
            Progress::FollowEnded { keyspace } => {
                self.through_ms.remove(keyspace);
            }
            Progress::Followed { keyspace, through_ms, .. } => {
                self.through_ms.insert(keyspace.clone(), Some(*through_ms));
            }
            _ => {}
        }
    }

    /// Returns until when the backup has everything of all keyspaces, without those of which it has
    /// no moment yet, and the names of these.
    pub(super) fn through(&self) -> (Option<u64>, Vec<&str>) {
        let without = self.through_ms.iter().filter(|(_, ms)| ms.is_none());
        let least = self.through_ms.values().flatten().min();
        (least.copied(), without.map(|(name, _)| name.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_reaches_as_far_as_its_last_keyspace() {
        let mut reach = Reach::default();
        assert_eq!(reach.through(), (None, vec![]));
        let name = |keyspace: &str| keyspace.to_owned();
        let followed = |keyspace: &str, through_ms| {
            let keyspace = keyspace.to_owned();
            Progress::Followed { keyspace, through_ms, changes: 0, bytes: 0 }
        };
        for keyspace in ["a", "b", "c"] {
            reach.take(&Progress::FollowBegan { keyspace: name(keyspace) });
        }
        for event in [followed("a", 5), followed("b", 7), followed("b", 9)] {
            reach.take(&event);
        }
        assert_eq!(reach.through(), (Some(5), vec!["c"]));
        reach.take(&followed("c", 8));
        reach.take(&Progress::FollowEnded { keyspace: name("a") });
        assert_eq!(reach.through(), (Some(8), vec![]));
    }
}
