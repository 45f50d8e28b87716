//! The network's clock: a hybrid logical clock.
//!
//! A [`Stamp`] orders what no log orders yet: eventual writes that different nodes accept without
//! asking each other. Stamps are as close to wall-clock time as the clocks of the nodes involved,
//! and a stamp is later than every stamp its maker had seen, so that an effect is always later than
//! its cause. The algorithm is that of S. Kulkarni, M. Demirbas, D. Madappa, B. Avva, M. Leone,
//! *Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases*, 2014, in
//! its compact form: the logical part takes the lowest bits of the physical one, and carries over
//! into it.
//!
//! A clock that is far ahead moves every clock that receives its stamps ahead. That does no other
//! harm: order is kept. So that no client can move the clock to its end, a node accepts a stamp
//! from outside only if it is ahead of the node's wall clock by no more than [`CLOCK_SKEW`], or not
//! ahead of the stamps that the node has seen already.

use std::time::Duration;

use crate::id::Stamp;

/// How far a remote clock may be ahead of our own before its stamps and certificates are refused or
/// replaced.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Lowest bits of a stamp: the counter within a microsecond.
const LOGICAL_BITS: u32 = 12;

impl Stamp {
    /// The first stamp of a moment, which is given as the time since 1970.
    pub fn at(since_1970: Duration) -> Self {
        let micros = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX);
        Self(micros.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS)
    }

    /// The next stamp.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The moment of the stamp, as the time since 1970.
    pub fn since_1970(self) -> Duration {
        Duration::from_micros(self.0 >> LOGICAL_BITS)
    }
}

/// A hybrid logical clock. Its only state is the latest stamp; the time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// Makes a stamp that is later than all that this clock made or saw. `wall` is the wall-clock
    /// time since 1970.
    pub fn stamp(&mut self, wall: Duration) -> Stamp {
        let before = self.last;
        self.last = before.next().max(Stamp::at(wall));
        debug_assert!(self.last > before || before == Stamp(u64::MAX), "the clock stood still");
        self.last
    }

    /// Takes note of a stamp that was made elsewhere.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// The latest stamp that this clock made or saw.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Whether a stamp from outside is acceptable, by the bound of [`CLOCK_SKEW`].
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
        fn an_effect_is_later_than_its_cause_whatever_the_wall_clocks_show(
            steps in proptest::collection::vec((0..3_usize, 0..3_usize, 0..50_u64), 1..200),
        ) {
            // Three processes whose wall clocks differ and jump; a step is a message between two of
            // them.
            let mut clocks = [Clock::default(); 3];
            let mut seen = [Stamp(0); 3];
            for (from, to, wall_us) in steps {
                let sent = clocks[from].stamp(Duration::from_micros(wall_us));
                prop_assert!(sent > seen[from], "it is later than all that its maker had seen");
                prop_assert!(sent >= Stamp::at(Duration::from_micros(wall_us)));
                seen[from] = sent;
                clocks[to].observe(sent);
                seen[to] = seen[to].max(sent);
            }
        }
    }

    #[test]
    fn a_stamp_from_outside_cannot_move_the_clock_to_its_end() {
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
