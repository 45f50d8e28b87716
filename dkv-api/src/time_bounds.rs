//! Bounds of times to live.

use std::time::Duration;

use dkv_wire::limits::{KEY_TTL_MIN, TTL_MAX};
use dkv_wire::message;

use crate::attach::{Attach, whole_ms};
use crate::error::Error;

/// Checks what a put attaches its key to, and returns what the protocol says.
///
/// # Errors
/// [`Error::TtlOutOfBounds`].
pub(crate) fn checked_attach(attach: Attach) -> Result<message::Attach, Error> {
    if let Attach::Ttl(ttl) = attach {
        checked_ttl(ttl, KEY_TTL_MIN)?;
    }
    Ok(attach.to_wire())
}

/// Checks a time to live, and returns its milliseconds.
///
/// # Errors
/// [`Error::TtlOutOfBounds`].
pub(crate) fn checked_ttl(ttl: Duration, least: Duration) -> Result<u64, Error> {
    match (least..=TTL_MAX).contains(&ttl) {
        true => Ok(whole_ms(ttl)),
        false => Err(Error::TtlOutOfBounds { ttl, least, most: TTL_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use dkv_base::id::LeaseId;

    use super::*;

    #[test]
    fn a_time_to_live_has_bounds_and_is_rounded_up() {
        let ttl = |ns| checked_attach(Attach::Ttl(Duration::from_nanos(ns)));
        assert_eq!(ttl(100_000_001), Ok(message::Attach::Ttl(101)));
        for out in [Duration::from_nanos(99_999_999), TTL_MAX + Duration::from_nanos(1)] {
            let error = checked_attach(Attach::Ttl(out)).unwrap_err();
            assert!(matches!(error, Error::TtlOutOfBounds { .. }), "{error}");
        }
        let said = ttl(1_000_000).unwrap_err().to_string();
        assert_eq!(said, "a time to live of 1ms is out of bounds: it is from 100ms to 3650 days");
        let lease = LeaseId(7);
        assert_eq!(checked_attach(Attach::Lease(lease)), Ok(message::Attach::Lease(lease)));
    }
}
