//! What nodes, clients and administrators ask the registration server.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::bearer::Rights;
use crate::identity::Role;
use crate::network::{NetworkView, NodeState, Settings};
use crate::region::Region;
use crate::run::{Ruling, Run, Verdict};

/// A request to the server, one frame on a stream of its own or one of several on one stream;
/// answers come in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerRequest {
    /// From anybody with a certificate: the network as last reported.
    Lookup,
    /// From anybody with a certificate: the server's books.
    Status,
    /// From a node, at every start: here I am.
    Register {
        /// What it wants to be called; without one the server finds a name.
        name: Option<String>,
        /// Where it listens.
        address: SocketAddr,
        /// The region that it is in, if it was told.
        region: Option<Region>,
        /// The control group as its own log has it, once that names any member.
        control: Option<ControlGroup>,
    },
    /// From the coordinator: how everything is, and that it is the coordinator.
    Report(CoordinatorReport),
    /// From anybody with a certificate: a new one for this public key (DER
    /// SubjectPublicKeyInfo), with the same role and id.
    Renew {
        /// The key of the new certificate.
        public_key: Bytes,
    },
    /// From an administrator: a bearer token, for whoever speaks HTTP to a gateway.
    CreateBearer {
        /// What its bearer may do.
        rights: Rights,
        /// Time that it lives.
        life: BearerLife,
        /// What people call it.
        name: Option<String>,
    },
    /// From an administrator: a new join token.
    CreateToken {
        /// What its bearers become.
        role: Role,
        /// Time that it lives, in seconds; without one, for good.
        life_s: Option<u64>,
        /// How often it may be used; without one, any number of times.
        uses: Option<u32>,
        /// What people call it, and whom it admits.
        name: Option<String>,
    },
    /// From an administrator: all tokens.
    ListTokens,
    /// From an administrator: this token shall admit nobody any more.
    RevokeToken(Uuid),
    /// From an administrator: everybody who was given a certificate or a bearer token.
    ListHolders,
    /// From whoever judges bearer tokens: when these were shown last, in milliseconds since 1970.
    BearersSeen(Vec<(HolderId, u64)>),
    /// From a node, before it serves and every few seconds: which run of its process this is.
    Stand(Box<Stand>),
    /// From an administrator: of the runs of a node this one goes on, and no other.
    Keep {
        /// Which node.
        node: NodeId,
        /// Which run.
        run: RunChoice,
    },
}

/// Which run of a node's process speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The run.
    pub run: Run,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it stops in good order, and says so for the last time.
    pub ends: bool,
    /// What the server asked last, if it did: who answers it is alive.
    pub answers: Option<Question>,
}

/// A question of one run of the server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// That run.
    pub server: u64,
    /// Which of its questions.
    pub number: u64,
}

/// What the server makes of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether it may take part.
    pub verdict: Verdict,
    /// To be answered the next time.
    pub question: Question,
    /// Whether to answer at once: another run was heard of.
    pub ask_again: bool,
    /// Whether not to serve yet: another run was heard a moment ago somewhere else, and may live.
    pub wait: bool,
    /// What administrators have said of the runs of nodes.
    pub rulings: Vec<(NodeId, Ruling)>,
}

/// How an administrator names a run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunChoice {
    /// By where it listens.
    Address(SocketAddr),
    /// By its start.
    Start(u64),
}

/// How long a bearer token lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BearerLife {
    /// As long as usual: [`BEARER_LIFE`](crate::limits::BEARER_LIFE).
    #[default]
    Usual,
    /// So many seconds.
    Seconds(u64),
    /// For good.
    Endless,
}

/// What somebody holds that lets it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderKind {
    /// A certificate of that role.
    Certificate(Role),
    /// A bearer token with those rights.
    Bearer(Rights),
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Its id, by which it is revoked.
    pub id: HolderId,
    /// What it holds.
    pub kind: HolderKind,
    /// What people call it: a node by its name, others by that of the token that admitted them.
    pub name: Option<String>,
    /// The join token that admitted it; `None` if that is not known. The token may be gone.
    pub token: Option<Uuid>,
    /// The administrator who made it, of a bearer token.
    pub made_by: Option<HolderId>,
    /// When it was let in, in milliseconds since 1970; `None` if that is not known.
    pub since_ms: Option<u64>,
    /// When its certificate or token ends, in milliseconds since 1970; `None` if never.
    pub ends_ms: Option<u64>,
    /// When the server last heard of it, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// Whether it is refused by now.
    pub revoked: bool,
}

