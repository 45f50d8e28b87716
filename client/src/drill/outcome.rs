//! What came of a drill, as facts and in words.

use dkv_check::{History, Kind, Options, Outcome as Result_, Report, check};

use super::stage::{Event, Finished};
use super::workload::longest_wait;
use crate::cli::Fault;
use dkv_console::units::{number, plural, time};

/// What came of one drill.
pub(super) struct Outcome {
    pub(super) fault: Fault,
    pub(super) events: Vec<Event>,
    /// When the clients stopped.
    pub(super) end_ns: u64,
    pub(super) history: History,
    pub(super) report: Report,
    /// How long a shard took no writes at most, from when the fault began, and from when.
    pub(super) wait_ns: (u64, u64),
    /// Writes that were acknowledged.
    pub(super) acknowledged: usize,
    /// What is wrong besides what the checkers found.
    pub(super) problems: Vec<String>,
}

impl Outcome {
    /// Judges what the clients saw.
    pub(super) fn judge(fault: Fault, finished: &mut Finished, failure: Option<String>) -> Self {
        let history = std::mem::take(&mut finished.history);
        let report = check(&history, Options::default());
        let begin_ns = finished.events.first().map_or(0, |event| event.at_ns);
        let is_written = |it: &&dkv_check::Operation| matches!(it.outcome, Result_::Written { .. });
        let mut problems: Vec<String> = failure.into_iter().collect();
        problems.append(&mut finished.problems);
        Self {
            fault,
            events: std::mem::take(&mut finished.events),
            end_ns: finished.end_ns,
            wait_ns: longest_wait(&history, begin_ns, finished.end_ns.max(begin_ns)),
            acknowledged: history.operations.iter().filter(is_written).count(),
            report,
            history,
            problems,
        }
    }

    /// Whether all promises were kept.
    pub(super) fn holds(&self) -> bool {
        self.report.holds() && self.problems.is_empty() && self.acknowledged > 0
    }

    /// Its name on the command line.
    pub(super) fn name(&self) -> String {
        name(self.fault)
    }

    /// What came of it, for programs.
    pub(super) fn document(&self) -> serde_json::Value {
        let Report { operations, failed, unknown, keys, findings, .. } = &self.report;
        let stale = self.report.count(Kind::Stale) + self.report.count(Kind::WentBack);
        serde_json::json!({
            "command": "drill",
            "fault": self.name(),
            "held": self.holds(),
            "without_service_ms": self.wait_ns.0 as f64 / 1e6,
            "operations": operations,
            "keys": keys,
            "failed": failed,
            "unknown_outcomes": unknown,
            "writes_acknowledged": self.acknowledged,
            "writes_lost": self.report.count(Kind::Lost),
            "stale_reads": stale,
            "findings": findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }

    /// What came of it, each with a heading.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let Report { operations, failed, unknown, keys, findings, .. } = &self.report;
        let stale = self.report.count(Kind::Stale) + self.report.count(Kind::WentBack);
        let verdict = match (findings.len() as u64, self.report.undecided.len()) {
            (0, 0) => "linearizable, and all revisions agree".to_owned(),
            (0, undecided) => format!("undecided for {undecided} keys"),
            (count, _) => {
                format!("VIOLATED: {count} {}", plural(count, "contradiction", "contradictions"))
            }
        };
        let mut facts = vec![
            ("time without service", time(std::time::Duration::from_nanos(self.wait_ns.0))),
            (
                "operations",
                format!("{} on {} keys", number(*operations as u64), number(*keys as u64)),
            ),
            ("errors", format!("{failed} failed without effect, {unknown} of unknown outcome")),
            ("writes acknowledged", number(self.acknowledged as u64)),
            ("of these lost", self.report.count(Kind::Lost).to_string()),
            ("stale reads", stale.to_string()),
            ("checkers", verdict),
        ];
        facts.extend(self.problems.iter().map(|problem| ("problem", problem.clone())));
        facts
    }
}

/// What came of a drill that could not be held, for programs.
pub(super) fn not_held(fault: Fault, problem: &str) -> serde_json::Value {
    serde_json::json!({
        "command": "drill",
        "fault": name(fault),
        "held": false,
        "problems": [problem],
    })
}

/// The name of a fault on the command line.
pub(super) fn name(fault: Fault) -> String {
    use clap::ValueEnum;
    fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What a fault is, in a sentence.
pub(super) fn story(fault: Fault) -> String {
    use clap::ValueEnum;
    let help =
        fault.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
    help.unwrap_or_default()
}
