//! The network's clock: a hybrid logical clock.
//!
//! A [`Stamp`] orders what no log orders yet: writes that different nodes take without asking each
//! other. It is as close to the time on the wall as the clocks of those who met are, and never
//! behind anything that its maker had seen, so that an effect is always later than its cause. The
//! algorithm is that of S. Kulkarni, M. Demirbas, D. Madappa, B. Avva, M. Leone, *Logical Physical
//! Clocks and Consistent Snapshots in Globally Distributed Databases*, 2014, in its compact form:
//! the logical part takes the lowest bits of the physical one, and carries over into it.
//!
//! A clock that is far ahead moves all that hear of it ahead, and does no more harm than that:
//! order is kept. So that nobody can move it to its end, what comes from a client may not be ahead
//! of the node's own wall by more than [`CLOCK_SKEW`], unless the node was so already.

use std::time::Duration;

use crate::id::Stamp;

/// How far ahead of our own a clock elsewhere may be without being refused.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Bits of a stamp that count within a microsecond.
const LOGICAL_BITS: u32 = 12;

impl Stamp {
    /// The first stamp of a moment, given as the time since 1970.
    pub fn at(since_1970: Duration) -> Self {
        let micros = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX);
        Self(micros.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS)
    }

    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The moment that it is of, since 1970.
    pub fn since_1970(self) -> Duration {
        Duration::from_micros(self.0 >> LOGICAL_BITS)
    }
}

/// One clock. Clocks and moments are passed in; it keeps the latest stamp only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A fresh stamp, later than all that this clock made or saw. The time is that on the wall,
    /// since 1970.
    pub fn stamp(&mut self, wall: Duration) -> Stamp {
        self.last = self.last.next().max(Stamp::at(wall));
        self.last
    }

    /// Takes note of a stamp that somebody else made.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// The latest that it made or saw.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Whether a stamp that comes from outside may be believed.
    pub fn allows(&self, stamp: Stamp, wall: Duration) -> bool {
        stamp <= self.last.max(Stamp::at(wall + CLOCK_SKEW))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_effect_is_later_than_its_cause_whatever_the_walls_show(
            steps in proptest::collection::vec((0..3_usize, 0..3_usize, 0..50_u64), 1..200),
        ) {
            // Three processes whose walls are apart and jump; a step is a message between two of
            // them.
            let mut clocks = [Clock::default(); 3];
            let mut seen = [Stamp(0); 3];
            for (from, to, wall_us) in steps {
                let sent = clocks[from].stamp(Duration::from_micros(wall_us));
                prop_assert!(sent > seen[from], "it is later than all that its maker knew");
                prop_assert!(sent >= Stamp::at(Duration::from_micros(wall_us)));
                seen[from] = sent;
                clocks[to].observe(sent);
                seen[to] = seen[to].max(sent);
            }
        }
    }

    #[test]
    fn nobody_moves_the_clock_to_its_end() {
        let wall = Duration::from_secs(1_000_000);
        let mut clock = Clock::default();
        assert!(!clock.allows(Stamp(u64::MAX), wall));
        let ahead = Stamp::at(wall + CLOCK_SKEW);
        assert!(clock.allows(ahead, wall));
        clock.observe(ahead);
        assert!(!clock.allows(ahead.next(), wall), "not step by step either");
        assert!(clock.allows(ahead, wall));
        assert_eq!(clock.stamp(wall), ahead.next(), "its own stamps go on from there");
    }
}
