//! Detection of a suspended machine.
//!
//! The clock that measures ages (`CLOCK_MONOTONIC`) stands still while Linux is suspended, so a
//! message heard before the suspend looks as young as it did then, and one that waited in a socket
//! meanwhile looks as if it had just been sent. `CLOCK_BOOTTIME` keeps running: the difference
//! between the two clocks is the time spent suspended. For a while after that difference has grown,
//! ages count as unknown. Only a hypervisor can stop both clocks, and a guest cannot detect that.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dkv_base::platform;
use dkv_base::sync::lock;
use tokio::time::Instant;

/// Time after a suspend during which ages are unknown. By its end, messages that were in transit
/// have arrived, and connections whose other end has given up have been re-established.
const UNSURE_FOR: Duration = Duration::from_secs(10);
/// Largest growth of the difference that comes merely from reading the two clocks one after the
/// other.
const NO_SLEEP: Duration = Duration::from_millis(50);

static SLEEPS: Mutex<Sleeps> = Mutex::new(Sleeps { slept: None, woke: None });
/// Last observed time spent suspended, in milliseconds, or [`UNSEEN`] while ages are unknown. Every
/// read with a bound checks for a suspend; this spares it the lock.
static SETTLED_MS: AtomicU64 = AtomicU64::new(UNSEEN);
const UNSEEN: u64 = u64::MAX;

/// Returns whether this machine was suspended a moment ago, so that ages are unreliable. The first
/// call sets the baseline, so callers must start asking when the process starts.
pub(crate) fn woke_lately() -> bool {
    let slept = platform::slept();
    let slept_ms = slept.as_millis() as u64;
    let settled_ms = SETTLED_MS.load(Ordering::Relaxed);
    if settled_ms != UNSEEN && slept_ms.saturating_sub(settled_ms) <= NO_SLEEP.as_millis() as u64 {
        return false;
    }
    let mut sleeps = lock(&SLEEPS);
    let lately = sleeps.look(slept, Instant::now());
    SETTLED_MS.store(if lately { UNSEEN } else { slept_ms }, Ordering::Relaxed);
    lately
}

/// The observed suspends, as plain data.
struct Sleeps {
    /// The last observed time spent suspended.
    slept: Option<Duration>,
    /// When that time was last seen to have grown.
    woke: Option<Instant>,
}

impl Sleeps {
    fn look(&mut self, slept: Duration, now: Instant) -> bool {
        let before = self.slept.replace(slept).unwrap_or(slept);
        if slept.saturating_sub(before) > NO_SLEEP {
            self.woke = Some(now);
        }
        self.woke.is_some_and(|woke| now.saturating_duration_since(woke) < UNSURE_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_suspend_no_age_is_told_for_a_while() {
        let (mut sleeps, begun) = (Sleeps { slept: None, woke: None }, Instant::now());
        let hour = Duration::from_secs(3600);
        assert!(!sleeps.look(hour, begun), "it was suspended before this process began");
        assert!(!sleeps.look(hour + NO_SLEEP, begun));
        let woke = begun + Duration::from_secs(1);
        assert!(sleeps.look(2 * hour, woke));
        assert!(sleeps.look(2 * hour, woke + UNSURE_FOR / 2));
        assert!(!sleeps.look(2 * hour, woke + UNSURE_FOR));
    }
}
