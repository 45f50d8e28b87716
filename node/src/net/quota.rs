//! Limits on the work that each peer may have in progress.
//!
//! The work in progress is bounded per connection, and again over all connections of one
//! certificate holder. A request takes its parts of the quota before more than the head of its
//! frame is read, and returns them when its answer has been written. A node therefore stops reading
//! from a peer that sends more than it may or does not read its answers, and that peer holds up
//! only itself.
//!
//! The length of an answer to a transaction is known once its results have been looked up. It takes
//! room then, before long values are read, from a share of its own: a request that holds room never
//! waits for more of the same. A value that was read, or came from another node, takes its room
//! there as well. It does not wait for it: while it waits, it would be in memory.
//!
//! Watches last, so their number is limited, and so is the memory of their frames: a watcher that
//! does not read holds the frame that it was sent last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use dkv_base::id::HolderId;
use dkv_base::sync::lock;
use dkv_wire::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a frame per part of the quota; every request takes one part in addition.
const BYTES_A_PART: usize = 4096;
/// Additional parts that a scan takes, because its answer is large.
const SCAN_PARTS: u32 = (limits::SCAN_BYTES_MAX / BYTES_A_PART) as u32;
/// Parts that one connection may hold.
pub(crate) const CONNECTION_PARTS: usize = 4 * limits::CONNECTION_REQUESTS_MAX;
/// Parts that all connections of one holder may hold together.
pub(crate) const HOLDER_PARTS: usize = 2 * CONNECTION_PARTS;
/// Parts that the frames of one holder's watches may hold.
const WATCH_PARTS: usize = limits::HOLDER_WATCH_BYTES_MAX / BYTES_A_PART;
/// Parts that the values in the answers to one holder may hold.
const RESULT_PARTS: usize = limits::HOLDER_RESULT_BYTES_MAX / BYTES_A_PART;
/// Parts that the values in the answers on one connection may hold, apart from those for which a
/// transaction waits.
const CONNECTION_RESULT_PARTS: usize = RESULT_PARTS / 2;

const _: () = {
    assert!(limits::FRAME_BYTES_MAX / BYTES_A_PART < CONNECTION_PARTS);
    assert!(CONNECTION_PARTS <= HOLDER_PARTS);
    assert!(limits::FRAME_BYTES_MAX / BYTES_A_PART < CONNECTION_RESULT_PARTS);
};

/// The quotas of all connected holders.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<HashMap<HolderId, Weak<HolderQuota>>>);

/// The quota of one connection, and of its holder.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    connection: Arc<Semaphore>,
    connection_watches: Arc<Semaphore>,
    connection_results: Arc<Semaphore>,
    holder: Arc<HolderQuota>,
}

/// The quota of all connections of one holder.
#[derive(Debug)]
struct HolderQuota {
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    frames: Arc<Semaphore>,
    results: Arc<Semaphore>,
}

/// The parts that a request holds.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    connection: OwnedSemaphorePermit,
    holder: OwnedSemaphorePermit,
    connection_results: Arc<Semaphore>,
    of: Arc<HolderQuota>,
    /// Parts for the values in its answer.
    results: Option<ResultPermit>,
}

/// The parts that the values in an answer hold.
#[derive(Debug)]
struct ResultPermit {
    /// `None` if they waited for room at the holder alone.
    _connection: Option<OwnedSemaphorePermit>,
    _holder: OwnedSemaphorePermit,
}

/// The place of one watch among those of its connection and its holder.
#[derive(Debug)]
pub(crate) struct WatchPermit {
    _connection: OwnedSemaphorePermit,
    _holder: OwnedSemaphorePermit,
}

/// The memory of one frame of a watch.
#[derive(Debug)]
pub(crate) struct WatchFramePermit {
    _frame: Option<OwnedSemaphorePermit>,
}

impl Quotas {
    /// Returns the quota for a new connection of a holder.
    pub(crate) fn of(&self, holder: HolderId) -> Quota {
        let mut quotas = lock(&self.0);
        let known = quotas.get(&holder).and_then(Weak::upgrade);
        let holder = known.unwrap_or_else(|| {
            quotas.retain(|_, quota| quota.strong_count() > 0);
            let quota = Arc::new(HolderQuota {
                requests: Arc::new(Semaphore::new(HOLDER_PARTS)),
                watches: Arc::new(Semaphore::new(limits::HOLDER_WATCHES_MAX)),
                frames: Arc::new(Semaphore::new(WATCH_PARTS)),
                results: Arc::new(Semaphore::new(RESULT_PARTS)),
            });
            quotas.insert(holder, Arc::downgrade(&quota));
            quota
        });
        Quota {
            connection: Arc::new(Semaphore::new(CONNECTION_PARTS)),
            connection_watches: Arc::new(Semaphore::new(limits::CONNECTION_WATCHES_MAX)),
            connection_results: Arc::new(Semaphore::new(CONNECTION_RESULT_PARTS)),
            holder,
        }
    }
}

