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
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
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

/// The target of those who drive transactions over several shards.
const DRIVER: &str = "dkv_node::serve::transactions::driver";

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

/// What a leader does next: a change of a group's members, or a step of a transaction over several
/// shards that it drives.
#[derive(Clone, Debug)]
pub struct Step {
    /// The leader's machine.
    pub leader: String,
    /// The group, if the leader logs it.
    pub group: Option<GroupId>,
    /// The change or step, as the leader logs it.
    pub what: String,
}

/// The steps of a transaction over several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStep {
    /// It is about to be prepared.
    Begins,
    /// It is prepared everywhere.
    Prepared,
    /// It is committed at its home.
    Decided,
    /// The other shards know, or not all of them could be told.
    Finished,
}

impl TransactionStep {
    /// All steps, in order.
    pub const ALL: [Self; 4] = [Self::Begins, Self::Prepared, Self::Decided, Self::Finished];
}

impl Step {
    /// Returns whether it changes the voters.
    pub fn changes_voters(&self) -> bool {
        self.what.starts_with("ChangeVoters")
    }

    /// Returns whether it is this step of a transaction.
    pub fn is_of_transaction(&self, step: TransactionStep) -> bool {
        self.what == format!("\"Transaction{step:?}\"")
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
    init(registry().with(lines));
}

/// Watches the logs of the processes. Has no effect after [`print()`], which watches them too.
pub fn look() {
    // There is no `None` in the place of the lines: it would make tracing ask the filters about
    // each event of each library.
    init(registry());
}

fn init<S>(subscriber: S)
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A subscriber that was installed before stays.
        let _ = watched(subscriber).try_init();
    });
}

/// Adds the layers that watch the logs to a subscriber.
fn watched<S>(subscriber: S) -> impl Subscriber + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let layers = subscriber.with(Steps.with_filter(Asked(nodes())));
    // It comes last, so that the others get the line before the panic.
    layers.with(Panics.with_filter(Asked(tasks())))
}

fn nodes() -> Targets {
    Targets::new().with_target("dkv_node", Level::INFO).with_target(DRIVER, Level::DEBUG)
}

fn tasks() -> Targets {
    Targets::new().with_targets(TASKS.map(|task| (task, Level::DEBUG)))
}

/// A filter that is asked again about each event that it lets through.
///
/// The filters of layers note in the thread which layers do not want the event at hand, and the
/// layers clear these notes as they skip the event. The notes of `tracing::enabled!` (openraft uses
/// it), which no event follows, stay until a filter is asked again. Events that all filters always
/// want are logged without asking, so the next of these would be lost to the layers in the notes.
struct Asked(Targets);

impl<S> Filter<S> for Asked {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Filter::<S>::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = Filter::<S>::callsite_enabled(&self.0, metadata);
        if interest.is_never() { interest } else { Interest::sometimes() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0)
    }
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
    fn a_question_about_levels_hides_no_step() {
        let others = Targets::new().with_default(Level::DEBUG);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(others);
        tracing::subscriber::with_default(watched(registry().with(lines)), || {
            for step in 0..3 {
                assert!(tracing::enabled!(target: "openraft::core", Level::DEBUG));
                tracing::info!(target: "dkv_node::cluster::membership_reconciler", step, "changing");
            }
        });
        let seen: Vec<String> = steps().into_iter().map(|step| step.what).collect();
        assert_eq!(seen, ["0", "1", "2"]);
    }

    #[test]
    fn the_tasks_that_panic_are_modules_of_the_node() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src");
        for task in TASKS.into_iter().chain([DRIVER]) {
            let module = task.strip_prefix("dkv_node::").unwrap().replace("::", "/");
            let found = sources.join(&module).with_extension("rs");
            assert!(found.exists() || sources.join(module).join("mod.rs").exists(), "{task} moved");
        }
    }
}
