//! The only module that reads the clock; all other code takes the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use dkv_base::platform;

/// Reads the wall clock.
pub(crate) fn now() -> SystemTime {
    platform::wall_clock()
}

/// Reads the wall clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    millis(now())
}

/// Returns the milliseconds from 1970 to `time`, zero for an earlier time.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
