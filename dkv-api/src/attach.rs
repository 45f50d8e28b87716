//! What a put attaches its key to, and how long a key will live.

use std::time::Duration;

use dkv_base::id::LeaseId;
use dkv_wire::message;

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
    /// Returns what the protocol says.
    pub(crate) fn to_wire(self) -> message::Attach {
        match self {
            Self::Lease(lease) => message::Attach::Lease(lease),
            Self::Ttl(ttl) => message::Attach::Ttl(whole_ms(ttl)),
        }
    }
}

/// Returns milliseconds, rounded up so that nothing ends early.
pub(crate) fn whole_ms(ttl: Duration) -> u64 {
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
