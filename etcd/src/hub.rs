//! The watches of a face share one watch of the network.
//!
//! The hub watches all keys of the keyspace, with the versions before, and hands each change to the
//! watches that it concerns; see [`core`], which decides and is plain data, and [`index`]. What it
//! costs is that a face reads all changes of the keyspace, once, whatever is watched.
//!
//! A watch joins the hub at its position. One that is further in the past than the changes that the
//! hub has is served by a watch of the network of its own until it has caught up, and so is one
//! whose caller has not read for so long that it fell out. Nothing is decided twice: either way a
//! watch is a position in the order of revisions.
//!
//! The hub begins with the first watch that joins, and ends when it has none. If the network
//! refuses to go on, as after a compaction of what it has not read, it ends, and each watch goes on
//! by itself from its own position, where it gets its own answer. A face whose certificate is that
//! of a user who may not watch all keys has no hub.

mod core;
mod index;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, Error, KeyRange, KeyspaceId, Revision};
use dkv_base::supervise::caught;
use dkv_base::sync::lock;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;
use tracing::debug;

use self::core::{Bounds, Core, WatcherId};
pub(crate) use self::core::{Interest, News, SharedChange};
use crate::limits::{
    HUB_LAG_MAX, KEY_BYTES_MAX, WATCH_JOIN_LOOKS, WATCH_QUEUE_MAX, WATCH_RING_BYTES,
    WATCH_ROOM_BYTES,
};

/// Time for which no hub begins after one was denied: its watches would join and leave it in turns.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds {
    ring_bytes: WATCH_RING_BYTES,
    queued: WATCH_QUEUE_MAX,
    taken_bytes: WATCH_ROOM_BYTES,
    looked_at: WATCH_JOIN_LOOKS,
};

/// The hub of a face, if it has one, and how its watches are served.
#[derive(Default)]
pub(crate) struct Hubs {
    hub: Mutex<Weak<Hub>>,
    /// When the network last denied the watch of all keys.
    denied: Arc<Mutex<Option<Instant>>>,
    shared: Arc<AtomicUsize>,
    alone: Arc<AtomicUsize>,
}

/// Returns whether a hub may begin after `shown` if the latest revision is `latest`: all that join
/// it have to wait until it has read what is in between.
pub(crate) fn is_near(shown: Revision, latest: Revision) -> bool {
    shown.0.saturating_add(HUB_LAG_MAX) >= latest.0
}

/// Counts a watch as long as it is served in a way.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hubs {
    /// Joins the hub with a watch that was shown everything up to a revision; `None` if it has to
    /// catch up first. If there is no hub, one begins there if it may.
    pub(crate) fn join(
        &self,
        store: &Client,
        interest: &Interest,
        shown: Revision,
        may_begin: bool,
    ) -> Option<Subscription> {
        // The network refuses a watch of such keys, and says why.
        let is_long = match &interest.keys {
            KeyRange::Key(key) | KeyRange::Prefix(key) => key.len() > KEY_BYTES_MAX,
            KeyRange::Range(from, to) => from.len().max(to.len()) > KEY_BYTES_MAX,
        };
        if is_long {
            return None;
        }
        let hub = self.hub(store, shown, may_begin)?;
        let woken = Arc::new(Notify::new());
        let mut state = lock(&hub.state);
        let id = state.core.join(interest.clone(), shown)?;
        state.wakers.insert(id, Arc::clone(&woken));
        drop(state);
        Some(Subscription { hub, id, woken, _counted: Counted::new(&self.shared) })
    }

    fn hub(&self, store: &Client, shown: Revision, may_begin: bool) -> Option<Arc<Hub>> {
        let mut known = lock(&self.hub);
        if let Some(hub) = known.upgrade().filter(|hub| hub.serves(store)) {
            return Some(hub);
        }
        let was_denied = lock(&self.denied).is_some_and(|at| at.elapsed() < DENIED_PAUSE);
        if was_denied || !may_begin {
            return None;
        }
        let hub = Hub::start(store.clone(), shown, Arc::clone(&self.denied));
        *known = Arc::downgrade(&hub);
        Some(hub)
    }

    /// Returns whether there is a hub to join for a keyspace.
    pub(crate) fn has_hub(&self, store: &Client) -> bool {
        lock(&self.hub).upgrade().is_some_and(|hub| hub.serves(store))
    }

    /// Counts a watch that is served by itself.
    pub(crate) fn count_alone(&self) -> Counted {
        Counted::new(&self.alone)
    }

    /// Returns the number of watches that share one of the network, and of those that have to catch
    /// up, or do so.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let (shared, alone) = (&self.shared, &self.alone);
        let (shared, alone) = (shared.load(Ordering::Relaxed), alone.load(Ordering::Relaxed));
        let lost = lock(&self.hub).upgrade().map_or(0, |hub| lock(&hub.state).core.lost());
        (shared.saturating_sub(lost), alone + lost)
    }

    /// Returns the number of watches of the network behind all watchers.
    pub(crate) fn upstream(&self) -> usize {
        let has_hub = lock(&self.hub).upgrade().is_some_and(|hub| !hub.has_ended());
        self.alone.load(Ordering::Relaxed) + usize::from(has_hub)
    }
}

