//! The watchers of a keyspace, and what each has still to be shown.
//!
//! Changes are pushed, a revision at a time, and go into a ring of the recent ones and into the
//! queues of the watchers that they concern. A queue holds references to changes of the ring, so
//! the ring bounds the memory of all of them. A watcher whose next change leaves the ring, or whose
//! queue is full, is [lost](News::Lost): it has to catch up by itself and to join again.
//!
//! A watcher joins after any revision from which on the ring has everything, be it earlier or later
//! than what was pushed last. It is shown exactly the changes after it that concern it, in order,
//! a revision always whole.
//!
//! Plain data: the watchers to wake are returned.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use dkv_api::{KeyChange, KeyRange, Revision};

use super::index::Index;
pub(super) use super::index::WatcherId;

/// What a watcher is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) keys: KeyRange,
    /// The first revision to show.
    pub(crate) first: Revision,
    pub(crate) puts: bool,
    pub(crate) deletes: bool,
    /// Whether the versions before are shown.
    pub(crate) previous: bool,
}

impl Interest {
    /// Returns whether a change of its keys is to be shown.
    pub(crate) fn wants(&self, change: &KeyChange) -> bool {
        let kind = if change.value.is_some() { self.puts } else { self.deletes };
        kind && change.revision >= self.first
    }

    /// Returns whether a change lacks what is to be shown of it. The network leaves the versions
    /// before out of a revision that is too long with them; a watch of fewer keys gets them.
    fn misses(&self, change: &KeyChange) -> bool {
        let has_one = change.value.is_none() || change.version > 1;
        self.previous && has_one && change.previous.is_none()
    }
}

/// Bytes that a change takes in memory beside its keys and values.
const OVERHEAD_BYTES: usize = 256;

/// A change that watchers share.
#[derive(Debug)]
pub(crate) struct SharedChange {
    change: KeyChange,
    /// The memory that it takes, in bytes.
    bytes: usize,
}

impl SharedChange {
    /// Gives a change bytes of its own, or those of one would keep all in memory that came with it.
    pub(super) fn new(mut change: KeyChange) -> Self {
        let own = |bytes: &mut Bytes| {
            *bytes = Bytes::copy_from_slice(bytes);
            bytes.len()
        };
        let mut bytes = OVERHEAD_BYTES + own(&mut change.key);
        bytes += change.value.as_mut().map_or(0, own);
        let previous = change.previous.as_mut().and_then(|previous| previous.value.as_mut());
        bytes += previous.map_or(0, own);
        Self { change, bytes }
    }
}

impl Deref for SharedChange {
    type Target = KeyChange;

    fn deref(&self) -> &KeyChange {
        &self.change
    }
}

/// The bounds of a hub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of the changes in the ring; the last revision may take more.
    pub(super) ring_bytes: usize,
    /// Changes that wait for a watcher; those of one revision may be more.
    pub(super) queued: usize,
    /// Bytes of the changes that are taken at once; those of one revision may be more.
    pub(super) taken_bytes: usize,
    /// Changes of the ring that are checked for a watcher that joins.
    pub(super) looked_at: usize,
}

/// What a watcher is shown next.
#[derive(Debug)]
pub(crate) enum News {
    /// Changes, whole revisions. Everything up to the revision is shown with them.
    Changes(Vec<Arc<SharedChange>>, Revision),
    /// No changes up to a revision that is at least the one that was asked for.
    Progress(Revision),
    /// Nothing yet. The watcher is woken.
    Nothing,
    /// It has to catch up by itself after this revision.
    Lost(Revision),
}

/// See the [module](self).
pub(super) struct Core {
    bounds: Bounds,
    /// Every change after this revision that was pushed is in the ring.
    floor: Revision,
    /// Everything up to this revision was pushed.
    through: Revision,
    ring: VecDeque<Arc<SharedChange>>,
    ring_bytes: usize,
    index: Index,
    watchers: HashMap<WatcherId, Watcher>,
    next: WatcherId,
    /// The watchers with changes in their queues, by the revision of the first one.
    behind: BTreeSet<(Revision, WatcherId)>,
    /// The watchers that wait for a revision.
    waiting: BTreeSet<(Revision, WatcherId)>,
    /// Watchers that have to catch up, and have not learned of it yet.
    lost: usize,
    has_ended: bool,
    /// The watchers that a change concerns; only for its memory.
    found: Vec<WatcherId>,
}

