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
}

impl Time {
    /// A fresh stamp for an eventual write; zero while nobody has told the time.
    pub(super) fn stamp(&mut self, now: Duration) -> Stamp {
        let Some((told, at)) = self.told else { return Stamp(0) };
        let stamp = self.clock.stamp(told.since_1970() + now.saturating_sub(at));
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
