//! A server in its own directory, and peers that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dkv_base::id::{HolderId, NodeId, Term};
use dkv_server::{Config, Server};
use dkv_wire::certificate::Credentials;
use dkv_wire::identity::Role;
use dkv_wire::join::join;
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{
    Admission, Confirmation, ControlGroup, CoordinatorReport, ServerAnswer, ServerRefusal,
    ServerRequest,
};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::rpc::{RpcError, call};
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;
use tempfile::TempDir;

pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A place where a server can be started repeatedly.
pub struct Place {
    pub root: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    pub fn config(&self) -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: self.data_dir(),
            settings: Settings::default(),
            tokens_home: Some(self.home()),
            trust_voter: None,
            advertise: None,
            join: None,
            token_file: None,
            audit: None,
        }
    }

    pub async fn start(&self) -> Server {
        self.try_start().await.unwrap()
    }

    pub async fn try_start(&self) -> Result<Server, dkv_server::StartError> {
        self.try_start_with(|_| {}).await
    }

    pub async fn try_start_with(
        &self,
        change: impl Fn(&mut Config),
    ) -> Result<Server, dkv_server::StartError> {
        let config = || {
            let mut config = self.config();
            change(&mut config);
            config
        };
        // A dropped server releases its lock when its last task ends.
        for _ in 0..100 {
            match Server::start(config()).await {
                Err(dkv_server::StartError::DataDir(dkv_server::DataDirError::InUse(_))) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
        panic!("the data directory stays in use");
    }

    pub fn token(&self, role: Role) -> Token {
        let file = self.data_dir().join("tokens").join(format!("{role}.token"));
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    }

    /// Joins with the initial token of a role, and connects.
    pub async fn peer(&self, server: SocketAddr, role: Role) -> Peer {
        let joiner = Endpoint::dial_only(None).unwrap();
        let credentials = join(&joiner, server, &self.token(role)).await.unwrap();
        Peer::connect(server, credentials).await.unwrap()
    }
}

/// Somebody with a certificate and a connection to the server.
pub struct Peer {
    pub credentials: Credentials,
    pub endpoint: Endpoint,
    pub connection: quinn::Connection,
}

impl Peer {
    pub async fn connect(
        server: SocketAddr,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::dial_only(Some(credentials.clone())).unwrap();
        let connection = endpoint.connect(server, Expect::Server).await?;
        Ok(Self { credentials, endpoint, connection })
    }

    /// Connects the same peer to a restarted server.
    pub async fn again(&self, server: SocketAddr) -> Self {
        Self::connect(server, self.credentials.clone()).await.unwrap()
    }

    pub fn holder(&self) -> HolderId {
        self.credentials.identity.holder
    }

    pub fn node(&self) -> NodeId {
        self.credentials.identity.as_node().unwrap()
    }

    pub async fn try_ask(&self, request: &ServerRequest) -> Result<ServerAnswer, RpcError> {
        call(&self.connection, None::<&()>, request, SERVER_FRAME_BYTES_MAX, TIMEOUT).await
    }

    pub async fn ask(&self, request: &ServerRequest) -> ServerAnswer {
        self.try_ask(request).await.unwrap()
    }

    pub async fn refusal(&self, request: &ServerRequest) -> ServerRefusal {
        match self.ask(request).await {
            ServerAnswer::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub async fn register(&self, port: u16) -> Admission {
        match self.ask(&register(port)).await {
            ServerAnswer::Admitted(admission) => *admission,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// Reports itself as the coordinator of `term`, with the nodes and deny list of `view`.
    pub async fn report(&self, term: u64, nodes: &[&Peer], denied: &[HolderId]) -> Confirmation {
        match self.ask(&ServerRequest::Report(self.report_of(term, nodes, denied))).await {
            ServerAnswer::Confirmed(confirmation) => confirmation,
            other => panic!("not confirmed: {other:?}"),
        }
    }

    pub fn report_of(&self, term: u64, nodes: &[&Peer], denied: &[HolderId]) -> CoordinatorReport {
        let info = |(index, peer): (usize, &&Peer)| NodeInfo {
            id: peer.node(),
            name: format!("n{}", index + 1),
            address: SocketAddr::from(([127, 0, 0, 1], 4401 + index as u16)),
            region: None,
            state: NodeState::Live,
        };
        let view = NetworkView {
            network: self.credentials.identity.network,
            term: Term(term),
            coordinator: Some(self.node()),
            nodes: nodes.iter().enumerate().map(info).collect(),
            revision: Default::default(),
            keyspaces: Vec::new(),
            shards: Vec::new(),
            settings: Settings::default(),
            denied: denied.to_vec(),
            servers: Vec::new(),
        };
        let mut voters: Vec<NodeId> = nodes.iter().map(|peer| peer.node()).collect();
        voters.push(self.node());
        let control =
            ControlGroup { term: Term(term), leader: Some(self.node()), index: term, voters };
        CoordinatorReport { term: Term(term), view, control }
    }
}

pub fn register(port: u16) -> ServerRequest {
    ServerRequest::Register {
        name: None,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        region: None,
        control: None,
    }
}

/// A request for a token of a role.
pub fn create_token(role: Role, uses: Option<u32>) -> ServerRequest {
    ServerRequest::CreateToken { role, life_s: None, uses, name: None, user: None }
}

/// A registration with a claim about the control group.
pub fn register_with(port: u16, node: &Peer, voters: &[&Peer], index: u64) -> ServerRequest {
    let voters = voters.iter().map(|peer| peer.node()).collect();
    let (term, leader) = (Term(7), Some(node.node()));
    let claim = Some(ControlGroup { term, leader, index, voters });
    let mut request = register(port);
    if let ServerRequest::Register { control, .. } = &mut request {
        *control = claim;
    }
    request
}