struct Watcher {
    interest: Interest,
    /// It was shown everything up to this revision.
    shown: Revision,
    queue: VecDeque<Arc<SharedChange>>,
    /// The revision that it waits for.
    awaited: Option<Revision>,
    is_lost: bool,
}

impl Watcher {
    fn next_revision(&self) -> Option<Revision> {
        self.queue.front().map(|change| change.revision)
    }
}

impl Core {
    /// Begins after a revision, without watchers.
    pub(super) fn new(after: Revision, bounds: Bounds) -> Self {
        Self {
            bounds,
            floor: after,
            through: after,
            ring: VecDeque::new(),
            ring_bytes: 0,
            index: Index::default(),
            watchers: HashMap::new(),
            next: 0,
            behind: BTreeSet::new(),
            waiting: BTreeSet::new(),
            lost: 0,
            has_ended: false,
            found: Vec::new(),
        }
    }

    /// Adds a watcher that was shown everything up to a revision; `None` if it has to catch up by
    /// itself first.
    pub(super) fn join(&mut self, interest: Interest, shown: Revision) -> Option<WatcherId> {
        if self.has_ended || shown < self.floor {
            return None;
        }
        let missed = self.ring.partition_point(|change| change.revision <= shown);
        let missed = self.ring.range(missed..);
        if missed.len() > self.bounds.looked_at {
            return None;
        }
        let missed = missed.filter(|it| interest.keys.contains(&it.key) && interest.wants(it));
        // One that joined with a full queue would fall out at the next change.
        let most = self.bounds.queued / 2;
        let queue: VecDeque<_> = missed.take(most + 1).cloned().collect();
        if queue.len() > most || queue.iter().any(|change| interest.misses(change)) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.index.insert(&interest.keys, id);
        let watcher = Watcher { interest, shown, queue, awaited: None, is_lost: false };
        self.behind.extend(watcher.next_revision().map(|revision| (revision, id)));
        self.watchers.insert(id, watcher);
        Some(id)
    }

    /// Removes a watcher.
    pub(super) fn leave(&mut self, id: WatcherId) {
        self.forget(id);
        if self.watchers.remove(&id).is_some_and(|watcher| watcher.is_lost) {
            self.lost -= 1;
        }
    }

    /// Removes a watcher from all but the list of watchers.
    fn forget(&mut self, id: WatcherId) {
        let Some(watcher) = self.watchers.get_mut(&id).filter(|watcher| !watcher.is_lost) else {
            return;
        };
        self.index.remove(&watcher.interest.keys, id);
        if let Some(revision) = watcher.next_revision() {
            self.behind.remove(&(revision, id));
        }
        if let Some(revision) = watcher.awaited.take() {
            self.waiting.remove(&(revision, id));
        }
    }

    /// Has a watcher catch up by itself.
    fn lose(&mut self, id: WatcherId, woken: &mut Vec<WatcherId>) {
        self.forget(id);
        let Some(watcher) = self.watchers.get_mut(&id).filter(|watcher| !watcher.is_lost) else {
            return;
        };
        // It may be long since something was taken: what came in between did not concern it.
        let through = match watcher.next_revision() {
            Some(revision) => Revision(revision.0.saturating_sub(1)),
            None => self.through,
        };
        watcher.shown = watcher.shown.max(through);
        watcher.queue = VecDeque::new();
        watcher.is_lost = true;
        self.lost += 1;
        woken.push(id);
    }

