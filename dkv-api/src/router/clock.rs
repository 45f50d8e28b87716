//! The client's copy of the network's clock.
//!
//! A client has no trusted clock of its own. A node reports the time when the client makes its
//! first eventual write, and the client advances it by its own monotonic clock. Every receipt moves
//! it forward, so that what the client writes next is later.

use std::time::Duration;

use dkv_base::hlc::Clock;
use dkv_base::id::Stamp;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NetworkClock {
    clock: Clock,
    /// The last reading of the network's clock, and when it was taken.
    reading: Option<(Stamp, Duration)>,
    /// The latest stamp of an eventual write that this client made or saw.
    latest_eventual: Stamp,
}

impl NetworkClock {
    /// Returns a fresh stamp for an eventual write; zero before the first reading.
    pub(super) fn stamp(&mut self, now: Duration) -> Stamp {
        let Some((reading, read_at)) = self.reading else { return Stamp(0) };
        let stamp = self.clock.stamp(reading.since_1970() + now.saturating_sub(read_at));
        self.latest_eventual = self.latest_eventual.max(stamp);
        stamp
    }

    /// Sets the clock to what a node has reported.
    pub(super) fn set(&mut self, now: Duration, stamp: Stamp) {
        self.reading = Some((stamp, now));
    }

    /// Moves the clock past the stamp of a write that an answer has shown. `is_pending` if that may
    /// be an eventual write that is not ordered yet.
    pub(super) fn observe(&mut self, stamp: Stamp, is_pending: bool) {
        self.clock.observe(stamp);
        if is_pending {
            self.latest_eventual = self.latest_eventual.max(stamp);
        }
    }

    /// Returns the stamp that a strong write has to exceed; zero if this client has met no eventual
    /// write.
    pub(super) fn latest_eventual(&self) -> Stamp {
        self.latest_eventual
    }
}
