//! The clock, for those few places that need one.

use std::time::UNIX_EPOCH;

use dkv_base::platform;

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn unix_ms() -> u64 {
    let since = platform::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
