//! Checks that no answer is older than it says.
//!
//! An answer with an age shows every write that was acknowledged at least that long before the
//! question. A node measures the age by its own clock, so answers are not judged once a clock has
//! stood still or drifted.

use std::collections::BTreeMap;

/// The acknowledged writes, and the answers that do not show them.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    /// Tick and revision of each acknowledged write of a key.
    written: BTreeMap<String, Vec<(u64, u64)>>,
    clocks_were_wrong: bool,
    too_old: Vec<String>,
}

impl Staleness {
    /// Notes that a clock has been wrong.
    pub(super) fn clocks_were_wrong(&mut self) {
        self.clocks_were_wrong = true;
    }

    /// Returns whether a clock has been wrong.
    pub(super) fn clocks_are_wrong(&self) -> bool {
        self.clocks_were_wrong
    }

    /// Notes that a write was acknowledged in that tick.
    pub(super) fn wrote(&mut self, key: &str, now: u64, revision: u64) {
        self.written.entry(key.to_owned()).or_default().push((now, revision));
    }

    /// Notes the answer to a question of that tick: its age, and the revision of the value or the
    /// shard.
    pub(super) fn read(&mut self, key: &str, begun: u64, age_ms: u64, revision: u64) {
        // A node rounds the age down to whole milliseconds.
        let Some(complete) = begun.checked_sub(age_ms.saturating_add(1)) else { return };
        let shown = |written: &&(u64, u64)| written.0 < complete && written.1 > revision;
        let missing = self.written.get(key).and_then(|writes| writes.iter().find(shown));
        if let (Some((at, newer)), false) = (missing, self.clocks_were_wrong) {
            self.too_old.push(format!(
                "{key} was read in tick {begun} at revision {revision}, at most {age_ms} ms old, and \
                 revision {newer} was acknowledged in tick {at}"
            ));
        }
    }

    /// Returns the answers that were older than they said.
    pub(super) fn too_old(&self) -> &[String] {
        &self.too_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_show_what_is_older_than_it_says() {
        let mut staleness = Staleness::default();
        staleness.wrote("key", 100, 7);
        for (begun, age_ms, revision) in [(101, 0, 6), (600, 500, 6), (600, 0, 7), (600, 5000, 0)] {
            staleness.read("key", begun, age_ms, revision);
            assert!(staleness.too_old().is_empty(), "{:?}", staleness.too_old());
        }
        staleness.read("another", 600, 0, 0);
        staleness.read("key", 600, 400, 6);
        assert_eq!(staleness.too_old().len(), 1);
        staleness.clocks_were_wrong();
        staleness.read("key", 600, 400, 6);
        assert_eq!(staleness.too_old().len(), 1);
    }
}