    /// Shows all changes of the next revision at which there are some, in their order. Adds whom to
    /// wake.
    pub(super) fn push(&mut self, changes: Vec<Arc<SharedChange>>, woken: &mut Vec<WatcherId>) {
        let Some(revision) = changes.first().map(|change| change.revision) else { return };
        debug_assert!(changes.iter().all(|change| change.revision == revision));
        // Nothing is shown again, or late.
        if self.has_ended || revision <= self.through {
            return;
        }
        for change in changes {
            let mut found = std::mem::take(&mut self.found);
            self.index.find(&change.key, &mut found);
            for id in found.drain(..) {
                self.queue(id, &change, woken);
            }
            self.found = found;
            self.ring_bytes += change.bytes;
            self.ring.push_back(change);
        }
        while self.ring_bytes > self.bounds.ring_bytes
            && let Some(oldest) = pop_if(&mut self.ring, |oldest| oldest.revision < revision)
        {
            self.ring_bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
        // A part of a revision is of no use.
        while let Some(rest) = pop_if(&mut self.ring, |change| change.revision <= self.floor) {
            self.ring_bytes -= rest.bytes;
        }
        while let Some((oldest, id)) = self.behind.first().copied()
            && oldest <= self.floor
        {
            self.lose(id, woken);
        }
        self.advance(revision, woken);
    }

    /// Adds a change to the queue of a watcher.
    fn queue(&mut self, id: WatcherId, change: &Arc<SharedChange>, woken: &mut Vec<WatcherId>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let revision = change.revision;
        if revision <= watcher.shown || !watcher.interest.wants(change) {
            return;
        }
        if watcher.interest.misses(change) {
            return self.lose(id, woken);
        }
        match watcher.next_revision() {
            None => {
                self.behind.insert((revision, id));
                woken.push(id);
            }
            Some(next) if next < revision && watcher.queue.len() >= self.bounds.queued => {
                return self.lose(id, woken);
            }
            Some(_) => {}
        }
        watcher.queue.push_back(Arc::clone(change));
    }

    /// Notes that everything up to a revision was pushed. Adds whom to wake.
    pub(super) fn advance(&mut self, through: Revision, woken: &mut Vec<WatcherId>) {
        if self.has_ended {
            return;
        }
        self.through = self.through.max(through);
        while let Some((awaited, id)) = self.waiting.first().copied()
            && awaited <= self.through
        {
            self.waiting.pop_first();
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.awaited = None;
                woken.push(id);
            }
        }
    }

    /// Returns what a watcher is shown next. If that is nothing, it is woken as soon as there are
    /// changes for it, or none up to the revision that it waits for.
    pub(super) fn take(&mut self, id: WatcherId, awaited: Revision) -> News {
        let through = self.through;
        let Some(watcher) = self.watchers.get_mut(&id) else { return News::Nothing };
        if watcher.is_lost {
            return News::Lost(watcher.shown);
        }
        let Some(next) = watcher.next_revision() else {
            let through = through.max(watcher.shown);
            if watcher.shown >= awaited {
                return News::Nothing;
            }
            if through >= awaited {
                watcher.shown = through;
                return News::Progress(through);
            }
            if let Some(before) = watcher.awaited.replace(awaited) {
                self.waiting.remove(&(before, id));
            }
            self.waiting.insert((awaited, id));
            return News::Nothing;
        };
        self.behind.remove(&(next, id));
        let (mut changes, mut bytes) = (Vec::new(), 0);
        let mut revision = next;
        while let Some(change) = pop_if(&mut watcher.queue, |change| {
            change.revision == revision || bytes + change.bytes <= self.bounds.taken_bytes
        }) {
            revision = change.revision;
            bytes += change.bytes;
            changes.push(change);
        }
        watcher.shown = match watcher.next_revision() {
            Some(next) => {
                self.behind.insert((next, id));
                revision
            }
            None => through.max(watcher.shown),
        };
        News::Changes(changes, watcher.shown)
    }

    /// Returns the revision up to which a watcher was shown everything; `None` if there is
    /// something for it to take.
    pub(super) fn shown(&mut self, id: WatcherId) -> Option<Revision> {
        let watcher = self.watchers.get_mut(&id)?;
        if watcher.is_lost || !watcher.queue.is_empty() {
            return None;
        }
        watcher.shown = watcher.shown.max(self.through);
        Some(watcher.shown)
    }

    /// Has all watchers catch up by themselves: nothing is pushed any more.
    pub(super) fn end(&mut self, woken: &mut Vec<WatcherId>) {
        let all: Vec<WatcherId> = self.watchers.keys().copied().collect();
        all.into_iter().for_each(|id| self.lose(id, woken));
        self.has_ended = true;
        self.ring = VecDeque::new();
    }

    /// Returns the number of watchers that have to catch up, and have not learned of it yet.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    /// Returns whether nothing is pushed any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// Removes the first change, if it is one of these.
fn pop_if(
    queue: &mut VecDeque<Arc<SharedChange>>,
    is_one: impl FnOnce(&SharedChange) -> bool,
) -> Option<Arc<SharedChange>> {
    if is_one(queue.front()?) { queue.pop_front() } else { None }
}
