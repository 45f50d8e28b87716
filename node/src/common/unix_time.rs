//! Wall-clock time, for the few places that need it.

use std::time::UNIX_EPOCH;

use dkv_base::platform;

/// Returns the milliseconds since 1970 according to this machine's clock.
pub(crate) fn unix_ms() -> u64 {
    let since = platform::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
