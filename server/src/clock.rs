//! The one place that reads the clock; everything else is told the time.

use std::time::{SystemTime, UNIX_EPOCH};

use dkv_base::platform;

pub(crate) fn now() -> SystemTime {
    platform::wall_clock()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    millis(now())
}

/// Milliseconds from 1970 to `time`.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
