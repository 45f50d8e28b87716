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
    /// State of the pseudorandom sequence that spreads stamps.
    spread: u64,
}

/// Bits by which stamps are spread: 2^14 stamps are four microseconds.
const SPREAD_BITS: u32 = 14;

impl NetworkClock {
    /// Creates a clock without a reading. `seed` must be random.
    pub(super) fn new(seed: u64) -> Self {
        Self { spread: seed, ..Self::default() }
    }

    /// Returns a fresh stamp for an eventual write; zero before the first reading.
    ///
    /// Clients that have seen the same stamp would all make the next one, and a shard keeps only
    /// one of several writes of a key with the same stamp. Each client therefore skips a
    /// pseudorandom number of stamps.
    pub(super) fn stamp(&mut self, now: Duration) -> Stamp {
        let Some((reading, read_at)) = self.reading else { return Stamp(0) };
        let next = self.clock.stamp(reading.since_1970() + now.saturating_sub(read_at));
        // Knuth's MMIX generator; its high bits are the good ones.
        self.spread = self
            .spread
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let stamp = Stamp(next.0.saturating_add(self.spread >> (u64::BITS - SPREAD_BITS)));
        self.clock.observe(stamp);
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

#[cfg(test)]
mod tests;