impl Quota {
    /// Waits for room for a request with a frame of `bytes` bytes.
    pub(crate) async fn take(&self, bytes: usize) -> Option<QuotaPermit> {
        self.take_parts(u32::try_from(1 + bytes / BYTES_A_PART).ok()?).await
    }

    /// Waits for the additional room that a scan takes.
    pub(crate) async fn take_scan(&self) -> Option<QuotaPermit> {
        self.take_parts(SCAN_PARTS).await
    }

    /// Takes from the connection's quota first: a request that waits there takes nothing from the
    /// holder's other connections.
    async fn take_parts(&self, parts: u32) -> Option<QuotaPermit> {
        let connection = Arc::clone(&self.connection).acquire_many_owned(parts).await.ok()?;
        let holder = Arc::clone(&self.holder.requests).acquire_many_owned(parts).await.ok()?;
        let connection_results = Arc::clone(&self.connection_results);
        let of = Arc::clone(&self.holder);
        Some(QuotaPermit { connection, holder, connection_results, of, results: None })
    }

    /// Takes the place of a watch, if there is one.
    pub(crate) fn take_watch(&self) -> Option<WatchPermit> {
        let connection = Arc::clone(&self.connection_watches).try_acquire_owned().ok()?;
        let holder = Arc::clone(&self.holder.watches).try_acquire_owned().ok()?;
        Some(WatchPermit { _connection: connection, _holder: holder })
    }

    /// Returns the number of watches of this connection.
    pub(crate) fn watches(&self) -> usize {
        limits::CONNECTION_WATCHES_MAX - self.connection_watches.available_permits()
    }

    /// Waits for room for a frame of a watch with `bytes` bytes. A small one needs none.
    pub(crate) async fn take_watch_frame(&self, bytes: usize) -> Option<WatchFramePermit> {
        let parts = (bytes / BYTES_A_PART).min(WATCH_PARTS) as u32;
        if parts == 0 {
            return Some(WatchFramePermit { _frame: None });
        }
        let frame = Arc::clone(&self.holder.frames).acquire_many_owned(parts).await.ok()?;
        Some(WatchFramePermit { _frame: Some(frame) })
    }
}

impl QuotaPermit {
    /// Merges another permit into this one.
    pub(crate) fn merge(&mut self, more: Self) {
        self.connection.merge(more.connection);
        self.holder.merge(more.holder);
    }

    /// Waits for room for results of `bytes` bytes, which lasts as long as the permit. Short ones
    /// need none.
    pub(crate) async fn take_results(&mut self, bytes: usize) {
        let parts = (bytes / BYTES_A_PART).min(RESULT_PARTS) as u32;
        if parts == 0 || self.results.is_some() {
            return;
        }
        // It is never closed.
        let holder = Arc::clone(&self.of.results).acquire_many_owned(parts).await.ok();
        self.results = holder.map(|_holder| ResultPermit { _connection: None, _holder });
    }

