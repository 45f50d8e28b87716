//! The node's copy of the network's clock, shared by everything on the node.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use dkv_base::hlc::Clock;
use dkv_base::id::Stamp;
use dkv_base::platform;
use dkv_base::sync::lock;

/// Greatest lag of a client's stamp behind this clock: longer than a client keeps retrying a write.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// A hybrid logical clock driven by this machine's wall clock. Clones share the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeClock {
    clock: Arc<Mutex<Clock>>,
}

impl NodeClock {
    /// Returns a fresh stamp.
    pub(crate) fn stamp(&self) -> Stamp {
        self.lock().stamp(wall())
    }

    /// Advances the clock to a stamp that was received.
    pub(crate) fn observe(&self, stamp: Stamp) {
        self.lock().observe(stamp);
    }

    /// Returns the latest stamp that this node has issued or observed.
    pub(crate) fn last(&self) -> Stamp {
        self.lock().last()
    }

    /// Returns whether a client can legitimately have seen this stamp.
    pub(crate) fn allows(&self, stamp: Stamp) -> bool {
        // Most clients have seen no stamp, so the check needs no look at the clock.
        stamp == Stamp::default() || self.lock().allows(stamp, wall())
    }

    /// Observes the stamp that a client has given to a write.
    ///
    /// # Errors
    /// Fails if the stamp is too far from this clock; the error is a fresh stamp of this clock.
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
        lock(&self.clock)
    }
}

/// Returns the time since 1970 according to the wall clock.
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
