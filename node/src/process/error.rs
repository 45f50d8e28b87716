//! Why a node ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dkv_wire::certificate::CertificateError;
use dkv_wire::join::{JoinError, TokenError};
use dkv_wire::message::{JoinRefusal, ServerRefusal};

use crate::net::incarnations::{Farewell, IncarnationFileError};
use crate::net::server_link::ServerError;
use crate::node::StartError;
use crate::replica::recovery_mark::MarkError;
use crate::storage::data_dir::DataDirError;
use crate::storage::disk_check::DiskError;

/// Why a node did not start, or stopped by itself. Its text is one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NodeError(#[from] ProcessError);

/// The reasons behind a [`NodeError`], by what a person can do about them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The data directory is in use, damaged, or cannot be used now.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The records of the incarnations in the data directory cannot be used.
    #[error(transparent)]
    IncarnationFile(#[from] IncarnationFileError),
    /// A recovery of the data directory was cut off.
    #[error(transparent)]
    Recovery(#[from] MarkError),
    /// The disk is too slow or too full for a node to begin on it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The data directory belongs to another kind of member.
    #[error("this is not a node's directory")]
    NotANode,
    /// The node's certificate or key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no token to join with.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate has expired for so long that the node needs a token, and there is none.
    #[error("{}, as this node's: {token}", JoinRefusal::Lapsed)]
    Lapsed {
        /// The problem with the token.
        token: TokenError,
    },
    /// The server did not admit the node.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The server cannot be asked, or gave another answer than the node needs.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server refuses the node.
    #[error(transparent)]
    Refused(ServerRefusal),
    /// The node was removed from the network.
    #[error(
        "this node was {why}; to join again, start it with another, empty data directory (--data-dir). Keep \
         {} until nothing is missed: it may have the only copy of some writes",
        .directory.display()
    )]
    Removed {
        /// The text of the server.
        why: String,
        /// The data directory.
        directory: PathBuf,
    },
    /// The server belongs to another network than the data directory.
    #[error(
        "the data directory {} belongs to another network than the server at {address} ({why}); to \
         join that network, choose another directory with --data-dir", .directory.display()
    )]
    OtherNetwork {
        /// The data directory.
        directory: PathBuf,
        /// The server's address.
        address: SocketAddr,
        /// The problem with the certificates.
        why: String,
    },
    /// Another process has the port.
    #[error(
        "cannot listen on {0}: another process uses that UDP port; stop it, or choose another address \
         with --listen"
    )]
    PortInUse(SocketAddr),
    /// The machine does not have the address.
    #[error(
        "cannot listen on {address}: {source}; choose an address of this machine with --listen"
    )]
    NotListening {
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No port at an address is free.
    #[error("cannot listen at {ip}: {source}")]
    NoPort {
        /// The address.
        ip: IpAddr,
        /// The error at the last port.
        source: io::Error,
    },
    /// No other node could reach the address that the node would announce.
    #[error("others cannot reach this node at {0}; say with --advertise where they can")]
    NotReachable(SocketAddr),
    /// This machine has no sockets, no route to the server, or no threads.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The process cannot watch for signals.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// This incarnation of the node must end.
    #[error(transparent)]
    MustEnd(#[from] Farewell),
    /// The node's groups did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A running node has found that it must not go on, with this reason.
    #[error("{0}")]
    Failed(String),
}
