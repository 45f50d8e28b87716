//! Wall-clock time, for the few places that need it.

use std::time::{SystemTime, UNIX_EPOCH};

use dkv_base::platform;

/// Returns the milliseconds since 1970 according to this machine's clock.
pub(crate) fn unix_ms() -> u64 {
    ms_of(platform::wall_clock())
}

/// Returns a time in milliseconds since 1970; zero if it was before.
pub(crate) fn ms_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
