//! The logs of the processes: printed with the simulated time and machine in front, and watched by
//! some faults.
//!
//! Some faults must strike in the middle of something that takes a few milliseconds, such as a
//! change of a group's voters. Only the process knows when that is, and it logs it. And a task may
//! panic anywhere; in the simulation it panics as it writes a line to its log.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Once;

use dkv_base::id::{GroupId, NodeId};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// The targets of tasks that a node cannot do without.
const TASKS: [&str; 5] = [
    "dkv_node::cluster::membership_reconciler",
    "dkv_node::tasks::log_retention",
    "dkv_node::cluster::coordinator",
    "dkv_node::cluster::replica_removal",
    "dkv_node::tasks::failure_detector",
];

thread_local! {
    static PLACE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
    static PANICS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sets which machine runs, and in which tick.
pub fn at(now: u64, machine: &str) {
    PLACE.with_borrow_mut(|place| {
        place.0 = now;
        place.1.clear();
        place.1.push_str(machine);
    });
}

/// A change of a group's members that a leader has begun.
#[derive(Clone, Debug)]
pub struct Step {
    /// The leader's machine.
    pub leader: String,
    /// The group, if the leader logs it.
    pub group: Option<GroupId>,
    /// The change, as the leader logs it.
    pub what: String,
}

impl Step {
    /// Returns whether it changes the voters.
    pub fn changes_voters(&self) -> bool {
        self.what.starts_with("ChangeVoters")
    }

    /// Returns whether it adds that node as a learner.
    pub fn adds(&self, node: NodeId) -> bool {
        self.what.starts_with("AddLearners") && self.names(node)
    }

    /// Returns whether it changes the voters to a set without that node.
    pub fn leaves_out(&self, node: NodeId) -> bool {
        self.changes_voters() && !self.names(node)
    }

    fn names(&self, node: NodeId) -> bool {
        self.what.contains(&format!("{node:?}"))
    }
}

/// Takes the changes of members that were begun since the last call.
pub fn steps() -> Vec<Step> {
    STEPS.take()
}

/// Makes the task that logs next on a machine panic.
pub fn panic_at(machine: &str) {
    PANICS.with_borrow_mut(|panics| panics.insert(machine.to_owned()));
}

/// Cancels all panics that have not happened.
pub fn panic_nowhere() {
    PANICS.take();
    PANICKED.take();
}

/// Takes the machine on which a task has panicked as intended, if one has.
pub fn panicked() -> Option<String> {
    PANICKED.take()
}

/// Returns whether a task panics now as intended.
pub fn is_panicking() -> bool {
    PANICKED.with_borrow(Option::is_some)
}

/// Prints the logs of the processes to standard error. Call it before any run.
pub fn print(filter: &str) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_timer(Place)
        .with_ansi(false)
        .with_filter(EnvFilter::new(filter));
    init(Some(lines));
}

/// Watches the logs of the processes. Has no effect after [`print()`], which watches them too.
pub fn look() {
    init(None::<EnvFilter>);
}

fn init(lines: Option<impl Layer<tracing_subscriber::Registry> + Send + Sync + 'static>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A subscriber that was installed before stays.
        let layers = registry().with(lines).with(Steps.with_filter(nodes()));
        // It comes last, so that the others get the line before the panic.
        let _ = layers.with(Panics.with_filter(tasks())).try_init();
    });
}

fn nodes() -> Targets {
    Targets::new().with_target("dkv_node", Level::INFO)
}

fn tasks() -> Targets {
    Targets::new().with_targets(TASKS.map(|task| (task, Level::DEBUG)))
}

/// Panics in the task that logs.
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let machine = PLACE.with_borrow(|(_, machine)| machine.clone());
        if PANICS.with_borrow_mut(|panics| panics.remove(&machine)) {
            PANICKED.set(Some(machine));
            panic!("simulated");
        }
    }
}

/// Collects the changes of members that leaders begin.
struct Steps;

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut visit = StepVisit::default();
        event.record(&mut visit);
        if let Some(what) = visit.what {
            let leader = PLACE.with_borrow(|(_, machine)| machine.clone());
            STEPS.with_borrow_mut(|steps| steps.push(Step { leader, group: visit.group, what }));
        }
    }
}

#[derive(Default)]
struct StepVisit {
    group: Option<GroupId>,
    what: Option<String>,
}

impl Visit for StepVisit {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "group" => self.group = format!("{value:?}").parse().ok().map(GroupId),
            "step" => self.what = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

struct Place;

impl FormatTime for Place {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        PLACE.with_borrow(|(now, machine)| write!(writer, "{now:>7} ms  {machine:<9}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_tasks_that_panic_are_modules_of_the_node() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src");
        for task in TASKS {
            let module = task.strip_prefix("dkv_node::").unwrap().replace("::", "/");
            let found = sources.join(&module).with_extension("rs");
            assert!(found.exists() || sources.join(module).join("mod.rs").exists(), "{task} moved");
        }
    }
}
