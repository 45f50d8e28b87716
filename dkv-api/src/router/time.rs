//! The client's copy of the network's clock.
//!
//! A client has no clock of its own to trust: it is told the time by a node when it makes its first
//! eventual write, and counts on from there by what it measures. Whatever it sees moves it on, so
//! that what it writes next is later.

use std::time::Duration;

use dkv_base::hlc::Clock;
use dkv_base::id::Stamp;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Time {
    clock: Clock,
    /// What the network's clock showed, and when.
    told: Option<(Stamp, Duration)>,
    /// The latest moment of an eventual write that was made or seen.
    eventual: Stamp,
    /// Where the sequence is that stamps are spread by.
    spread: u64,
}

/// Bits by which stamps are spread: four microseconds.
const SPREAD_BITS: u32 = 14;

impl Time {
    /// A clock that nobody has told the time. `seed` must be random.
    pub(super) fn new(seed: u64) -> Self {
        Self { spread: seed, ..Self::default() }
    }

    /// A fresh stamp for an eventual write; zero while nobody has told the time.
    ///
    /// Clients that have seen the same stamp would all make the next one, and of writes with one
    /// stamp only one is kept. So each skips some, by a sequence of its own.
    pub(super) fn stamp(&mut self, now: Duration) -> Stamp {
        let Some((told, at)) = self.told else { return Stamp(0) };
        let next = self.clock.stamp(told.since_1970() + now.saturating_sub(at));
        // Knuth's MMIX generator; its high bits are the good ones.
        self.spread = self
            .spread
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let stamp = Stamp(next.0.saturating_add(self.spread >> (u64::BITS - SPREAD_BITS)));
        self.clock.observe(stamp);
        self.eventual = self.eventual.max(stamp);
        stamp
    }

    /// A node has told the time.
    pub(super) fn told(&mut self, now: Duration, stamp: Stamp) {
        self.told = Some((stamp, now));
    }

    /// An answer has shown a write of that moment, which may have been an eventual one that is not
    /// ordered yet.
    pub(super) fn seen(&mut self, stamp: Stamp, is_pending: bool) {
        self.clock.observe(stamp);
        if is_pending {
            self.eventual = self.eventual.max(stamp);
        }
    }

    /// What a strong write has to be later than; zero as long as no eventual write was met.
    pub(super) fn after(&self) -> Stamp {
        self.eventual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_saw_the_same_make_different_stamps() {
        let seen = Stamp::at(Duration::from_secs(1_000));
        let mut made = std::collections::BTreeSet::new();
        for seed in 0..10 {
            let mut time = Time::new(seed);
            assert_eq!(time.stamp(Duration::ZERO), Stamp(0), "nobody has told the time");
            time.told(Duration::ZERO, Stamp::at(Duration::from_secs(999)));
            time.seen(seen, true);
            let stamps = [time.stamp(Duration::ZERO), time.stamp(Duration::ZERO)];
            assert!(seen < stamps[0] && stamps[0] < stamps[1]);
            assert!(stamps[1].since_1970() - seen.since_1970() < Duration::from_micros(10));
            made.extend(stamps);
        }
        assert_eq!(made.len(), 20);
    }
}
