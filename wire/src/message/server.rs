//! Requests to the registration server by nodes, clients and administrators.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::diagnosis::{LogChange, LogFilter};
use crate::bearer::Rights;
use crate::identity::Role;
use crate::incarnation::{Incarnation, Ruling, Verdict};
use crate::network::{NetworkView, NodeState, Settings};
use crate::region::Region;
use crate::user::User;

/// A request to the server. A stream carries one or several; answers come in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "a request lives for one frame, and reports are rare"
)]
pub enum ServerRequest {
    /// From any certificate holder: the network as last reported.
    Lookup,
    /// From any certificate holder: the status of the server.
    Status,
    /// From a node, at every start: registers the node.
    Register {
        /// The name that it wants; without one the server chooses.
        name: Option<String>,
        /// The address at which it listens.
        address: SocketAddr,
        /// Its region, if it has one.
        region: Option<Region>,
        /// The control group by the node's own log, once that names any member.
        control: Option<ControlGroup>,
    },
    /// From the coordinator: the state of the network, and its claim to be the coordinator.
    Report(CoordinatorReport),
    /// From any certificate holder: a new certificate for this public key (DER
    /// SubjectPublicKeyInfo), with the same role and id.
    Renew {
        /// The key of the new certificate.
        public_key: Bytes,
    },
    /// From an administrator: creates a bearer token, for HTTP requests to a gateway.
    CreateBearer {
        /// The rights of its bearer.
        rights: Rights,
        /// Its validity.
        life: BearerLife,
        /// Its name.
        name: Option<String>,
        /// The user that its bearer is.
        user: Option<User>,
    },
    /// From an administrator: creates a join token.
    CreateToken {
        /// The role that its bearers get.
        role: Role,
        /// Its validity, in seconds; unlimited without one.
        life_s: Option<u64>,
        /// How often it may be used; unlimited without one.
        uses: Option<u32>,
        /// Its name, which the holders that it admits get too.
        name: Option<String>,
        /// The user that its bearers are, who then may do only what the policies of the user allow.
        user: Option<User>,
    },
    /// From an administrator: lists all tokens.
    ListTokens,
    /// From an administrator: revokes a token, so that it admits no one any more.
    RevokeToken(Uuid),
    /// From an administrator: lists all holders of certificates and bearer tokens.
    ListHolders,
    /// From a gateway: when these bearer tokens were last used, in milliseconds since 1970.
    BearersSeen(Vec<(HolderId, u64)>),
    /// From a node, before it serves and every few seconds: the current run of its process.
    Stand(Box<Stand>),
    /// From an administrator: keeps this run of a node and stops all others.
    Keep {
        /// The node.
        node: NodeId,
        /// The run.
        run: RunChoice,
    },
    /// From an administrator: what the server logs, and a change of that.
    Log(Option<LogChange>),
    /// From a new registration server: everything that it needs to be one.
    Enlist,
}

/// The report of a node about the run of its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The run.
    pub run: Incarnation,
    /// The address at which it listens.
    pub address: SocketAddr,
    /// Whether the run is stopping in good order; it reports no more then.
    pub ends: bool,
    /// The server's last question, if there was one. An answer proves that the run is alive.
    pub answers: Option<Question>,
}

/// A question of the server, which a node returns in its next report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Random id of the run of the server's process.
    pub server: u64,
    /// The number of the question.
    pub number: u64,
}

/// The server's answer to a [`Stand`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether the run may take part.
    pub verdict: Verdict,
    /// The question to return in the next report.
    pub question: Question,
    /// Whether to report again at once, because another run was heard.
    pub ask_again: bool,
    /// Whether to wait before serving, because another run was heard elsewhere a moment ago and may
    /// be alive.
    pub wait: bool,
    /// The rulings of administrators on the runs of nodes.
    pub rulings: Vec<(NodeId, Ruling)>,
}

/// How an administrator identifies a run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunChoice {
    /// By the address at which it listens.
    Address(SocketAddr),
    /// By its start number.
    Start(u64),
}

/// The validity of a bearer token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BearerLife {
    /// The default: [`BEARER_LIFE`](crate::limits::BEARER_LIFE).
    #[default]
    Usual,
    /// This many seconds.
    Seconds(u64),
    /// Unlimited.
    Endless,
}

/// The kind of credential of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderKind {
    /// A certificate with this role.
    Certificate(Role),
    /// A bearer token with these rights.
    Bearer(Rights),
}

