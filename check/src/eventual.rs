//! Checks the promises of eventual writes, for the keys that have some.
//!
//! - The last strong read of a key, if it began after all eventual writes of the key were accepted
//!   and delivered, shows the one with the latest stamp: no accepted write is lost.
//! - A write takes effect once: no value is read at two revisions. (So all values must differ.)
//! - A session read shows nothing older than an eventual write of its own client that was accepted
//!   before it began.
//!
//! A write with an unknown outcome has an unknown stamp, and the stamp of a strong write is not
//! recorded; either may be the latest.

use std::collections::{BTreeMap, HashMap};

use crate::finding::{Finding, Kind};
use crate::history::{Action, History, Level, Operation, Outcome};

/// Finds the contradictions to the promises of eventual writes.
pub fn check(history: &History) -> Vec<Finding> {
    let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
    for operation in &history.operations {
        if let Outcome::Accepted { .. } = operation.outcome {
            keys.entry(&operation.key).or_default();
        }
    }
    for (place, operation) in history.operations.iter().enumerate() {
        if let Some(key) = keys.get_mut(operation.key.as_ref()) {
            key.take(place, operation);
        }
    }
    let mut findings = Vec::new();
    for key in keys.values() {
        key.check(&history.operations, &mut findings);
    }
    findings
}

/// All operations on one key.
#[derive(Default)]
struct Key<'a> {
    /// Stamp, index and value of each accepted write; a delete has no value.
    accepted: Vec<(u64, usize, Option<&'a str>)>,
    stamps: HashMap<&'a str, u64>,
    /// Writes with an unknown stamp, by value.
    others: HashMap<Option<&'a str>, usize>,
    reads: Vec<usize>,
    revisions: HashMap<&'a str, (u64, usize)>,
    twice: Vec<[usize; 2]>,
}

impl<'a> Key<'a> {
    fn take(&mut self, place: usize, operation: &'a Operation) {
        let value = match &operation.action {
            Action::Get(_) => return self.take_read(place, operation),
            Action::Put { value, .. } => Some(value.as_ref()),
            Action::Delete(_) => None,
        };
        match operation.outcome {
            Outcome::Accepted { stamp } => {
                self.accepted.push((stamp, place, value));
                if let Some(value) = value {
                    self.stamps.insert(value, stamp);
                }
            }
            // The delete of an absent key suppresses earlier writes, as any delete does.
            Outcome::Unknown | Outcome::Written { .. } | Outcome::Absent { .. } => {
                self.others.insert(value, place);
            }
            _ => {}
        }
    }

    fn take_read(&mut self, place: usize, operation: &'a Operation) {
        self.reads.push(place);
        if let Outcome::Value { value, revision: Some(revision) } = &operation.outcome {
            let (first, other) = *self.revisions.entry(value).or_insert((*revision, place));
            if first != *revision {
                self.twice.push([other, place]);
            }
        }
    }

    fn check(&self, operations: &[Operation], findings: &mut Vec<Finding>) {
        for places in &self.twice {
            let text = "a write was done twice: its value has two revisions".to_owned();
            findings.push(Finding::new(Kind::Twice, text, operations, places));
        }
        self.check_last(operations, findings);
        self.check_sessions(operations, findings);
    }

    /// Checks that the last read shows the latest write.
    fn check_last(&self, operations: &[Operation], findings: &mut Vec<Finding>) {
        let strong = |place: &&usize| operations[**place].action == Action::Get(Level::Strong);
        let answered = |place: &&usize| {
            matches!(operations[**place].outcome, Outcome::Value { .. } | Outcome::Absent { .. })
        };
        let reads = self.reads.iter().filter(strong).filter(answered);
        let Some(&read) = reads.max_by_key(|place| operations[**place].start_ns) else { return };
        let Some((latest, _, _)) = self.accepted.iter().max() else { return };
        let begun_ns = operations[read].start_ns;
        if self.accepted.iter().any(|(_, place, _)| operations[*place].end_ns > begun_ns) {
            return;
        }
        let shown = match &operations[read].outcome {
            Outcome::Value { value, .. } => Some(value.as_ref()),
            _ => None,
        };
        let mut winners = self.accepted.iter().filter(|(stamp, ..)| stamp == latest);
        let is_winner = winners.any(|(_, _, value)| *value == shown);
        if !is_winner && !self.others.contains_key(&shown) {
            let winners = self.accepted.iter().filter(|(stamp, ..)| stamp == latest);
            let places: Vec<usize> = winners.map(|(_, place, _)| *place).chain([read]).collect();
            let text = "the latest eventual write is not there, and nothing later is".to_owned();
            findings.push(Finding::new(Kind::Lost, text, operations, &places));
        }
    }

