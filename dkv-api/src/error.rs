//! Errors, split by what the caller has to do about them.
//!
//! The question after a failed write is whether it may have had an effect, so that is what
//! distinguishes the variants: after [`Error::Unknown`] it may have, after [`Error::Incomplete`] it
//! had, after every other one it had none.

use std::path::PathBuf;
use std::time::Duration;

use dkv_base::id::{LeaseId, Revision};
use dkv_wire::certificate::CertificateError;
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, TokenError};
use dkv_wire::message::{Receipt, Unfit};
use dkv_wire::network::UnknownRegion;

use crate::options::Written;

/// Why a request failed, and what follows from that.
///
/// The [crate documentation](crate#errors) has a table of what to do on each.
///
/// # Examples
/// ```
/// use dkv_api::Error;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// match client.write("planet", "Mars").await {
///     Ok(_) => println!("written"),
///     Err(Error::Unknown(why)) => println!("it may have been written: {why}"),
///     Err(error) if error.is_retryable() => println!("not written, try again later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key does not exist. A delete of such a key was executed without an effect.
    #[error("key not found")]
    NotFound {
        /// The receipt of the answer. For a read, its revision is the shard's latest.
        receipt: Receipt,
    },
    /// The condition of the write does not hold. No effect.
    #[error("condition does not hold; the key is {}", match .current {
        Some(revision) => format!("at revision {revision}"),
        None => "absent".to_owned(),
    })]
    Conflict {
        /// The current revision of the key, if it exists.
        current: Option<Revision>,
        /// The receipt of the answer.
        receipt: Receipt,
    },
    /// The history at that revision is no longer kept. No effect.
    #[error("compacted: the history begins at revision {floor}")]
    Compacted {
        /// The earliest revision at which the shard can be read.
        floor: Revision,
    },
    /// The shard has not reached that revision. No effect.
    #[error("revision {asked} does not exist yet: the latest is {latest}")]
    NotYet {
        /// The revision that was asked for.
        asked: Revision,
        /// The latest revision of the shard.
        latest: Revision,
    },
    /// The request can never succeed. No effect.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The key or value exceeds the limit. No effect.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// `key`, `value` or `transaction`.
        what: String,
        /// Its length, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The request could not be served in time. No effect: it is safe to repeat it.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The write was sent and its outcome is unknown: it may have taken effect, or may still do so.
    /// Only a read can tell.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The write was executed and stands, but not every replica is known to have it, as
    /// [`Level::All`](dkv_wire::message::Level::All) asks. The missing ones get it once they can.
    #[error(
        "written at revision {}, but {} did not confirm it in time",
        .written.receipt.revision, some_names(missing)
    )]
    Incomplete {
        /// The result of the write.
        written: Written,
        /// The names of the nodes that did not confirm the write.
        missing: Vec<String>,
    },
    /// The change was made and stands, but these nodes are not known to observe it yet.
    #[error("done, but {} did not confirm it in time", some_names(missing))]
    NotEverywhere {
        /// The names of the nodes that did not confirm the change.
        missing: Vec<String>,
    },
    /// An operation of a transaction cannot be executed on the value that its key has. No effect.
    #[error("operation {} of the transaction: {why}", .operation + 1)]
    Unfit {
        /// The operation, counted from zero in the list that was to be executed.
        operation: u32,
        /// The reason.
        why: Unfit,
    },
    /// A transaction has a range of keys, and the keyspace has several shards. No effect.
    #[error("the transaction has a range of keys, and the keyspace has several shards")]
    SeveralShards,
    /// The lease does not exist: it has ended, was revoked, or was never granted. No effect.
    #[error("lease {lease} does not exist; it may have ended")]
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// A lease with that id exists already. No effect.
    #[error("lease {lease} exists already")]
    LeaseExists {
        /// The lease.
        lease: LeaseId,
    },
    /// There are too many leases. No effect.
    #[error("{} {limit} leases, and may not have more", match .own {
        true => "this client has",
        false => "all clients together have",
    })]
    TooManyLeases {
        /// Whether all of them were granted to this client.
        own: bool,
        /// The limit in each shard.
        limit: u64,
    },
    /// A time to live is too short or too long. No effect.
    #[error("a time to live of {ttl:?} is out of bounds: it is from {least:?} to {} days",
        .most.as_secs() / (24 * 3600))]
    TtlOutOfBounds {
        /// The time.
        ttl: Duration,
        /// The shortest time.
        least: Duration,
        /// The longest time.
        most: Duration,
    },
    /// The write would add to a shard that has reached its share of its keyspace's quota. No
    /// effect. Deletes are still accepted, and so is the write once there is room.
    #[error(
        "over quota: the shard has {used} bytes of keys and values, and its share of the \
         keyspace's quota is {limit}; deletes are still accepted"
    )]
    OverQuota {
        /// Size of the keys and values of the shard, in bytes.
        used: u64,
        /// The share of the shard in the quota, in bytes.
        limit: u64,
    },
    /// There is no such keyspace, or it was dropped with everything in it.
    #[error("there is no keyspace {name}")]
    NoKeyspace {
        /// Its name.
        name: String,
    },
    /// The user asks for more than its policies let it, and would have to wait for longer than the
    /// request may take. No effect.
    #[error("limited: {why}")]
    Limited {
        /// Which limit, at which node.
        why: String,
        /// Time after which the same request may be repeated.
        retry_after: Duration,
    },
    /// The certificate of this client does not allow the request. No effect.
    #[error("denied: {0}")]
    Denied(String),
}