/// The holder of a certificate or bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Its id, by which it can be revoked.
    pub id: HolderId,
    /// The kind of its credential.
    pub kind: HolderKind,
    /// Its name: that of the node, or else that of the token that admitted it.
    pub name: Option<String>,
    /// The user that it is, if any.
    pub user: Option<User>,
    /// The join token that admitted it, if known. The token itself may be gone.
    pub token: Option<Uuid>,
    /// The administrator who created it, for a bearer token.
    pub made_by: Option<HolderId>,
    /// When it was admitted, in milliseconds since 1970, if known.
    pub since_ms: Option<u64>,
    /// When its certificate or token expires, in milliseconds since 1970; `None` if never.
    pub ends_ms: Option<u64>,
    /// When the server last heard of it, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// Whether it is revoked.
    pub revoked: bool,
}

impl ServerRequest {
    /// Whether the request may have had an effect if it was sent and not answered. Its outcome is
    /// then unknown.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Register { .. }
            | Self::Report(_)
            | Self::CreateBearer { .. }
            | Self::CreateToken { .. }
            | Self::RevokeToken(_)
            | Self::Stand(_)
            | Self::Log(Some(_))
            | Self::Keep { .. } => true,
            Self::Lookup
            | Self::Status
            | Self::Log(None)
            | Self::Renew { .. }
            | Self::ListTokens
            | Self::ListHolders
            | Self::Enlist
            | Self::BearersSeen(_) => false,
        }
    }

    /// Whether the request is idempotent, so that it may be sent again when its outcome is unknown.
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Self::CreateBearer { .. } | Self::CreateToken { .. } => false,
            Self::Lookup
            | Self::Status
            | Self::Register { .. }
            | Self::Report(_)
            | Self::Renew { .. }
            | Self::ListTokens
            | Self::RevokeToken(_)
            | Self::ListHolders
            | Self::Enlist
            | Self::BearersSeen(_)
            | Self::Stand(_)
            | Self::Log(_)
            | Self::Keep { .. } => true,
        }
    }
}

/// The control group, by the log of one of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// The latest known term.
    pub term: Term,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
    /// Index of the entry with its membership.
    pub index: u64,
    /// The voters; of a joint configuration, those of both halves.
    pub voters: Vec<NodeId>,
}

/// The coordinator's report to the server. The server accepts it from a voter of the control group
/// unless it has accepted one of a later term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorReport {
    /// The term in which it leads.
    pub term: Term,
    /// The network as the coordinator sees it.
    pub view: NetworkView,
    /// The group that it leads. The server accepts the next report from one of these voters.
    pub control: ControlGroup,
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerAnswer {
    /// To [`ServerRequest::Lookup`]; `None` until a coordinator has reported.
    View(Option<Box<NetworkView>>),
    /// To [`ServerRequest::Status`].
    Status(Box<ServerStatus>),
    /// To [`ServerRequest::Register`].
    Admitted(Box<Admission>),
    /// To [`ServerRequest::Report`].
    Confirmed(Confirmation),
    /// To [`ServerRequest::Renew`]: a certificate in DER.
    Certificate(Bytes),
    /// To [`ServerRequest::CreateToken`]: the token's text, which cannot be retrieved again.
    Token(String),
    /// To [`ServerRequest::CreateBearer`]: the token's text, which the server does not store, and
    /// the id by which it can be revoked.
    Bearer(String, HolderId),
    /// To [`ServerRequest::ListTokens`].
    Tokens(Vec<TokenInfo>),
    /// To [`ServerRequest::RevokeToken`] and [`ServerRequest::BearersSeen`].
    Done,
    /// To any request.
    Refused(ServerRefusal),
    /// To [`ServerRequest::ListHolders`].
    Holders(Vec<HolderInfo>),
    /// To [`ServerRequest::Stand`].
    Stands(Box<Standing>),
    /// To [`ServerRequest::Log`].
    Log(LogFilter),
    /// To [`ServerRequest::Enlist`].
    Enlisted(Box<Enlistment>),
}

