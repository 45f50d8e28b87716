//! Runs every checker over a history and sums up what they found.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::finding::{Finding, Kind};
use crate::history::{Action, Fate, History, Level, Operation, Outcome, Transaction};
use crate::linear::{Call, Verdict, contradiction, search};
use crate::options::Options;
use crate::register::{Register, Step};
use crate::{eventual, leases, revisions, transactions, watches};

/// The result of checking a history.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Number of operations.
    pub operations: usize,
    /// Number of operations with an unknown outcome.
    pub unknown: usize,
    /// Number of operations that failed without an effect.
    pub failed: usize,
    /// Number of keys.
    pub keys: usize,
    /// Number of transactions.
    pub transactions: usize,
    /// Number of transactions with an unknown outcome.
    pub transactions_unknown: usize,
    /// Number of notes of watchers.
    pub watch_events: usize,
    /// Number of reads at revisions, and of lists of versions.
    pub past_reads: usize,
    /// Number of calls that concern leases.
    pub lease_events: usize,
    /// All contradictions.
    pub findings: Vec<Finding>,
    /// Keys on which the search gave up.
    pub undecided: Vec<Arc<str>>,
}

impl Report {
    /// Whether there is no contradiction and no undecided key.
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.undecided.is_empty()
    }

    /// Number of findings of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }
}

/// Runs all checkers over a history.
pub fn check(history: &History, options: Options) -> Report {
    let mut findings = revisions::check(history, options);
    findings.extend(eventual::check(history));
    findings.extend(transactions::check(&history.transactions));
    findings.extend(watches::check(history));
    let late_ns_max = options.lease_late_ms_max.map(|ms| ms.saturating_mul(1_000_000));
    findings.extend(leases::check(history, late_ns_max));
    let is_unknown = |transaction: &&Transaction| transaction.result == Fate::Unknown;
    let unknown = |operation: &&Operation| operation.outcome == Outcome::Unknown;
    let failed = |operation: &&Operation| operation.outcome == Outcome::Failed;
    let mut report = Report {
        operations: history.operations.len(),
        unknown: history.operations.iter().filter(unknown).count(),
        failed: history.operations.iter().filter(failed).count(),
        transactions: history.transactions.len(),
        transactions_unknown: history.transactions.iter().filter(is_unknown).count(),
        watch_events: history.watches.len(),
        past_reads: history.past_reads.len() + history.version_lists.len(),
        lease_events: history.leases.len(),
        findings,
        ..Report::default()
    };
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, operation) in history.operations.iter().enumerate() {
        keys.entry(&operation.key).or_default().push(place);
    }
    report.keys = keys.len();
    let first = if options.any_start { Register::ANY } else { Register::ABSENT };
    for places in keys.into_values() {
        // Eventual writes are ordered by their stamps and checked by `eventual`.
        let accepted =
            |place: &usize| matches!(history.operations[*place].outcome, Outcome::Accepted { .. });
        if places.iter().any(accepted) {
            continue;
        }
        let (places, calls) = calls(&history.operations, &places);
        match search(&calls, first) {
            Verdict::Explained => {}
            Verdict::Undecided => {
                let key = places.first().map(|place| &history.operations[*place].key);
                report.undecided.extend(key.map(Arc::clone));
            }
            Verdict::Unexplained => {
                let core = contradiction(&calls, first);
                let core: Vec<usize> = core.into_iter().map(|place| places[place]).collect();
                let text = "no order explains these operations, whatever happened before".into();
                report.findings.push(Finding::new(
                    Kind::NotLinearizable,
                    text,
                    &history.operations,
                    &core,
                ));
            }
        }
    }
    report
}

/// The operations of one key that reveal or change something, with their indices in the history.
fn calls(operations: &[Operation], places: &[usize]) -> (Vec<usize>, Vec<Call>) {
    let mut values: HashMap<&str, u32> = HashMap::new();
    let mut number = |value| {
        let next = values.len() as u32;
        *values.entry(value).or_insert(next)
    };
    let mut found = (Vec::new(), Vec::new());
    for place in places {
        let operation = &operations[*place];
        if !operation.counts()
            || matches!(operation.action, Action::Get(Level::Eventual | Level::Session))
        {
            continue;
        }
        let (value, condition) = match &operation.action {
            Action::Get(_) => (None, Default::default()),
            Action::Put { value, condition } => (Some(number(value)), *condition),
            Action::Delete(condition) => (None, *condition),
        };
        let step = match &operation.outcome {
            Outcome::Written { revision, existed } => {
                Step::Wrote { value, condition, revision: *revision, existed: *existed }
            }
            Outcome::Value { value, revision } => Step::Found(number(value), *revision),
            Outcome::Absent { revision } => match operation.action {
                Action::Delete(condition) => Step::MissingOn(condition, *revision),
                _ => Step::Missing(*revision),
            },
            Outcome::Conflict { current } => Step::Conflicted(condition, *current),
            Outcome::Unknown | Outcome::Accepted { .. } | Outcome::Failed => {
                Step::Open { value, condition }
            }
        };
        let end_ns = Some(operation.end_ns).filter(|_| !operation.is_open());
        found.0.push(*place);
        found.1.push(Call { start_ns: operation.start_ns, end_ns, step });
    }
    found
}

impl Report {
    /// Names what was checked.
    fn all_is_well(&self) -> String {
        let others = self.transactions + self.watch_events + self.past_reads + self.lease_events;
        let parts = [
            (self.operations > 0 || others == 0, "linearizable, and all revisions agree"),
            (self.transactions > 0, "strictly serializable"),
            (self.watch_events > 0, "watches show every change once and in order"),
            (self.past_reads > 0, "the past is as it was"),
            (self.lease_events > 0, "no lease ended too early"),
        ];
        let parts = parts.into_iter().filter(|(is_part, _)| *is_part).map(|(_, part)| part);
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, unknown, failed, keys, .. } = self;
        writeln!(f, "{operations} operations on {keys} keys, {unknown} unknown, {failed} failed")?;
        if self.transactions > 0 {
            let (all, unknown) = (self.transactions, self.transactions_unknown);
            writeln!(f, "{all} transactions, {unknown} unknown")?;
        }
        for (count, what) in [
            (self.watch_events, "events of watches"),
            (self.past_reads, "reads of the past"),
            (self.lease_events, "calls that concern leases"),
        ] {
            if count > 0 {
                writeln!(f, "{count} {what}")?;
            }
        }
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        for key in &self.undecided {
            writeln!(f, "key {key:?}: undecided; too many operations on it overlap")?;
        }
        let verdict = match (self.findings.len(), self.undecided.is_empty()) {
            (0, true) => self.all_is_well(),
            (0, false) => "undecided".to_owned(),
            (1, _) => "VIOLATED: 1 contradiction".to_owned(),
            (count, _) => format!("VIOLATED: {count} contradictions"),
        };
        writeln!(f, "{verdict}")
    }
}
