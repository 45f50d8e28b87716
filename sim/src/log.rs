//! What the processes log: for people, with the simulated time and machine in front, and some lines
//! for the faults.
//!
//! Some faults have to come in the middle of something that takes a few milliseconds, such as a
//! change of a group's voters. When that is, only the process knows, and it logs it. And a task may
//! panic anywhere: here one does as it logs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Once;

use dkv_base::id::NodeId;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// Who logs that members change.
const STEWARDS: &str = "dkv_node::stewards";
/// Tasks without which a node cannot be.
const TASKS: [&str; 5] = [
    STEWARDS,
    "dkv_node::compaction",
    "dkv_node::coordinator",
    "dkv_node::departures",
    "dkv_node::lookout",
];

thread_local! {
    static PLACE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
    static PANICS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Says which machine runs in which tick from now on.
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
    /// What it changes, as it logs it.
    pub what: String,
}

impl Step {
    /// Whether it changes the voters.
    pub fn changes_voters(&self) -> bool {
        self.what.starts_with("ChangeVoters")
    }

    /// Whether it adds learners, and that node among them.
    pub fn adds(&self, node: NodeId) -> bool {
        self.what.starts_with("AddLearners") && self.what.contains(&format!("{node:?}"))
    }
}

/// The changes of members that were begun in this tick.
pub fn steps() -> Vec<Step> {
    STEPS.take()
}

/// Has the task of a machine panic that logs next.
pub fn panic_at(machine: &str) {
    PANICS.with_borrow_mut(|panics| panics.insert(machine.to_owned()));
}

/// Has nobody panic any more.
pub fn panic_nowhere() {
    PANICS.take();
    PANICKED.take();
}

/// Whether a task panics now because it was to, and on which machine: said once.
pub fn panicked() -> Option<String> {
    PANICKED.take()
}

/// Whether a task panics now because it was to.
pub fn is_panicking() -> bool {
    PANICKED.with_borrow(Option::is_some)
}

/// Prints what the processes log to standard error. To be called before anything is run.
pub fn print(filter: &str) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_timer(Place)
        .with_ansi(false)
        .with_filter(EnvFilter::new(filter));
    init(Some(lines));
}

/// Has the processes' logs looked at. Of no effect if they are printed.
pub fn look() {
    init(None::<EnvFilter>);
}

fn init(lines: Option<impl Layer<tracing_subscriber::Registry> + Send + Sync + 'static>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Whoever has said before where logs go looks at them himself.
        let layers = registry().with(lines).with(Steps.with_filter(stewards()));
        // The last one: nobody misses a line because of a panic.
        let _ = layers.with(Panics.with_filter(tasks())).try_init();
    });
}

fn stewards() -> Targets {
    Targets::new().with_target(STEWARDS, Level::INFO)
}

fn tasks() -> Targets {
    Targets::new().with_targets(TASKS.map(|task| (task, Level::DEBUG)))
}

/// Panics in the place of a task that logs.
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

/// Notes that a leader begins to change the members of its group.
struct Steps;

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut StepVisit);
    }
}

struct StepVisit;

impl Visit for StepVisit {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "step" {
            let leader = PLACE.with_borrow(|(_, machine)| machine.clone());
            STEPS.with_borrow_mut(|steps| steps.push(Step { leader, what: format!("{value:?}") }));
        }
    }
}

struct Place;

impl FormatTime for Place {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        PLACE.with_borrow(|(now, machine)| write!(writer, "{now:>7} ms  {machine:<9}"))
    }
}
