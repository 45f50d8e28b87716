//! Errors, split by what a caller has to do about them.
//!
//! The question after a failed write is whether it may have had an effect, so that is what tells
//! the variants apart: after [`Error::Unknown`] it may have, after [`Error::Incomplete`] it had,
//! after every other one it had none.

use std::path::PathBuf;

use dkv_base::id::Revision;
use dkv_wire::certificate::CertificateError;
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, TokenError};
use dkv_wire::message::Receipt;
use dkv_wire::network::UnknownRegion;

use crate::options::Written;

/// Why a request came to nothing, and with which consequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key does not exist. A delete of such a key was carried out, without an effect.
    #[error("key not found")]
    NotFound {
        /// About the decision; its revision is the shard's latest for a read.
        receipt: Receipt,
    },
    /// The condition of the write does not hold. No effect.
    #[error("condition does not hold; the key is {}", match .current {
        Some(revision) => format!("at revision {revision}"),
        None => "absent".to_owned(),
    })]
    Conflict {
        /// The revision that the key is at, if it exists.
        current: Option<Revision>,
        /// About the decision.
        receipt: Receipt,
    },
    /// The request can never succeed. No effect.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Key or value is over the limit. No effect.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// "key" or "value".
        what: String,
        /// Length of it, in bytes.
        bytes: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// The request could not be served in its time. No effect: it may be sent again as it is.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The write was sent and its outcome is not known: it may have had its effect, or may yet
    /// have it. Only a read can tell.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The write was done, and stands, and not every replica is known to have it, as
    /// [`Level::All`](dkv_wire::message::Level::All) asks. Those that are missing get it once they
    /// can.
    #[error(
        "written at revision {}, but not everywhere yet: {} did not say in time that it has it",
        .written.receipt.revision, .missing.join(", ")
    )]
    Incomplete {
        /// The write.
        written: Written,
        /// Who is missing, by name.
        missing: Vec<String>,
    },
    /// The certificate does not allow this. No effect.
    #[error("denied: {0}")]
    Denied(String),
}

impl Error {
    /// Whether the same request may succeed later and had no effect now, so that repeating it is
    /// always right.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the request may have had an effect.
    pub fn may_have_had_effect(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Incomplete { .. })
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a server nor a node was named.
    #[error("no address of a registration server or node was given")]
    NoAddress,
    /// Only clients and administrators connect.
    #[error("a client connects as client or admin, not as {0}")]
    Role(Role),
    /// A host name that does not resolve now.
    #[error("{0}")]
    Unresolved(String),
    /// An address that is none.
    #[error("{address}: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is nothing to join the network with.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The server does not admit us.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// Nodes were named and no server, and no certificate that they accept is stored.
    #[error(
        "no stored {role} certificate is accepted by the given nodes; connect once by the address \
         of the registration server"
    )]
    NoCredentials {
        /// The role that was asked for.
        role: Role,
    },
    /// Nodes were named and no server, and the certificate for them has expired.
    #[error(
        "the stored {role} certificate has expired; connect once by the address of the registration \
         server, which gives a new one"
    )]
    Expired {
        /// The role that was asked for.
        role: Role,
    },
    /// The certificate was revoked.
    #[error("denied: {0}")]
    Denied(String),
    /// Nobody answered in time: what was tried, and what came of it.
    #[error("cannot reach the network: {0}")]
    Unreachable(String),
    /// Keys or certificates of this machine are not usable.
    #[error("{source}; to join anew, move the directory {} away", .path.display())]
    Stored {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// The region that was named is none of those that the network rehearses.
    #[error("{0}")]
    Region(#[from] UnknownRegion),
    /// No socket could be opened.
    #[error("cannot open a socket: {0}")]
    Socket(std::io::Error),
}
