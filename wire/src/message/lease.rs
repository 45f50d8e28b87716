//! Leases, and the expiry of keys.
//!
//! A lease is granted under one id in every shard of a keyspace, so that each shard judges by
//! itself whether a put may name it, and ends its part by itself. Its keys are deleted when it ends
//! or is revoked. A key may instead have an expiry of its own.
//!
//! A key has at most one attachment: its lease, or its own expiry. A put replaces the attachment
//! (by none, unless it names one), a delete and an eventual write remove it, an increment and an
//! append keep it.

use dkv_base::id::{LeaseId, Serial, SessionId};
use serde::{Deserialize, Serialize};

use crate::user::User;

/// What a put attaches its key to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attach {
    /// A lease, which must exist: [`Refusal::NoLease`](super::Refusal::NoLease).
    Lease(LeaseId),
    /// A time to live, in milliseconds from the moment at which the primary takes the put:
    /// [`KEY_TTL_MIN`](crate::limits::KEY_TTL_MIN) to [`TTL_MAX`](crate::limits::TTL_MAX).
    Ttl(u64),
}

/// A change of a lease, identified by (session, serial) like a write. A shard executes it at most
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCommand {
    /// The session.
    pub session: SessionId,
    /// Its number among the session's writes to this shard, from one.
    pub serial: Serial,
    /// Every serial below this one is settled.
    pub settled: Serial,
    /// The lease.
    pub lease: LeaseId,
    /// The change.
    pub action: LeaseAction,
}

/// A change of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAction {
    /// Grants it: [`Answer::Granted`](super::Answer::Granted), or
    /// [`Refusal::LeaseExists`](super::Refusal::LeaseExists).
    Grant {
        /// The time after which it ends unless it is kept alive, in milliseconds:
        /// [`LEASE_TTL_MIN`](crate::limits::LEASE_TTL_MIN) to
        /// [`TTL_MAX`](crate::limits::TTL_MAX).
        ttl_ms: u64,
    },
    /// Ends it: [`Answer::Revoked`](super::Answer::Revoked), or
    /// [`Refusal::NoLease`](super::Refusal::NoLease). Deletes at most
    /// [`EXPIRE_KEYS_MAX`](crate::limits::EXPIRE_KEYS_MAX) keys; to revoke the lease again deletes
    /// more of them.
    Revoke,
    /// Grants it to a user, as [`Grant`](Self::Grant) does to nobody in particular. A node makes
    /// this of a grant that is asked for a user.
    GrantTo {
        /// The time after which it ends unless it is kept alive, as that of a grant.
        ttl_ms: u64,
        /// The user, who alone may use the lease, beside those who may write all keys.
        user: User,
    },
}

/// Deletes keys whose time is over, at most
/// [`EXPIRE_KEYS_MAX`](crate::limits::EXPIRE_KEYS_MAX) and all at one revision. Only a primary
/// proposes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expire {
    /// Keys whose own expiry has passed by the clock of the log. Those with the earliest expiry go
    /// first.
    Keys,
    /// A lease and its keys, unless another lease has been granted under its id since.
    Lease {
        /// The lease.
        lease: LeaseId,
        /// The number that the state of the shard gave its grant.
        grant: u64,
    },
}

/// A lease in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The lease.
    pub lease: LeaseId,
    /// The time that each keep-alive gives it, in milliseconds.
    pub ttl_ms: u64,
    /// The time that it has left, in milliseconds; zero if it has ended, and some of its keys are
    /// not deleted yet.
    pub remaining_ms: u64,
    /// The number of its keys in the shard.
    pub keys: u64,
}

/// How long a key will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyExpiry {
    /// The key does not exist.
    Absent,
    /// Until it is deleted.
    Never,
    /// Until its own expiry.
    Ttl {
        /// The time to live that the put named, in milliseconds.
        ttl_ms: u64,
        /// The time that is left, in milliseconds.
        remaining_ms: u64,
    },
    /// As long as its lease.
    Lease(LeaseStatus),
}