impl Error {
    /// Returns whether the request had no effect and may succeed later, so that repeating it is
    /// always right.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::Error;
    /// assert!(Error::Unavailable("no quorum".into()).is_retryable());
    /// assert!(!Error::Unknown("no answer".into()).is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Limited { .. })
    }

    /// Returns whether the request may have had an effect.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::Error;
    /// assert!(Error::Unknown("no answer".into()).may_have_had_effect());
    /// assert!(!Error::Unavailable("no quorum".into()).may_have_had_effect());
    /// ```
    pub fn may_have_had_effect(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Incomplete { .. } | Self::NotEverywhere { .. })
    }
}

/// Names of nodes that a line has room for.
const NAMES_MAX: usize = 8;

/// Lists names, and counts those that a line has no room for.
fn some_names(names: &[String]) -> String {
    match names.get(NAMES_MAX..) {
        None | Some([]) => names.join(", "),
        Some(more) => format!("{} and {} more", names[..NAMES_MAX].join(", "), more.len()),
    }
}

/// Why a client could not connect.
///
/// # Examples
/// ```
/// use dkv_api::{Client, ConnectError};
///
/// # async fn example() -> Result<(), ConnectError> {
/// let client = match Client::connect("db.example.org").await {
///     Ok(client) => client,
///     Err(ConnectError::Unreachable(why)) => {
///         println!("the network is down, try again later: {why}");
///         return Ok(());
///     }
///     Err(other) => return Err(other),
/// };
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address of a server or node was given.
    #[error("no address of a registration server or node was given")]
    NoAddress,
    /// The role is not one of a client: only clients, readers and administrators connect.
    #[error("a client connects as client, reader or admin, not as {0}")]
    Role(Role),
    /// A host name does not resolve now.
    #[error("{0}")]
    Unresolved(String),
    /// An address is malformed.
    #[error("{address}: {why}")]
    Address {
        /// The address as given.
        address: String,
        /// The fault of the address.
        why: String,
    },
    /// There is no usable join token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Joining failed: the server did not admit this client.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// Only nodes were given, and they accept no stored certificate.
    #[error(
        "no stored {role} certificate is accepted by the given nodes; connect once by the address \
         of the registration server"
    )]
    NoCredentials {
        /// The requested role.
        role: Role,
    },
    /// Only nodes were given, and the certificate for their network has expired.
    #[error(
        "the stored {role} certificate has expired; connect once by the address of the registration \
         server, which issues a new one"
    )]
    Expired {
        /// The requested role.
        role: Role,
    },
    /// The certificate was revoked.
    #[error("denied: {0}")]
    Denied(String),
    /// Neither a server nor a node answered in time; says what was tried and how it failed.
    #[error("cannot reach the network: {0}")]
    Unreachable(String),
    /// The stored key or certificate is unusable.
    #[error("{source}; to join anew, move the directory {} away", .path.display())]
    Stored {
        /// The directory of the credentials.
        path: PathBuf,
        /// Why they cannot be used.
        source: CertificateError,
    },
    /// The region is not one of those between which the network rehearses delays.
    #[error("{0}")]
    Region(#[from] UnknownRegion),
    /// No socket could be opened.
    #[error("cannot open a socket: {0}")]
    Socket(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_some_nodes_and_counts_the_others() {
        let names = |count: usize| (1..=count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(some_names(&names(1)), "n1");
        assert_eq!(some_names(&names(8)), "n1, n2, n3, n4, n5, n6, n7, n8");
        assert_eq!(some_names(&names(1024)), "n1, n2, n3, n4, n5, n6, n7, n8 and 1016 more");
    }
}