/// A watch of the network for many watches. It ends when the last of them drops it.
struct Hub {
    keyspace: KeyspaceId,
    state: Mutex<State>,
    /// Aborted when the hub is dropped.
    task: Mutex<JoinSet<()>>,
}

struct State {
    core: Core,
    wakers: HashMap<WatcherId, Arc<Notify>>,
}

impl Hub {
    fn start(store: Client, after: Revision, denied: Arc<Mutex<Option<Instant>>>) -> Arc<Self> {
        let hub = Arc::new(Self {
            keyspace: store.keyspace_id(),
            state: Mutex::new(State { core: Core::new(after, BOUNDS), wakers: HashMap::new() }),
            task: Mutex::default(),
        });
        let follower = Arc::downgrade(&hub);
        lock(&hub.task).spawn(async move {
            let why = match caught(follow(store, after, follower.clone())).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    if matches!(error, Error::Denied(_)) {
                        *lock(&denied) = Some(Instant::now());
                    }
                    error.to_string()
                }
                Err(panicked) => {
                    tracing::error!("the task of all watches {panicked}; this is a bug in dkv");
                    panicked.to_string()
                }
            };
            debug!(why, "the watches of the face go on by themselves");
            if let Some(hub) = follower.upgrade() {
                hub.change(Core::end);
            }
        });
        hub
    }

    fn serves(&self, store: &Client) -> bool {
        self.keyspace == store.keyspace_id() && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).core.has_ended()
    }

    /// Changes the core, and wakes whom it says.
    fn change(&self, change: impl FnOnce(&mut Core, &mut Vec<WatcherId>)) {
        let mut woken = Vec::new();
        let mut state = lock(&self.state);
        change(&mut state.core, &mut woken);
        let State { wakers, .. } = &*state;
        woken.iter().filter_map(|id| wakers.get(id)).for_each(|waker| waker.notify_one());
    }
}

/// Follows the network until nobody watches any more.
async fn follow(store: Client, after: Revision, hub: Weak<Hub>) -> Result<(), Error> {
    let all = KeyRange::Prefix(Bytes::new());
    // API servers of Kubernetes always want the versions before, and a watch that begins to want
    // them must find them in the changes that there are.
    let options = dkv_api::WatchOptions::default().from(after).previous(true);
    let mut watch = store.watch(all, options).await?;
    loop {
        let page = watch.next_page().await?;
        let Some(hub) = hub.upgrade() else { return Ok(()) };
        let changes = page.changes.into_iter().map(SharedChange::new).map(Arc::new);
        let mut changes = changes.peekable();
        while let Some(first) = changes.next() {
            let revision = first.revision;
            let mut together = vec![first];
            while let Some(next) = changes.next_if(|next| next.revision == revision) {
                together.push(next);
            }
            hub.change(|core, woken| core.push(together, woken));
            if changes.peek().is_some() {
                // A long page would fill the queues before anybody could take something.
                yield_now().await;
            }
        }
        hub.change(|core, woken| core.advance(page.through, woken));
    }
}

/// A watch at the hub. Dropping it leaves.
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    id: WatcherId,
    woken: Arc<Notify>,
    _counted: Counted,
}

impl Subscription {
    /// Returns what to show next; see [`Core::take`].
    pub(crate) fn take(&self, awaited: Revision) -> News {
        lock(&self.hub.state).core.take(self.id, awaited)
    }

    /// Waits until there may be something to take. May be cancelled.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Returns the revision up to which everything was shown; `None` if there is something to take.
    pub(crate) fn shown(&self) -> Option<Revision> {
        lock(&self.hub.state).core.shown(self.id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.state);
        state.core.leave(self.id);
        state.wakers.remove(&self.id);
    }
}