/// What a new registration server needs, from one that runs. The books are not here: the new server
/// reads them from the control group.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enlistment {
    /// The private key of the network's authority, in DER. With it the new server signs
    /// certificates that every member accepts.
    pub authority_key: Bytes,
    /// The network as last reported.
    pub view: NetworkView,
    /// The node that was told to bootstrap.
    pub bootstrap: Option<NodeId>,
    /// The coordinator that was confirmed last, and its term.
    pub coordinator: (NodeId, Term),
    /// The voters of the control group, whose reports count.
    pub voters: Vec<NodeId>,
    /// Index of the entry that names them.
    pub voters_index: u64,
}

impl std::fmt::Debug for Enlistment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enlistment").field("network", &self.view.network).finish_non_exhaustive()
    }
}

/// The server's answer to a node that registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The network.
    pub network: NetworkId,
    /// The name of the node.
    pub name: String,
    /// Whether this node, and never another, must bootstrap the network.
    pub bootstrap: bool,
    /// The settings of the network; those of the directory take precedence once it exists.
    pub settings: Settings,
    /// The network as last reported, to find the coordinator.
    pub view: Option<NetworkView>,
    /// Addresses of all nodes that registered and were not removed, for use before the first
    /// report.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// The nodes to trust as long as this node does not know the control group: its leader and
    /// voters as the server knows them, or else the node that must bootstrap.
    pub vouched: Vec<NodeId>,
}

/// The server's decision on a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The sender is the coordinator.
    Confirmed,
    /// A later term was confirmed, so the sender is no longer the coordinator.
    Outdated {
        /// The latest term that was confirmed.
        confirmed: Term,
    },
}

/// Why the server refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ServerRefusal {
    /// The certificate does not allow this.
    #[error("denied: {0}")]
    Denied(String),
    /// The request can never succeed.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Another running node has the name.
    #[error("the name {0:?} belongs to another node that is running; choose another with --name")]
    NameTaken(String),
    /// The server could not write its registry file; nothing was changed.
    #[error("the server cannot write to its data directory: {0}")]
    Storage(String),
    /// The control group, which decides on changes of the books, did not answer. The outcome may be
    /// unknown.
    #[error("{0}")]
    Waiting(String),
}

/// The status of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The network.
    pub network: NetworkId,
    /// The server's version.
    pub version: String,
    /// Time since the server started, in milliseconds.
    pub uptime_ms: u64,
    /// The node that was told to bootstrap.
    pub bootstrap: Option<NodeId>,
    /// The coordinator that was confirmed last, and its term.
    pub coordinator: Option<(NodeId, Term)>,
    /// When it was confirmed, in milliseconds since 1970.
    pub confirmed_at_ms: Option<u64>,
    /// Time since the last report, in milliseconds.
    pub report_age_ms: Option<u64>,
    /// All nodes that were not removed.
    pub nodes: Vec<NodeReport>,
    /// The network as last reported.
    pub view: Option<NetworkView>,
    /// The settings in the server's configuration.
    pub settings: Settings,
    /// Runs of nodes that may not take part, or of which two exist.
    pub runs: Vec<RunReport>,
    /// The server's time, in milliseconds since 1970: the times of this message are on its clock.
    pub now_ms: u64,
    /// The id of the server that answers.
    pub server: HolderId,
    /// The version of its copy of the books; `None` while it keeps them alone.
    pub books: Option<u64>,
}

/// A run of a node that needs an administrator's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The address at which this run listens.
    pub address: SocketAddr,
    /// Its start number.
    pub start: u64,
    /// Its mark: how much its log had on disk.
    pub mark: u64,
    /// The server's verdict on it.
    pub verdict: Verdict,
    /// When it was last heard, in milliseconds since 1970.
    pub heard_ms: u64,
}

/// A node, as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The address at which it listens.
    pub address: SocketAddr,
    /// Its region, if it has one.
    pub region: Option<Region>,
    /// Whether it is the confirmed coordinator.
    pub coordinator: bool,
    /// Its state.
    pub state: NodeState,
    /// When it was last registered or reported live, in milliseconds since 1970.
    pub last_report_ms: u64,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: Uuid,
    /// The role that its bearers get.
    pub role: Role,
    /// The user that they are, if any.
    pub user: Option<User>,
    /// Its name.
    pub name: Option<String>,
    /// When it expires, in milliseconds since 1970; `None` if never.
    pub expires_ms: Option<u64>,
    /// How often it was used.
    pub used: u32,
    /// How often it may be used.
    pub uses: Option<u32>,
    /// The last few holders that it admitted, the newest last.
    pub admitted: Vec<HolderId>,
}
