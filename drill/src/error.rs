//! Why a drill could not be held, and how a network can fail one.

use std::io;
use std::net::AddrParseError;

use dkv_api::{ConnectError, RunReport};
use dkv_local::error::{OpenError, SignalError, StartError};
use dkv_wire::join::JoinError;
use nix::errno::Errno;

/// Why a drill ended early. If no fault was injected yet, the drill was not held; afterwards the
/// network counts as not recovered.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The drill lacks something, which says nothing about the network. The user provides it, or
    /// leaves the drill out.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// The temporary network cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The temporary network, or one of its processes, does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The network admits no client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A process takes no signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The network refuses a request of the drill itself.
    #[error(transparent)]
    Request(#[from] dkv_api::Error),
    /// The network refuses to remove a node.
    #[error("{node}: {source}")]
    Removal {
        /// The node.
        node: String,
        /// The refusal.
        source: dkv_api::Error,
    },
    /// The network broke a promise. The developers look for the fault.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// What a drill lacks.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The library that shifts clocks is not installed.
    #[error("clock-jump needs libfaketime; install it with apt-get install faketime")]
    NoFaketime,
    /// No small disk can be mounted.
    #[error(
        "disk-full mounts small disks, which takes root or user namespaces, unshare and mount: {0}"
    )]
    SmallDisks(String),
    /// The system does not allow the drill to stop a thread.
    #[error(
        "cannot stall the disk: this system does not allow tracing a process ({0}); try again as \
         root"
    )]
    Tracing(Errno),
    /// The thread to stop cannot be found or waited for.
    #[error("cannot stall the disk: {0}")]
    Thread(io::Error),
    /// The node has no thread that writes its log.
    #[error("process {process} has no thread {thread}")]
    NoThread {
        /// The process.
        process: u32,
        /// The name of the thread.
        thread: &'static str,
    },
    /// The system refuses a file.
    #[error("{action}: {source}")]
    File {
        /// The action, such as `cannot read node.token`.
        action: String,
        /// The refusal.
        source: io::Error,
    },
    /// The system refuses a socket.
    #[error("cannot open a socket: {0}")]
    Socket(io::Error),
    /// The address of the server is malformed.
    #[error("{address}: {source}")]
    Address {
        /// The address.
        address: String,
        /// The fault of the address.
        source: AddrParseError,
    },
    /// The stolen token is not one that lets a node join.
    #[error("the node token is malformed")]
    Token,
    /// The server does not admit the intruder.
    #[error(transparent)]
    Intruder(#[from] JoinError),
    /// A task of the drill panicked.
    #[error("a task of the drill ended early")]
    Task,
    /// The fault needs a network that the drill started itself.
    #[error("the drill did not start this network")]
    NoNetwork,
    /// The fault needs relays between the nodes.
    #[error("the drill has no relays")]
    NoRelays,
    /// `all` stands for several drills.
    #[error("all is not a single drill")]
    NotSingle,
    /// The server has no record of the process that a clone stands beside.
    #[error("the server knows no run of it")]
    NoRun,
}

impl DrillError {
    /// Whether this machine cannot hold the drill, whatever the network does. Anything else, such
    /// as a network that does not come up, may be a fault of dkv.
    pub fn is_of_machine(&self) -> bool {
        use Obstacle::{NoFaketime, SmallDisks, Tracing};
        matches!(self, Self::Obstacle(NoFaketime | SmallDisks(_) | Tracing(_)))
    }
}

impl Obstacle {
    /// Returns a constructor of [`Obstacle::File`], for `map_err`.
    pub(crate) fn file(action: String) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, source }
    }
}

/// A broken promise.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// No node is the coordinator.
    #[error("there is no coordinator")]
    NoCoordinator,
    /// A process that should run has ended.
    #[error("{0} is not running")]
    NotRunning(String),
    /// The network has forgotten a node.
    #[error("{0} is unknown")]
    UnknownNode(String),
    /// A node does not come back in time.
    #[error("{name} is not live after {seconds} s")]
    NotLive {
        /// The node.
        name: String,
        /// The time that it had.
        seconds: u64,
    },
    /// The network does not recover in time.
    #[error("after {seconds} s: {missing}")]
    NotRecovered {
        /// The time that it had.
        seconds: u64,
        /// The part that is missing.
        missing: String,
    },
    /// A removed node stays in the network.
    #[error("{name} is still in the network after {seconds} s")]
    NotRemoved {
        /// The node.
        name: String,
        /// The time that the network had.
        seconds: u64,
    },
    /// Two replicas of one group differ for good.
    #[error("{node} has a different state of group {group}")]
    Diverged {
        /// One of the nodes.
        node: String,
        /// The group.
        group: u32,
    },
    /// Replicas have not caught up in time.
    #[error("the replicas have not applied the same entries after {seconds} s")]
    Behind {
        /// The time that they had.
        seconds: u64,
    },
    /// The server has not noticed a copy of a data directory in time.
    #[error("{copy} was not detected: after {seconds} s the server still reports {runs:?}")]
    Undetected {
        /// The copy.
        copy: &'static str,
        /// The time that the server had.
        seconds: u64,
        /// The processes that it knows.
        runs: Vec<RunReport>,
    },
    /// A process on a copy of a data directory goes on.
    #[error("{0} did not exit")]
    NotExited(&'static str),
    /// The server believed the intruder.
    #[error("the server accepted the report of the intruder for term {0}")]
    ReportAccepted(u64),
    /// Clients were misled.
    #[error("{0} client requests reached the intruder")]
    Misled(usize),
    /// The intruder wrote a value.
    #[error("the intruder stored {0:?}")]
    Stored(String),
    /// The intruder is a member.
    #[error("the intruder became a node of the network")]
    Admitted,
    /// The intruder drove a node out.
    #[error("node {0} has left the network")]
    DrivenOut(dkv_api::NodeId),
    /// The intruder stopped a node.
    #[error("the intruder: {0} is not running")]
    Stopped(String),
}
