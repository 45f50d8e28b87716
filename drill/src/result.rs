//! The result of a drill: its facts and its verdict.

use dkv_check::{Finding, History, Kind, Options, Outcome, Report, check};
use dkv_console::units::{duration, number, plural};

use crate::error::DrillError;
use crate::fault::Fault;
use crate::testbed::{Event, FinishedRun};
use crate::workload::{Followed, Tenancies, longest_wait};

/// The result of one drill.
pub struct DrillResult {
    pub(crate) fault: Fault,
    pub(crate) events: Vec<Event>,
    /// When the clients stopped.
    pub(crate) end_ns: u64,
    pub(crate) history: History,
    /// What the watcher saw.
    pub(crate) followed: Followed,
    /// What the tenants did.
    pub(crate) tenancies: Tenancies,
    pub(crate) report: Report,
    /// The longest time in which a shard acknowledged no write after the fault began, and its
    /// start.
    pub(crate) wait_ns: (u64, u64),
    /// Number of acknowledged writes.
    pub(crate) acknowledged: usize,
    /// Problems besides the findings of the checkers.
    pub(crate) problems: Vec<String>,
}

impl DrillResult {
    /// Judges the history that the clients recorded.
    pub(crate) fn judge(
        fault: Fault,
        finished: &mut FinishedRun,
        failure: Option<&DrillError>,
    ) -> Self {
        let history = std::mem::take(&mut finished.history);
        let report = check(&history, Options::default());
        let begin_ns = finished.events.first().map_or(0, |event| event.at_ns);
        let is_written = |it: &&dkv_check::Operation| matches!(it.outcome, Outcome::Written { .. });
        let mut problems: Vec<String> = failure.iter().map(ToString::to_string).collect();
        problems.append(&mut finished.problems);
        Self {
            fault,
            events: std::mem::take(&mut finished.events),
            end_ns: finished.end_ns,
            wait_ns: longest_wait(&history, begin_ns, finished.end_ns.max(begin_ns)),
            acknowledged: history.operations.iter().filter(is_written).count(),
            report,
            history,
            followed: finished.followed,
            tenancies: finished.tenancies,
            problems,
        }
    }

    /// Returns whether the network kept all promises.
    pub fn holds(&self) -> bool {
        self.report.holds() && self.problems.is_empty() && self.acknowledged > 0
    }

    /// Its name on the command line.
    pub fn name(&self) -> String {
        self.fault.name()
    }

    /// Returns the JSON document.
    pub(crate) fn document(&self) -> serde_json::Value {
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
            "transactions": self.report.transactions,
            "transactions_of_unknown_outcome": self.report.transactions_unknown,
            "changes_watched": self.followed.changes,
            "watch_resumed": self.followed.resumed,
            "replay_equals_scan": self.followed.is_equal,
            "leases_ended": self.tenancies.leases,
            "locks_held": self.tenancies.locks,
            "findings": findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }

    fn transactions(&self) -> String {
        let Report { transactions, transactions_unknown: unknown, .. } = &self.report;
        let is_anomaly = |it: &&Finding| matches!(it.kind, Kind::Anomaly(_));
        let verdict = match self.report.findings.iter().filter(is_anomaly).count() {
            0 => "strictly serializable",
            _ => "NOT strictly serializable",
        };
        format!("{}, {unknown} of unknown outcome; {verdict}", number(*transactions as u64))
    }

    fn watch(&self) -> String {
        let Followed { changes, resumed, is_equal } = self.followed;
        let verdict =
            if is_equal { "its replay equals a scan" } else { "its replay is NOT a scan" };
        format!("{} changes, resumed {resumed} times; {verdict}", number(changes))
    }

    fn leases(&self) -> String {
        let Tenancies { leases, locks } = self.tenancies;
        let is_early = |it: &&Finding| matches!(it.kind, Kind::LeaseEarly | Kind::LeaseRevived);
        let early = match self.report.findings.iter().filter(is_early).count() {
            0 => "none early".to_owned(),
            count => format!("{count} EARLY"),
        };
        format!("{} ended, {early}; the lock was held {} times", number(leases), number(locks))
    }

    /// Returns the facts, each with a heading.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
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
            ("time without service", duration(std::time::Duration::from_nanos(self.wait_ns.0))),
            (
                "operations",
                format!("{} on {} keys", number(*operations as u64), number(*keys as u64)),
            ),
            ("errors", format!("{failed} failed without effect, {unknown} of unknown outcome")),
            ("writes acknowledged", number(self.acknowledged as u64)),
            ("of these lost", self.report.count(Kind::Lost).to_string()),
            ("stale reads", stale.to_string()),
            ("transactions", self.transactions()),
            ("watch", self.watch()),
            ("leases", self.leases()),
            ("checkers", verdict),
        ];
        facts.extend(self.problems.iter().map(|problem| ("problem", problem.clone())));
        facts
    }
}

/// A drill that could not be held.
#[derive(Debug)]
pub struct Unheld {
    /// The fault that was not injected.
    pub fault: Fault,
    /// The reason, in one sentence.
    pub problem: String,
    /// Whether the machine lacks something, and all drills were wanted: the others count.
    pub is_excused: bool,
}

impl Unheld {
    /// Returns the JSON document.
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "command": "drill",
            "fault": self.fault.name(),
            "held": false,
            "skipped": self.is_excused,
            "problems": [self.problem],
        })
    }
}

/// Returns whether drills count as a success: one was held at least, the network kept all promises
/// in each, and no drill is missing that this machine could have held.
pub fn succeeds(results: &[DrillResult], unheld: &[Unheld]) -> bool {
    let all_hold = !results.is_empty() && results.iter().all(DrillResult::holds);
    all_hold && unheld.iter().all(|drill| drill.is_excused)
}
