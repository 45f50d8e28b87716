//! The watchers of a shard at one replica, and what wakes them.
//!
//! A watcher reads the changes of its keys from the history of the shard, at its own pace. In
//! between it sleeps, and the hub wakes it: the hub follows the applied entries, takes the keys of
//! the new changes from the state once for all watchers, and finds those whose keys are among them.
//! It runs beside the apply path, which pays for one waiting task, however many watchers there are.
//!
//! A watcher learns which revisions have something for it to read; everything between them cannot
//! concern it. If there are many, it learns only from which one on. The others learn about once a
//! second how far the hub has come, so that a watcher of quiet keys does not fall behind the floor
//! of the history.
//!
//! No wake-up is lost: a watcher registers before it reads, and what it reads goes at least as far
//! as the hub had come by then.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_base::supervise::Failure;
use dkv_base::sync::lock;
use dkv_wire::limits::WATCH_PROGRESS;
use dkv_wire::message::KeyRange;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::raft::StateMachineHandle;

/// Changes that the hub takes from the state at once.
const CHANGES_TOGETHER: usize = 1024;
/// Most revisions that the hub notes for a watcher. One that is behind by more looks for itself.
const REVISIONS_MAX: usize = 64;

/// The watchers of a shard.
pub(crate) struct WatchHub {
    shared: Arc<Watchers>,
    failure: Failure,
}

/// The watchers, and how far they were matched.
#[derive(Default)]
struct Watchers {
    /// Every change up to this revision was matched.
    position: AtomicU64,
    index: Mutex<Index>,
    /// Notified when the last watcher leaves.
    left: Notify,
}

/// The watchers of one range, in the order in which they came.
type Seats = BTreeMap<u64, Arc<Seat>>;

/// The watchers by what they watch.
#[derive(Default)]
struct Index {
    /// Whether a task matches changes.
    is_followed: bool,
    next: u64,
    all: Seats,
    keys: HashMap<Bytes, Seats>,
    prefixes: HashMap<Bytes, Seats>,
    /// The lengths of these prefixes, each with their number.
    prefix_lengths: BTreeMap<usize, usize>,
    /// By first key, then by the key at which they end.
    ranges: BTreeMap<Bytes, BTreeMap<Bytes, Seats>>,
}

/// What a watcher is to be told.
#[derive(Default)]
struct Seat {
    told: Mutex<Told>,
    woken: Notify,
}

#[derive(Default)]
struct Told {
    /// The first revisions since the watcher last asked at which its keys changed, in order.
    revisions: Vec<Revision>,
    /// Whether there were more, or may have been others between them.
    more: bool,
    /// Whether it is to mark its progress.
    is_due: bool,
}

/// A registered watcher. Dropping it ends the registration.
pub(crate) struct Watcher {
    watchers: Arc<Watchers>,
    keys: KeyRange,
    number: u64,
    seat: Arc<Seat>,
}

/// News for a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Its keys have changed.
    Changed {
        /// They have not up to this revision, which is not before that at which it asked.
        after: Revision,
    },
    /// Its keys have changed at these revisions, and at no others up to the last of them. There is
    /// at least one, and all are after that at which it asked.
    ChangedAt(Vec<Revision>),
    /// Its keys have not changed up to this revision.
    Quiet { through: Revision },
}

impl WatchHub {
    /// Creates a hub without watchers.
    pub(crate) fn new(failure: Failure) -> Self {
        Self { shared: Arc::default(), failure }
    }

    /// Registers a watcher of a state that has reached `revision` at least. Returns whether the
    /// caller must spawn [`follow`](Self::follow).
    pub(crate) fn register(&self, keys: KeyRange, revision: Revision) -> (Watcher, bool) {
        Watchers::register(&self.shared, keys, revision)
    }

    /// Wakes the watchers as the state changes, until none is left.
    pub(crate) fn follow(
        &self,
        state_machine: StateMachineHandle,
    ) -> impl Future<Output = ()> + Send + 'static {
        let following = follow(Arc::clone(&self.shared), state_machine);
        self.failure.if_panicked("the task that wakes the watchers of a shard", following)
    }
}

