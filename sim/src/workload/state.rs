//! The state that the clients share with the run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use dkv_base::id::{GroupId, Revision};
use dkv_base::sync::lock;
use dkv_check::{Finding, History, Kind, LeaseNote, Outcome, Recorder, leases};
use dkv_wire::network::key_hash;

use super::eventual::EventualWrites;
use super::list_group::{self, ListGroup};
use super::service::Service;
use super::staleness::Staleness;
use super::{Focus, Load, Phase};
use crate::trace::Trace;

/// Groups of keys whose values are lists: the keys of the first are in one shard.
const LIST_GROUPS: u64 = 2;

/// How much too late a lease may end as long as its shard has service, in nanoseconds: a second,
/// and what slow disks and links add to that.
const LATE_NS_MAX: u64 = 1_500_000_000;

/// The state that all clients share with the run. Clones share it.
#[derive(Clone)]
pub struct Workload {
    state: Arc<State>,
}

struct State {
    phase: AtomicU8,
    now: AtomicU64,
    callers: AtomicU64,
    probed: AtomicU64,
    recorder: Recorder,
    /// What each client keeps to, by its place.
    focus: Mutex<BTreeMap<usize, Focus>>,
    eventual: Mutex<EventualWrites>,
    staleness: Mutex<Staleness>,
    /// The latest known revision of each shard.
    latest: Mutex<BTreeMap<GroupId, Revision>>,
    list_groups: Vec<ListGroup>,
    snapshots: AtomicU64,
    service: Mutex<Service>,
    /// The shard of the key of each lease.
    lease_shards: Mutex<BTreeMap<u64, GroupId>>,
    wrong: Mutex<Vec<String>>,
    trace: Trace,
    load: Load,
}

impl Workload {
    /// Creates the state of a run with that load.
    pub fn new(load: Load, trace: Trace) -> Self {
        let shard = |key: &str| shard_of(key, load.shards).0;
        let state = State {
            phase: AtomicU8::new(Phase::Load as u8),
            now: AtomicU64::new(0),
            callers: AtomicU64::new(0),
            probed: AtomicU64::new(0),
            recorder: Recorder::default(),
            focus: Mutex::default(),
            eventual: Mutex::default(),
            staleness: Mutex::default(),
            latest: Mutex::default(),
            list_groups: (0..LIST_GROUPS)
                .map(|number| list_group::group(number, (load.shards, number > 0), shard))
                .collect(),
            snapshots: AtomicU64::new(0),
            service: Mutex::default(),
            lease_shards: Mutex::default(),
            wrong: Mutex::default(),
            trace,
            load,
        };
        Self { state: Arc::new(state) }
    }

    /// Sets the current tick.
    pub fn set_now(&self, now: u64) {
        self.state.now.store(now, Ordering::Relaxed);
    }

    /// Returns the current tick.
    pub fn now(&self) -> u64 {
        self.state.now.load(Ordering::Relaxed)
    }

