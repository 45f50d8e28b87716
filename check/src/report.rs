//! Runs every checker over a history and sums up what they found.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::finding::{Finding, Kind};
use crate::history::{Action, History, Level, Operation, Outcome};
use crate::linear::{Call, Verdict, contradiction, search};
use crate::options::Options;
use crate::register::{Register, Step};
use crate::{eventual, revisions};

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
    let unknown = |operation: &&Operation| operation.outcome == Outcome::Unknown;
    let failed = |operation: &&Operation| operation.outcome == Outcome::Failed;
    let mut report = Report {
        operations: history.operations.len(),
        unknown: history.operations.iter().filter(unknown).count(),
        failed: history.operations.iter().filter(failed).count(),
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, unknown, failed, keys, .. } = self;
        writeln!(f, "{operations} operations on {keys} keys, {unknown} unknown, {failed} failed")?;
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        for key in &self.undecided {
            writeln!(f, "key {key:?}: undecided; too many operations on it overlap")?;
        }
        let verdict = match (self.findings.len(), self.undecided.is_empty()) {
            (0, true) => "linearizable, and all revisions agree".to_owned(),
            (0, false) => "undecided".to_owned(),
            (1, _) => "VIOLATED: 1 contradiction".to_owned(),
            (count, _) => format!("VIOLATED: {count} contradictions"),
        };
        writeln!(f, "{verdict}")
    }
}