    /// Takes room for values of `bytes` bytes, which lasts as long as the permit. Short ones need
    /// none, nor those for which room was taken before.
    ///
    /// Returns false, without a wait, if the connection or the holder has no room.
    pub(crate) fn try_results(&mut self, bytes: usize) -> bool {
        let parts = (bytes / BYTES_A_PART).min(CONNECTION_RESULT_PARTS) as u32;
        if parts == 0 || self.results.is_some() {
            return true;
        }
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_many_owned(parts).ok();
        let Some(_connection) = take(&self.connection_results).map(Some) else { return false };
        let Some(_holder) = take(&self.of.results) else { return false };
        self.results = Some(ResultPermit { _connection, _holder });
        true
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_holder_has_one_share_over_all_its_connections_and_others_have_their_own() {
        let (quotas, holder) = (Quotas::default(), HolderId::random());
        let whole = CONNECTION_PARTS - 1;
        let connections: Vec<_> = (0..3).map(|_| quotas.of(holder)).collect();
        let taken: Vec<_> = connections
            .iter()
            .map(|quota| quota.take(whole * BYTES_A_PART).now_or_never().flatten())
            .collect();
        // Two connections use up their holder's quota.
        assert_eq!(taken.iter().filter(|part| part.is_some()).count(), 2);
        assert!(connections[0].take(0).now_or_never().is_none(), "over the connection's share");
        let other = quotas.of(HolderId::random());
        assert!(other.take(whole * BYTES_A_PART).now_or_never().flatten().is_some());
        drop(taken);
        assert!(connections[2].take(whole * BYTES_A_PART).now_or_never().flatten().is_some());
    }

    #[test]
    fn watches_are_limited_by_connection_and_by_holder() {
        let (quotas, holder) = (Quotas::default(), HolderId::random());
        let fill =
            |quota: &Quota| -> Vec<_> { std::iter::from_fn(|| quota.take_watch()).collect() };
        let connections: Vec<_> = (0..5).map(|_| quotas.of(holder)).collect();
        let mut taken: Vec<_> = connections.iter().map(fill).collect();
        let counts: Vec<_> = connections.iter().map(Quota::watches).collect();
        let most = limits::CONNECTION_WATCHES_MAX;
        let rest = limits::HOLDER_WATCHES_MAX - 4 * most;
        assert_eq!(counts, [most, most, most, most, rest]);
        taken[0].pop();
        assert!(connections[4].take_watch().is_some());
        // A frame waits for the memory of the others.
        let frame = |bytes| connections[0].take_watch_frame(bytes).now_or_never().flatten();
        let whole = frame(2 * limits::HOLDER_WATCH_BYTES_MAX);
        assert!(whole.is_some() && frame(BYTES_A_PART).is_none() && frame(100).is_some());
        drop(whole);
        assert!(frame(BYTES_A_PART).is_some());
    }

    #[test]
    fn results_wait_for_the_room_of_others() {
        let (quotas, holder) = (Quotas::default(), HolderId::random());
        let request = |quota: &Quota| quota.take(100).now_or_never().flatten().unwrap();
        let connections = [quotas.of(holder), quotas.of(holder)];
        let mut requests: Vec<_> = connections.iter().cycle().take(9).map(request).collect();
        let fits =
            |request: &mut QuotaPermit, bytes| request.take_results(bytes).now_or_never().is_some();
        let longest = limits::TRANSACTION_BYTES_MAX;
        let fit = requests.iter_mut().filter_map(|it| fits(it, longest).then_some(())).count();
        assert_eq!(fit, limits::HOLDER_RESULT_BYTES_MAX / longest);
        assert!(fits(&mut requests[8], 100), "short ones need none");
        assert!(!fits(&mut requests[8], BYTES_A_PART));
        requests.remove(0);
        assert!(fits(&mut requests[7], longest));
        let mut other = request(&quotas.of(HolderId::random()));
        assert!(fits(&mut other, longest));
    }

    #[test]
    fn values_take_room_of_their_connection_and_of_their_holder() {
        let (quotas, holder) = (Quotas::default(), HolderId::random());
        let request = |quota: &Quota| quota.take(100).now_or_never().flatten().unwrap();
        let connections = [quotas.of(holder), quotas.of(holder), quotas.of(holder)];
        let value = 1024 * 1024;
        let fill = |quota: &Quota| -> Vec<_> {
            let requests = std::iter::repeat_with(|| request(quota));
            let with_room = |mut it: QuotaPermit| it.try_results(value).then_some(it);
            requests.map_while(with_room).collect()
        };
        let mut taken: Vec<_> = connections.iter().map(fill).collect();
        let half = limits::HOLDER_RESULT_BYTES_MAX / value / 2;
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [half, half, 0]);
        assert!(request(&connections[2]).try_results(BYTES_A_PART - 1), "short ones need none");
        assert!(taken[0][0].try_results(value), "it has room already");
        taken[0].pop();
        assert!(!request(&connections[1]).try_results(value), "over the connection's share");
        assert!(request(&connections[2]).try_results(value));
        assert!(request(&quotas.of(HolderId::random())).try_results(value));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let quotas = Quotas::default();
        for _ in 0..10 {
            drop(quotas.of(HolderId::random()));
        }
        let kept = quotas.0.lock().unwrap().len();
        assert_eq!(kept, 1);
    }
}
