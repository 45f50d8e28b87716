//! The node's copy of the network's clock, which everything on it shares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use dkv_base::hlc::Clock;
use dkv_base::id::Stamp;
use dkv_base::platform;

/// Time that a stamp of a client may be behind: longer than it goes on trying to get its write
/// taken.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// A hybrid logical clock on the wall clock of this machine. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeClock {
    clock: Arc<Mutex<Clock>>,
}

impl NodeClock {
    /// A fresh stamp.
    pub(crate) fn stamp(&self) -> Stamp {
        self.lock().stamp(wall())
    }

    /// Takes note of a stamp.
    pub(crate) fn observe(&self, stamp: Stamp) {
        self.lock().observe(stamp);
    }

    /// The latest stamp that was made here or seen.
    pub(crate) fn last(&self) -> Stamp {
        self.lock().last()
    }

    /// Whether a client may have seen such a stamp.
    pub(crate) fn allows(&self, stamp: Stamp) -> bool {
        // Most have seen none, and need no look at the clock.
        stamp == Stamp::default() || self.lock().allows(stamp, wall())
    }

    /// Takes note of the stamp that a client has given to a write.
    ///
    /// # Errors
    /// If it is too far from this clock; with what this clock shows.
    pub(crate) fn admit(&self, stamp: Stamp) -> Result<(), Stamp> {
        let mut clock = self.lock();
        let wall = wall();
        let least = Stamp::at(wall.saturating_sub(BEHIND_MAX));
        if stamp < least || !clock.allows(stamp, wall) {
            return Err(clock.stamp(wall));
        }
        clock.observe(stamp);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time since 1970, by the clock on the wall.
pub(crate) fn wall() -> Duration {
    platform::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_a_clock_is_told_the_time() {
        let clock = NodeClock::default();
        let now = clock.admit(Stamp(0)).unwrap_err();
        assert_eq!(clock.admit(now), Ok(()));
        assert!(clock.stamp() > now);
        assert!(clock.admit(Stamp(u64::MAX)).is_err());
        let long_ago = Stamp::at(now.since_1970() - 2 * BEHIND_MAX);
        assert!(clock.admit(long_ago).is_err());
        assert!(clock.allows(long_ago), "to have seen it is no harm");
    }
}
