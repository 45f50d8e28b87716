//! A machine that was suspended.
//!
//! The clock that measures ages stands still while Linux is suspended (`CLOCK_MONOTONIC`), so what
//! was heard before looks as young as it was then, and what waited in a socket meanwhile as if it
//! had just been sent. Another clock goes on (`CLOCK_BOOTTIME`): the difference between both is the
//! time that was slept. For a while after it has grown, no age is told. Only a hypervisor can stop
//! both; nobody inside can tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dkv_base::platform;
use tokio::time::Instant;

/// Time after a suspend in which ages are not known: what was on its way has arrived by then, and
/// connections whose other end has given up are made anew.
const UNSURE_FOR: Duration = Duration::from_secs(10);
/// Time slept that is no more than two clocks that are read one after the other.
const NO_SLEEP: Duration = Duration::from_millis(50);

static SLEEPS: Mutex<Sleeps> = Mutex::new(Sleeps { slept: None, woke: None });
/// What was slept, in milliseconds, as it was seen last, while nothing is unsure: every read with a
/// bound asks, and need not wait for the others.
static SETTLED_MS: AtomicU64 = AtomicU64::new(UNSEEN);
const UNSEEN: u64 = u64::MAX;

/// Whether this machine was suspended a moment ago, so that ages are not what they seem. To be
/// asked from the beginning on.
pub(crate) fn woke_lately() -> bool {
    let slept = platform::slept();
    let slept_ms = slept.as_millis() as u64;
    let settled_ms = SETTLED_MS.load(Ordering::Relaxed);
    if settled_ms != UNSEEN && slept_ms.saturating_sub(settled_ms) <= NO_SLEEP.as_millis() as u64 {
        return false;
    }
    let mut sleeps = SLEEPS.lock().unwrap_or_else(PoisonError::into_inner);
    let lately = sleeps.look(slept, Instant::now());
    SETTLED_MS.store(if lately { UNSEEN } else { slept_ms }, Ordering::Relaxed);
    lately
}

/// What is known of suspends, as plain data.
struct Sleeps {
    /// The time slept as it was seen last.
    slept: Option<Duration>,
    /// When it was seen to have grown.
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
