//! What a put attaches its key to, and how long a key will live.

use std::time::Duration;

use dkv_base::id::LeaseId;
use dkv_wire::limits::{KEY_TTL_MIN, TTL_MAX};
use dkv_wire::message;

use crate::error::Error;

/// How long a key lives that a put stores. Without, it lives until it is deleted.
///
/// A put replaces what an earlier one had said, a delete and an eventual write remove it, an
/// increment and an append keep it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::{Attach, TransactionOperation};
///
/// let half_a_minute = Attach::Ttl(Duration::from_secs(30));
/// let put = TransactionOperation::put_attached("session/7", "Ada", half_a_minute);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// As long as a lease, which must exist.
    Lease(LeaseId),
    /// For this time, 100 ms to 3650 days. It is rounded up to milliseconds.
    Ttl(Duration),
}

impl Attach {
    /// Checks the time, and returns what the protocol says.
    ///
    /// # Errors
    /// [`Error::TtlOutOfBounds`].
    pub(crate) fn checked(self) -> Result<message::Attach, Error> {
        if let Self::Ttl(ttl) = self {
            checked_ttl(ttl, KEY_TTL_MIN)?;
        }
        Ok(self.to_wire())
    }

    /// Returns what the protocol says.
    pub(crate) fn to_wire(self) -> message::Attach {
        match self {
            Self::Lease(lease) => message::Attach::Lease(lease),
            Self::Ttl(ttl) => message::Attach::Ttl(whole_ms(ttl)),
        }
    }
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

/// Rounds up, so that nothing ends early.
fn whole_ms(ttl: Duration) -> u64 {
    let ms = ttl.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// How long a key will live; see [`Client::ttl`](crate::Client::ttl).
///
/// # Examples
/// ```
/// use dkv_api::Lifetime;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// match client.ttl("session/7").await? {
///     Lifetime::Ttl { remaining, .. } => println!("{remaining:?} are left"),
///     Lifetime::Lease { lease, .. } => println!("as long as lease {lease}"),
///     _ => println!("until it is deleted"),
/// }
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is deleted.
    Unlimited,
    /// For a time of its own.
    Ttl {
        /// The time that the put named.
        ttl: Duration,
        /// The time that is left.
        remaining: Duration,
    },
    /// As long as a lease.
    Lease {
        /// The lease.
        lease: LeaseId,
        /// The time that each keep-alive gives the lease.
        ttl: Duration,
        /// The time that the lease has left unless it is kept alive.
        remaining: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_bounds_and_is_rounded_up() {
        let ttl = |ns| Attach::Ttl(Duration::from_nanos(ns)).checked();
        assert_eq!(ttl(100_000_001), Ok(message::Attach::Ttl(101)));
        for out in [Duration::from_nanos(99_999_999), TTL_MAX + Duration::from_nanos(1)] {
            let error = Attach::Ttl(out).checked().unwrap_err();
            assert!(matches!(error, Error::TtlOutOfBounds { .. }), "{error}");
        }
        let said = ttl(1_000_000).unwrap_err().to_string();
        assert_eq!(said, "a time to live of 1ms is out of bounds: it is from 100ms to 3650 days");
        let lease = LeaseId(7);
        assert_eq!(Attach::Lease(lease).checked(), Ok(message::Attach::Lease(lease)));
    }
}