impl ServerRequest {
    /// Whether a request that was sent and not answered may have changed something, so that nobody
    /// may say that nothing was changed.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Register { .. }
            | Self::Report(_)
            | Self::CreateBearer { .. }
            | Self::CreateToken { .. }
            | Self::RevokeToken(_)
            | Self::Stand(_)
            | Self::Keep { .. } => true,
            Self::Lookup
            | Self::Status
            | Self::Renew { .. }
            | Self::ListTokens
            | Self::ListHolders
            | Self::BearersSeen(_) => false,
        }
    }

    /// Whether it may be sent again when it is not known what came of it: twice is as good as once.
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
            | Self::BearersSeen(_)
            | Self::Stand(_)
            | Self::Keep { .. } => true,
        }
    }
}

/// The control group, by the log of one of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// The term that is known.
    pub term: Term,
    /// Who leads it, as far as is known.
    pub leader: Option<NodeId>,
    /// The entry in which its members are.
    pub index: u64,
    /// Nodes whose vote counts; of a joint configuration, those of both halves.
    pub voters: Vec<NodeId>,
}

/// The coordinator's word to the server. The server takes it from a voter of the control group if
/// no later term has spoken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorReport {
    /// The term it leads.
    pub term: Term,
    /// The network as the coordinator sees it.
    pub view: NetworkView,
    /// The group that it leads: the server takes the next report from one of these voters.
    pub control: ControlGroup,
}

/// What the server answers.
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
    /// To [`ServerRequest::CreateToken`]: the token's text, told once and never again.
    Token(String),
    /// To [`ServerRequest::CreateBearer`]: the token's text, which nobody keeps, and the name under
    /// which it is revoked.
    Bearer(String, HolderId),
    /// To [`ServerRequest::ListTokens`].
    Tokens(Vec<TokenInfo>),
    /// To [`ServerRequest::RevokeToken`] and [`ServerRequest::BearersSeen`].
    Done,
    /// To anything.
    Refused(ServerRefusal),
    /// To [`ServerRequest::ListHolders`].
    Holders(Vec<HolderInfo>),
    /// To [`ServerRequest::Stand`].
    Stands(Box<Standing>),
}

/// What a node is told when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The network.
    pub network: NetworkId,
    /// What the node is called.
    pub name: String,
    /// Whether this node, and no other ever, shall bootstrap the network.
    pub bootstrap: bool,
    /// What the network runs with; the directory overrules it once there is one.
    pub settings: Settings,
    /// The network as last reported, to find the coordinator in.
    pub view: Option<NetworkView>,
    /// Addresses of all nodes that ever registered and were not removed, for the case that nobody
    /// has reported yet.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// Who may speak to a node that does not know the control group yet: the coordinator and the
    /// group's voters as the server knows them, or else the node that is to bootstrap.
    pub vouched: Vec<NodeId>,
}

/// The server's decision on a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The sender is the coordinator.
    Confirmed,
    /// A later term has spoken: the sender is the coordinator no longer.
    Outdated {
        /// The latest term that was confirmed.
        confirmed: Term,
    },
}

/// Why the server does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ServerRefusal {
    /// The certificate does not allow this.
    #[error("denied: {0}")]
    Denied(String),
    /// The request can never succeed.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Another live node has the name.
    #[error("the name {0:?} belongs to another node that is running; choose another with --name")]
    NameTaken(String),
    /// The server could not write its books; nothing was changed.
    #[error("the server cannot write to its data directory: {0}")]
    Storage(String),
}

/// The server's books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The network.
    pub network: NetworkId,
    /// The server's version.
    pub version: String,
    /// Time since the server started, in milliseconds.
    pub uptime_ms: u64,
    /// Who was told to bootstrap.
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
    /// What the configuration says.
    pub settings: Settings,
    /// Runs of nodes that may not take part, or of which there are two.
    pub runs: Vec<RunReport>,
}

/// A run of a node that an administrator should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Which node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Where this run listens.
    pub address: SocketAddr,
    /// Its start.
    pub start: u64,
    /// How far its log was on disk.
    pub mark: u64,
    /// What the server makes of it.
    pub verdict: Verdict,
    /// When it was last heard, in milliseconds since 1970.
    pub heard_ms: u64,
}

/// A node in the server's books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its identity.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The region that it is in, if it was told.
    pub region: Option<Region>,
    /// Whether it is the confirmed coordinator.
    pub coordinator: bool,
    /// Where it is in its life.
    pub state: NodeState,
    /// When it was last registered or reported live, in milliseconds since 1970.
    pub last_report_ms: u64,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Which token.
    pub id: Uuid,
    /// What its bearers become.
    pub role: Role,
    /// What people call it.
    pub name: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// How often it was used.
    pub used: u32,
    /// How often it may be used.
    pub uses: Option<u32>,
    /// Holders that it admitted, newest last, at most the last few.
    pub admitted: Vec<HolderId>,
}
