//! Anomalies in words.

use std::fmt::Write;

use super::cycles::{Cycle, Dependency};
use super::graph::{READ_WRITE, REAL_TIME, WRITE_READ, WRITE_WRITE};
use super::lists::Lists;
use crate::finding::{Finding, Kind};
use crate::history::{Fate, ListOperation, Transaction};

/// Elements of a list that are shown: its last ones.
const ELEMENTS_SHOWN: usize = 6;
/// Transactions of a cycle that are shown.
const STEPS_SHOWN: usize = 12;

/// Explains a cycle.
pub(super) fn cycle(transactions: &[Transaction], lists: &Lists<'_>, cycle: &Cycle) -> Finding {
    let steps = &cycle.steps;
    let text = format!(
        "{}: {} transactions, each of which must come before the next, and the last before the \
         first",
        cycle.anomaly.name(),
        steps.len()
    );
    let mut lines = Vec::new();
    for (at, step) in steps.iter().enumerate().take(STEPS_SHOWN) {
        let next = steps[(at + 1) % steps.len()].transaction;
        lines.push(shown(transactions, step.transaction));
        lines.push(format!("    comes before #{next}, which {}", because(lists, step)));
    }
    if steps.len() > STEPS_SHOWN {
        lines.push(format!("and {} more", steps.len() - STEPS_SHOWN));
    }
    Finding::of_lines(Kind::Anomaly(cycle.anomaly), text, lines)
}

fn because(lists: &Lists<'_>, step: &Dependency) -> String {
    let key = lists.keys.get(step.key as usize).map_or("", |key| key.name);
    match step.kind {
        WRITE_WRITE => format!("wrote {key:?} after it"),
        WRITE_READ => format!("read what it wrote to {key:?}"),
        READ_WRITE => format!("wrote {key:?} after the version that it read"),
        REAL_TIME => "began after it was answered".to_owned(),
        _ => "has a later revision".to_owned(),
    }
}

/// Shows a transaction in a line.
pub(super) fn shown(transactions: &[Transaction], place: usize) -> String {
    let Transaction { client, start_ns, end_ns, result, ops, .. } = &transactions[place];
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut line = format!("#{place}  {:.3} ms to ", ms(*start_ns));
    // Writing to a string cannot fail.
    let _ = match end_ns {
        Some(end_ns) => write!(line, "{:.3} ms", ms(*end_ns)),
        None => write!(line, "?"),
    };
    let _ = write!(line, "  client {client}  ");
    for (at, operation) in ops.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = match operation {
            ListOperation::Append(key, element) => write!(line, "{comma}append {key} {element}"),
            ListOperation::Put(key, element) => write!(line, "{comma}put {key} {element}"),
            ListOperation::Read(key, None) => write!(line, "{comma}read {key}"),
            ListOperation::Read(key, Some(list)) => {
                let left_out = list.len().saturating_sub(ELEMENTS_SHOWN);
                let dots = if left_out > 0 { "… " } else { "" };
                write!(line, "{comma}read {key} [{dots}{}]", list[left_out..].join(" "))
            }
        };
    }
    line + match result {
        Fate::Ok => " -> done",
        Fate::Failed => " -> failed",
        Fate::Unknown => " -> unknown",
    }
}
