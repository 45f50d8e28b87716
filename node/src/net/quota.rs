//! How much of this node's attention each peer has.
//!
//! What is under way of a connection is bounded, and so is what is under way over all connections
//! of one holder of a certificate. A request takes its part before more than the head of its frame
//! is read, and gives it back when its answer is written: a peer that sends more than it may, or
//! does not read its answers, is not read from, and holds up nobody but itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dkv_base::id::HolderId;
use dkv_wire::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request takes one part, and one more for each of these bytes.
const BYTES_A_PART: usize = 4096;
/// Parts that a scan takes besides: it is its answer that is large.
const SCAN_PARTS: u32 = (limits::SCAN_BYTES_MAX / BYTES_A_PART) as u32;
/// Parts that a connection may have under way.
pub(crate) const CONNECTION_PARTS: usize = 4 * limits::CONNECTION_REQUESTS_MAX;
/// Parts that all connections of one holder may have under way together.
pub(crate) const HOLDER_PARTS: usize = 2 * CONNECTION_PARTS;

const _: () = {
    assert!(limits::FRAME_BYTES_MAX / BYTES_A_PART < CONNECTION_PARTS);
    assert!(CONNECTION_PARTS <= HOLDER_PARTS);
};

/// The shares of all holders that are connected.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<HolderId, Weak<Semaphore>>>);

/// What one connection may have under way, and its holder.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    connection: Arc<Semaphore>,
    holder: Arc<Semaphore>,
}

/// What a request has taken.
#[derive(Debug)]
pub(crate) struct Part {
    connection: OwnedSemaphorePermit,
    holder: OwnedSemaphorePermit,
}

impl Shares {
    /// The share of a new connection of a holder.
    pub(crate) fn of(&self, holder: HolderId) -> Share {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shares.get(&holder).and_then(Weak::upgrade);
        let holder = known.unwrap_or_else(|| {
            shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::new(Semaphore::new(HOLDER_PARTS));
            shares.insert(holder, Arc::downgrade(&share));
            share
        });
        Share { connection: Arc::new(Semaphore::new(CONNECTION_PARTS)), holder }
    }
}

impl Share {
    /// Waits for room for a request whose frame is so long.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Part> {
        self.take_parts(u32::try_from(1 + bytes / BYTES_A_PART).ok()?).await
    }

    /// Waits for the room that a scan takes besides.
    pub(crate) async fn take_scan(&self) -> Option<Part> {
        self.take_parts(SCAN_PARTS).await
    }

    /// First of the connection's: who waits there takes nothing from the holder's others.
    async fn take_parts(&self, parts: u32) -> Option<Part> {
        let connection = Arc::clone(&self.connection).acquire_many_owned(parts).await.ok()?;
        let holder = Arc::clone(&self.holder).acquire_many_owned(parts).await.ok()?;
        Some(Part { connection, holder })
    }
}

impl Part {
    /// Takes in another one.
    pub(crate) fn merge(&mut self, more: Self) {
        self.connection.merge(more.connection);
        self.holder.merge(more.holder);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_holder_has_one_share_over_all_its_connections_and_others_have_their_own() {
        let (shares, holder) = (Shares::default(), HolderId::random());
        let whole = CONNECTION_PARTS - 1;
        let connections: Vec<_> = (0..3).map(|_| shares.of(holder)).collect();
        let taken: Vec<_> = connections
            .iter()
            .map(|share| share.take(whole * BYTES_A_PART).now_or_never().flatten())
            .collect();
        // Two connections use up what their holder may have.
        assert_eq!(taken.iter().filter(|part| part.is_some()).count(), 2);
        assert!(connections[0].take(0).now_or_never().is_none(), "over the connection's share");
        let other = shares.of(HolderId::random());
        assert!(other.take(whole * BYTES_A_PART).now_or_never().flatten().is_some());
        drop(taken);
        assert!(connections[2].take(whole * BYTES_A_PART).now_or_never().flatten().is_some());
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let shares = Shares::default();
        for _ in 0..10 {
            drop(shares.of(HolderId::random()));
        }
        let kept = shares.0.lock().unwrap().len();
        assert_eq!(kept, 1);
    }
}