async fn follow(watchers: Arc<Watchers>, state_machine: StateMachineHandle) {
    let mut applied = state_machine.applied();
    let mut marked = watchers.position();
    let mut next_mark = Instant::now() + WATCH_PROGRESS;
    loop {
        loop {
            let position = watchers.position();
            let Some(changed) = state_machine.changed_keys(position, CHANGES_TOGETHER) else {
                return;
            };
            match changed {
                Some(changed) => {
                    watchers.advance(&changed.keys, changed.through);
                    if !changed.more {
                        break;
                    }
                }
                // Compacted, or replaced by a snapshot.
                None => watchers.skip(state_machine.revision()),
            }
            tokio::task::yield_now().await;
        }
        if watchers.ends() {
            return;
        }
        tokio::select! {
            biased;
            () = sleep_until(next_mark), if watchers.position() > marked => {
                marked = watchers.position();
                next_mark = Instant::now() + WATCH_PROGRESS;
                watchers.remind();
            }
            () = watchers.left.notified() => {}
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

impl Watchers {
    fn register(self: &Arc<Self>, keys: KeyRange, revision: Revision) -> (Watcher, bool) {
        let mut index = self.index();
        let starts = !std::mem::replace(&mut index.is_followed, true);
        if starts {
            // What came before is nobody's news.
            self.position.fetch_max(revision.0, Ordering::AcqRel);
        }
        let (number, seat) = (index.next, Arc::new(Seat::default()));
        index.next += 1;
        index.add(&keys, number, &seat);
        drop(index);
        (Watcher { watchers: Arc::clone(self), keys, number, seat }, starts)
    }

    /// Returns whether nobody watches any more. Then the next one to come starts the task again.
    fn ends(&self) -> bool {
        let mut index = self.index();
        index.is_followed = !index.all.is_empty();
        !index.is_followed
    }

    /// Matches the changes after the present position up to `through`.
    fn advance(&self, changes: &[(Revision, Arc<[u8]>)], through: Revision) {
        let index = self.index();
        for (seats, revisions) in index.told_of(changes) {
            seats.values().for_each(|seat| seat.changed(&revisions));
        }
        // After the seats: a watcher that finds nothing on its seat may trust the position.
        self.position.fetch_max(through.0, Ordering::AcqRel);
    }

    /// Goes on from a revision without knowing what changed before it.
    fn skip(&self, to: Revision) {
        let index = self.index();
        let first = Revision(self.position().0.saturating_add(1));
        for seat in index.all.values() {
            seat.missed(first);
        }
        self.position.fetch_max(to.0, Ordering::AcqRel);
    }

    /// Has all watchers mark their progress.
    fn remind(&self) {
        for seat in self.index().all.values() {
            seat.told().is_due = true;
            seat.woken.notify_one();
        }
    }

    fn position(&self) -> Revision {
        Revision(self.position.load(Ordering::Acquire))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }
}

impl Index {
    fn add(&mut self, keys: &KeyRange, number: u64, seat: &Arc<Seat>) {
        let seats = match keys {
            KeyRange::Key(key) => self.keys.entry(key.clone()).or_default(),
            KeyRange::Prefix(prefix) => {
                let seats = self.prefixes.entry(prefix.clone()).or_default();
                if seats.is_empty() {
                    *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                }
                seats
            }
            KeyRange::Range(from, to) => {
                self.ranges.entry(from.clone()).or_default().entry(to.clone()).or_default()
            }
        };
        seats.insert(number, Arc::clone(seat));
        self.all.insert(number, Arc::clone(seat));
    }

    fn remove(&mut self, keys: &KeyRange, number: u64) {
        self.all.remove(&number);
        match keys {
            KeyRange::Key(key) => _ = leave(&mut self.keys, key, number),
            KeyRange::Prefix(prefix) => {
                if leave(&mut self.prefixes, prefix, number)
                    && let Some(count) = self.prefix_lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&prefix.len());
                    }
                }
            }
            KeyRange::Range(from, to) => {
                let Some(ends) = self.ranges.get_mut(from) else { return };
                if let Some(seats) = ends.get_mut(to) {
                    seats.remove(&number);
                    if seats.is_empty() {
                        ends.remove(to);
                    }
                }
                if ends.is_empty() {
                    self.ranges.remove(from);
                }
            }
        }
    }

    /// Returns the watchers that changes concern, those of one range together, with the revisions
    /// of these changes: one more than a seat has room for at most.
    fn told_of<'a>(
        &'a self,
        changes: &'a [(Revision, Arc<[u8]>)],
    ) -> Vec<(&'a Seats, Vec<Revision>)> {
        let mut told: Vec<(&Seats, Vec<Revision>)> = Vec::new();
        let mut places: HashMap<*const Seats, usize> = HashMap::new();
        let mut of_key: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (revision, key) in changes {
            let concerned = of_key.entry(key).or_insert_with(|| {
                let place = |seats: &'a Seats| {
                    *places.entry(std::ptr::from_ref(seats)).or_insert_with(|| {
                        told.push((seats, Vec::new()));
                        told.len() - 1
                    })
                };
                self.matched(key).map(place).collect()
            });
            for place in concerned {
                let (_, revisions) = &mut told[*place];
                if revisions.last() != Some(revision) && revisions.len() <= REVISIONS_MAX {
                    revisions.push(*revision);
                }
            }
        }
        told
    }

    /// Returns the watchers of a key, those of each range together.
    fn matched<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Seats> {
        let by_key = self.keys.get(key).into_iter();
        let lengths = self.prefix_lengths.keys().take_while(move |length| **length <= key.len());
        let by_prefix = lengths.filter_map(move |length| self.prefixes.get(key.get(..*length)?));
        let until = (Bound::Unbounded, Bound::Included(key));
        let begun = self.ranges.range::<[u8], _>(until).flat_map(|(_, ends)| ends);
        let by_range = begun.filter(move |(to, _)| to.is_empty() || key < &to[..]);
        by_key.chain(by_prefix).chain(by_range.map(|(_, seats)| seats))
    }
}