    /// Begins a phase.
    pub fn set_phase(&self, phase: Phase) {
        self.state.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns whether the run is in that phase.
    pub fn is(&self, phase: Phase) -> bool {
        self.state.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// Returns how many callers have finished their last reads and writes, and how many there are.
    pub fn probed(&self) -> (u64, u64) {
        (self.state.probed.load(Ordering::Relaxed), self.state.callers.load(Ordering::Relaxed))
    }

    /// Makes the callers of a client keep to one thing.
    pub fn focus(&self, client: usize, focus: Focus) {
        lock(&self.state.focus).insert(client, focus);
    }

    /// Lets all callers do anything again.
    pub fn focus_on_nothing(&self) {
        lock(&self.state.focus).clear();
    }

    pub(super) fn focus_of(&self, client: u64) -> Option<Focus> {
        let focus = lock(&self.state.focus);
        usize::try_from(client).ok().and_then(|client| focus.get(&client).copied())
    }

    /// Returns the number of shards.
    pub fn shards(&self) -> u32 {
        self.state.load.shards
    }

    /// Returns how many keys are read and written.
    pub fn keys(&self) -> u64 {
        self.state.load.keys
    }

    /// Returns the name of a key.
    pub fn key(number: u64) -> String {
        format!("k{number}")
    }

    /// Returns the shard of a key.
    pub fn shard_of(&self, key: &str) -> GroupId {
        shard_of(key, self.state.load.shards)
    }

    /// Returns the latest revision of a shard that a caller or a watcher knows.
    pub fn latest(&self, shard: GroupId) -> Revision {
        let latest = lock(&self.state.latest);
        latest.get(&shard).copied().unwrap_or_default()
    }

    pub(super) fn note_revision(&self, shard: GroupId, revision: Revision) {
        let mut latest = lock(&self.state.latest);
        let known = latest.entry(shard).or_default();
        *known = revision.max(*known);
    }

    /// Returns the keys whose values are lists.
    pub(super) fn list_groups(&self) -> Vec<ListGroup> {
        self.state.list_groups.clone()
    }

    /// Counts a snapshot that was taken and read.
    pub(super) fn count_snapshot(&self) {
        self.state.snapshots.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many snapshots were taken and read.
    pub fn snapshots(&self) -> u64 {
        self.state.snapshots.load(Ordering::Relaxed)
    }

    /// Notes an answer that no network may give.
    pub(super) fn note_wrong(&self, wrong: String) {
        self.state.trace.line(wrong.clone());
        lock(&self.state.wrong).push(wrong);
    }

    /// Returns the answers that no network may give.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.state.wrong).clone()
    }

    /// Notes that nodes were removed: eventual writes that they had not delivered may be lost.
    pub fn nodes_were_removed(&self, names: impl IntoIterator<Item = String>) {
        self.eventual().nodes_were_removed(names);
    }

    /// Returns the history of the run as the checkers are to judge it.
    pub fn history(&self) -> History {
        let mut history = self.state.recorder.history();
        if self.staleness().clocks_are_wrong() {
            // Primaries measure the time of leases by their own clocks.
            history.leases.clear();
        }
        let eventual = self.eventual();
        for operation in &mut history.operations {
            if let Outcome::Accepted { stamp } = operation.outcome
                && eventual.may_be_lost(stamp)
            {
                operation.outcome = Outcome::Unknown;
            }
        }
        history
    }

    /// Returns the leases that ended much too late, although their shard had service.
    pub fn late_leases(&self, history: &History) -> Vec<Finding> {
        let lease_shards = lock(&self.state.lease_shards);
        let shards = (1..=self.shards()).map(GroupId);
        let found = shards.flat_map(|shard| {
            let is_here = |note: &&LeaseNote| lease_shards.get(&note.lease) == Some(&shard);
            let history = History {
                leases: history.leases.iter().filter(is_here).cloned().collect(),
                disruptions: self.service().disruptions(shard),
                ..History::default()
            };
            leases::check(&history, Some(LATE_NS_MAX))
        });
        found.filter(|finding| finding.kind == Kind::LeaseLate).collect()
    }

    /// Notes in which shard the key of a lease is.
    pub(super) fn note_lease(&self, lease: u64, shard: GroupId) {
        let mut shards = lock(&self.state.lease_shards);
        shards.insert(lease, shard);
    }

    pub(super) fn service(&self) -> MutexGuard<'_, Service> {
        lock(&self.state.service)
    }

    /// Notes that a clock has been wrong. Nodes measure the age of their answers by their own
    /// clocks.
    pub fn clocks_were_wrong(&self) {
        self.staleness().clocks_were_wrong();
    }

    /// Returns the answers that were older than they said.
    pub fn too_old(&self) -> Vec<String> {
        self.staleness().too_old().to_vec()
    }

    pub(super) fn staleness(&self) -> MutexGuard<'_, Staleness> {
        lock(&self.state.staleness)
    }

    fn eventual(&self) -> MutexGuard<'_, EventualWrites> {
        lock(&self.state.eventual)
    }

    /// Notes which node took the eventual write of that stamp.
    pub(super) fn taken(&self, stamp: u64, by: String) {
        self.eventual().taken(stamp, by);
    }

    pub(super) fn note_write(&self, key: &str, value: Option<String>, outcome: &Outcome) {
        if key.starts_with('e') {
            self.eventual().wrote(key, value, outcome);
        }
    }

    /// Whether a strong read shows what a key with eventual writes may be in the end.
    pub(super) fn is_settled(&self, key: &str, read: &Outcome) -> bool {
        self.eventual().is_settled(key, read)
    }

    /// Notes that a caller has finished its last reads and writes.
    pub(super) fn caller_has_probed(&self) {
        self.state.probed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that so many callers are about to begin.
    pub(super) fn callers_begin(&self, count: u64) {
        self.state.callers.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the load.
    pub(super) fn load(&self) -> Load {
        self.state.load
    }

    /// Returns the trace of the run.
    pub(super) fn trace(&self) -> &Trace {
        &self.state.trace
    }

    /// Returns the recorder of the history.
    pub fn recorder(&self) -> &Recorder {
        &self.state.recorder
    }
}

fn shard_of(key: &str, shards: u32) -> GroupId {
    let place = u128::from(key_hash(key.as_bytes())) * u128::from(shards);
    GroupId((place >> 64) as u32 + 1)
}