    /// Checks that session reads show what their client had written.
    fn check_sessions(&self, operations: &[Operation], findings: &mut Vec<Finding>) {
        for &place in &self.reads {
            let read = &operations[place];
            if read.action != Action::Get(Level::Session) {
                continue;
            }
            let own = self.accepted.iter().filter(|(_, written, _)| {
                operations[*written].client == read.client
                    && operations[*written].end_ns < read.start_ns
            });
            let Some((least, written, _)) = own.max() else { continue };
            let shown = match &read.outcome {
                Outcome::Value { value, .. } => self.stamps.get(value.as_ref()).copied(),
                Outcome::Absent { .. } if self.others.contains_key(&None) => None,
                Outcome::Absent { .. } => {
                    let deletes = self.accepted.iter().filter(|(_, _, value)| value.is_none());
                    Some(deletes.map(|(stamp, ..)| *stamp).max().unwrap_or_default())
                }
                _ => None,
            };
            if shown.is_some_and(|stamp| stamp < *least) {
                let text = "a session does not show what its client wrote".to_owned();
                let places = [*written, place];
                findings.push(Finding::new(Kind::WentBack, text, operations, &places));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Kind> {
        let history = History::read(text.as_bytes()).unwrap();
        check(&history).into_iter().map(|finding| finding.kind).collect()
    }

    const TWO: &str = r#"
        {"client":1,"key":"k","op":"put","value":"a","start_ns":0,"end_ns":10,"result":"accepted","stamp":7}
        {"client":2,"key":"k","op":"put","value":"b","start_ns":0,"end_ns":10,"result":"accepted","stamp":5}
    "#;

    fn with(line: &str) -> Vec<Kind> {
        findings(&format!("{TWO}\n{line}"))
    }

    #[test]
    fn the_latest_stays() {
        let read = |value: &str| {
            with(&format!(
                r#"{{"client":3,"key":"k","op":"get","start_ns":20,"end_ns":30,"result":"ok","value":"{value}","revision":4}}"#
            ))
        };
        assert_eq!(read("a"), []);
        assert_eq!(read("b"), [Kind::Lost]);
        let gone =
            r#"{"client":3,"key":"k","op":"get","start_ns":20,"end_ns":30,"result":"absent"}"#;
        assert_eq!(with(gone), [Kind::Lost]);
        let maybe = r#"{"client":3,"key":"k","op":"delete","start_ns":1,"result":"unknown"}"#;
        assert_eq!(with(&format!("{maybe}\n{gone}")), []);
        let early =
            r#"{"client":3,"key":"k","op":"get","start_ns":5,"end_ns":30,"result":"absent"}"#;
        assert_eq!(with(early), [], "it began before they were accepted");
    }

    #[test]
    fn once_is_once() {
        let read = |revision| {
            format!(
                r#"{{"client":3,"key":"k","op":"get","level":"eventual","start_ns":20,"end_ns":30,"result":"ok","value":"a","revision":{revision}}}"#
            )
        };
        assert_eq!(with(&format!("{}\n{}", read(4), read(4))), []);
        assert_eq!(with(&format!("{}\n{}", read(4), read(6))), [Kind::Twice]);
    }

    #[test]
    fn a_session_shows_its_own() {
        let read = |client, value| {
            with(&format!(
                r#"{{"client":{client},"key":"k","op":"get","level":"session","start_ns":20,"end_ns":30,"result":"ok","value":"{value}"}}"#
            ))
        };
        assert_eq!(read(1, "a"), []);
        assert_eq!(read(1, "b"), [Kind::WentBack]);
        assert_eq!(read(2, "a"), [], "a later one is no older");
        assert_eq!(read(3, "b"), []);
    }
}