/// Removes a watcher from those of a key or a prefix. Returns whether it was the last one.
fn leave(all: &mut HashMap<Bytes, Seats>, of: &Bytes, number: u64) -> bool {
    let Some(seats) = all.get_mut(of) else { return false };
    seats.remove(&number);
    if !seats.is_empty() {
        return false;
    }
    all.remove(of);
    true
}

impl Seat {
    /// Notes changes, in the order of revisions and after those before.
    fn changed(&self, revisions: &[Revision]) {
        let mut told = self.told();
        if told.more {
            return;
        }
        let is_first = told.revisions.is_empty();
        let room = REVISIONS_MAX - told.revisions.len();
        told.revisions.extend(revisions.iter().take(room));
        told.more = revisions.len() > room;
        drop(told);
        if is_first {
            self.woken.notify_one();
        }
    }

    /// Notes that there may be changes from a revision on.
    fn missed(&self, first: Revision) {
        let mut told = self.told();
        if told.revisions.is_empty() {
            told.revisions.push(first);
        }
        told.more = true;
        drop(told);
        self.woken.notify_one();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }
}

impl Watcher {
    /// Waits for news of what comes after a revision up to which the watcher has read everything.
    pub(crate) async fn news(&self, after: Revision) -> News {
        loop {
            if let Some(news) = self.take(after) {
                return news;
            }
            self.seat.woken.notified().await;
        }
    }

    /// Returns the revision, not before `after`, up to which the keys are known not to have changed
    /// since `after`.
    pub(crate) fn quiet_through(&self, after: Revision) -> Revision {
        let position = self.watchers.position();
        let quiet = self.seat.told().revisions.is_empty();
        if quiet { position.max(after) } else { after }
    }

    fn take(&self, after: Revision) -> Option<News> {
        // Before the seat: see `Watchers::advance`.
        let position = self.watchers.position();
        let mut told = self.seat.told();
        let is_due = std::mem::take(&mut told.is_due);
        let mut revisions = std::mem::take(&mut told.revisions);
        if std::mem::take(&mut told.more) {
            // An earlier change than `after` was read already, and may hide a later one.
            let before = Revision(revisions.first().map_or(0, |first| first.0.saturating_sub(1)));
            return Some(News::Changed { after: before.max(after) });
        }
        // It has read those before.
        revisions.retain(|revision| *revision > after);
        if !revisions.is_empty() {
            return Some(News::ChangedAt(revisions));
        }
        (is_due && position > after).then_some(News::Quiet { through: position })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut index = self.watchers.index();
        index.remove(&self.keys, self.number);
        if index.all.is_empty() {
            self.watchers.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
