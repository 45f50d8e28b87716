// A whole network in this process: a registration server and nodes that speak the real protocol
// over real sockets, share one state as if they replicated it, and misbehave on request. The tests
// include it, and the example in the crate's documentation.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dkv_base::id::{
    GroupId, HolderId, KeyspaceId, NetworkId, NodeId, Revision, Serial, SessionId, Term,
};
use dkv_wire::acceptor::{Acceptor, Peer};
use dkv_wire::certificate::{Authority, Credentials, generate_key};
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::{FRAME_BYTES_MAX, JOIN_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use dkv_wire::local;
use dkv_wire::message::*;
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings, ShardInfo, shard_starts};
use dkv_wire::quic::{Close, Endpoint, proof_material};
use dkv_wire::tls::Admit;
use dkv_wire::token::Token;

/// What a node does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// What it should.
    Serve,
    /// Nothing.
    Ignore,
    /// Executes it, and never answers.
    Swallow,
    /// Executes it, and answers later.
    Late(Duration),
    /// Executes it, and closes the connection instead of answering.
    ServeAndClose,
    /// Closes the connection.
    CloseAtOnce,
    /// Refuses.
    Refuse(Refusal),
    /// Answers with this.
    Answer(Answer),
    /// Executes it, and answers with bytes that are no reply.
    Garbage,
    /// Announces a reply that is longer than any may be.
    Oversize,
    /// Answers a request that nobody has made, then this one.
    StrangerFirst,
}

type Script = Box<dyn FnMut(&RequestBody) -> Act + Send>;

/// A write as it was executed: in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Executed {
    pub shard: GroupId,
    pub session: SessionId,
    pub serial: Serial,
    pub settled: Serial,
}

#[derive(Default)]
struct Table {
    settled: Serial,
    replies: BTreeMap<Serial, Result<Answer, Refusal>>,
}

#[derive(Default)]
pub struct State {
    pub view: Option<NetworkView>,
    sessions: HashMap<(GroupId, SessionId), Table>,
    values: HashMap<Bytes, Stored>,
    revisions: HashMap<GroupId, u64>,
    pub executed: Vec<Executed>,
    /// Propositions that arrived, executed or not.
    pub arrived: usize,
}

impl State {
    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    pub fn set_primary(&mut self, node: NodeId) {
        let view = self.view.as_mut().unwrap();
        view.term.0 += 1;
        view.coordinator = Some(node);
        for shard in &mut view.shards {
            shard.primary = Some(node);
        }
    }

    fn primary(&self, shard: GroupId) -> Option<NodeId> {
        let view = self.view.as_ref()?;
        view.shards.iter().find(|info| info.group == shard)?.primary
    }

    fn receipt(&self, node: NodeId, shard: GroupId, revision: u64, level: Level) -> Receipt {
        let (revision, term) = (Revision(revision), self.view.as_ref().unwrap().term);
        let (stamp, pending) = (Default::default(), None);
        Receipt { shard, revision, level, node, term, staleness_ms: Some(0), stamp, pending }
    }

    fn propose(&mut self, node: NodeId, shard: GroupId, command: &[u8]) -> Result<Answer, Refusal> {
        let write = match decode::<Command<'_>>(command).unwrap() {
            Command::OpenSession(session) => {
                self.sessions.entry((shard, session)).or_default();
                return Ok(Answer::Done);
            }
            Command::Write(write) => write,
            // Nodes propose these, and clients no transaction yet.
            _ => return Err(Refusal::Denied("not a node".into())),
        };
        let Write { session, serial, settled, condition, key, operation, .. } = write;
        let Some(table) = self.sessions.get_mut(&(shard, session)) else {
            return Err(Refusal::SessionExpired);
        };
        assert!(serial >= settled, "a write that the client calls settled itself");
        assert!(serial.0 - table.settled.0.min(settled.0).max(1) < 2 * 4096, "window overrun");
        if serial < table.settled {
            return Err(Refusal::SessionExpired);
        }
        table.settled = table.settled.max(settled);
        table.replies = table.replies.split_off(&table.settled);
        assert!(table.replies.len() <= 4096, "more unsettled writes than a session may have");
        if let Some(reply) = table.replies.get(&serial) {
            return reply.clone();
        }
        self.executed.push(Executed { shard, session, serial, settled });
        let current = self.values.get(key).map(|stored| stored.revision);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(revision) => current == Some(revision),
        };
        let revision = self.revisions.entry(shard).or_default();
        *revision += 1;
        let revision = *revision;
        let receipt = self.receipt(node, shard, revision, Level::Strong);
        let reply = if !holds {
            Err(Refusal::Conflict { receipt, current })
        } else {
            let revision = Revision(revision);
            let key = Bytes::copy_from_slice(key);
            let before = match operation {
                Operation::Put(value) => {
                    let value = Bytes::copy_from_slice(value);
                    self.values.insert(key, Stored { value, revision })
                }
                Operation::Delete => self.values.remove(&key),
            };
            Ok(Answer::Written { receipt, existed: before.is_some() })
        };
        let table = self.sessions.get_mut(&(shard, session)).unwrap();
        table.replies.insert(serial, reply.clone());
        reply
    }

    fn serve(&mut self, node: NodeId, body: &RequestBody) -> Result<Answer, Refusal> {
        match body {
            RequestBody::View => Ok(Answer::View(Box::new(self.view.clone().unwrap()))),
            RequestBody::Status => Ok(Answer::Status(Box::new(NodeStatus {
                id: node,
                name: "fake".into(),
                version: "0".into(),
                uptime_ms: 1,
                server_seen_ms: None,
                groups: Vec::new(),
                log_bytes: 0,
                fsync_us: 0,
                disk_full: false,
                pending: 0,
                notes: Vec::new(),
            }))),
            RequestBody::Read { shard, key, mode } => {
                let primary = self.primary(*shard);
                if matches!(mode, ReadMode::Primary | ReadMode::All) && primary != Some(node) {
                    return Err(Refusal::NotPrimary { primary });
                }
                let level = match mode {
                    ReadMode::Eventual(_) | ReadMode::Held => Level::Eventual,
                    ReadMode::Primary | ReadMode::Replica | ReadMode::All => Level::Strong,
                };
                let latest = self.revisions.get(shard).copied().unwrap_or_default();
                let stored = self.values.get(key).cloned();
                let revision = stored.as_ref().map_or(latest, |stored| stored.revision.0);
                Ok(Answer::Value(self.receipt(node, *shard, revision, level), stored))
            }
            RequestBody::Scan { shard, span, mode } => {
                let primary = self.primary(*shard);
                let eventual = matches!(mode, ReadMode::Eventual(_));
                let level = if eventual { Level::Eventual } else { Level::Strong };
                if level == Level::Strong && primary != Some(node) {
                    return Err(Refusal::NotPrimary { primary });
                }
                let view = self.view.as_ref().unwrap();
                let here =
                    |key: &Bytes| view.shard_of(KeyspaceId::DEFAULT, key).unwrap().group == *shard;
                let in_span = |key: &Bytes| key.starts_with(&span.prefix) && *key > span.after;
                let mut pairs: Vec<Pair> = self
                    .values
                    .iter()
                    .filter(|(key, _)| here(key) && in_span(key))
                    .map(|(key, stored)| {
                        let value = span.values.then(|| stored.value.clone());
                        Pair::new(key.clone(), stored.revision, value)
                    })
                    .collect();
                pairs.sort_by(|one, other| one.key.cmp(&other.key));
                let more = pairs.len() > span.keys_max as usize;
                pairs.truncate(span.keys_max as usize);
                let revision = self.revisions.get(shard).copied().unwrap_or_default();
                let receipt = self.receipt(node, *shard, revision, level);
                Ok(Answer::Page(receipt, Page { pairs, more }))
            }
            RequestBody::Propose { shard, command, .. } => {
                let primary = self.primary(*shard);
                if primary != Some(node) {
                    return Err(Refusal::NotPrimary { primary });
                }
                self.propose(node, *shard, command)
            }
            RequestBody::Deposit { .. } => Err(Refusal::Unavailable("not here".into())),
            RequestBody::RemoveNode(_)
            | RequestBody::ExpelNode(_)
            | RequestBody::Revoke(_)
            | RequestBody::Drain { .. }
            | RequestBody::Rebalance
            | RequestBody::MovePrimary { .. } => {
                let primary = self.view.as_ref().unwrap().coordinator;
                if primary == Some(node) {
                    Ok(Answer::Done)
                } else {
                    Err(Refusal::NotPrimary { primary })
                }
            }
            RequestBody::Placement { .. } => Err(Refusal::Unavailable("nothing is placed".into())),
            // Between nodes, and what this network does not have.
            _ => Err(Refusal::Denied("not a node".into())),
        }
    }
}

pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    endpoint: Endpoint,
    pub acceptor: Arc<Acceptor>,
    script: Arc<Mutex<Option<Script>>>,
}

impl Node {
    /// What it does from now on.
    pub fn script(&self, script: impl FnMut(&RequestBody) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Some(Box::new(script));
    }

    pub fn behave(&self) {
        *self.script.lock().unwrap() = None;
    }

    /// Closes all connections and the socket.
    pub fn stop(&self) {
        self.endpoint.quinn().close(4u32.into(), b"stopping");
    }
}

pub struct Fake {
    pub network: NetworkId,
    pub address: SocketAddr,
    pub nodes: Vec<Node>,
    pub server: Endpoint,
    pub acceptor: Arc<Acceptor>,
    pub joined: Arc<Mutex<Vec<HolderId>>>,
    pub authority: Arc<Authority>,
    pub home: PathBuf,
    state: Arc<Mutex<State>>,
    _directory: Option<tempfile::TempDir>,
}

impl Fake {
    /// A network of that many nodes and two shards, whose first node leads everything.
    pub async fn start(nodes: usize) -> Self {
        Self::start_at(nodes, "127.0.0.1:0".parse().unwrap(), None).await
    }

    pub async fn start_at(count: usize, server: SocketAddr, home: Option<PathBuf>) -> Self {
        let network = NetworkId::random();
        let authority = Arc::new(Authority::create(network, SystemTime::now()).unwrap());
        let directory = home.is_none().then(|| tempfile::tempdir().unwrap());
        let home = home.unwrap_or_else(|| directory.as_ref().unwrap().path().to_owned());
        let state = Arc::new(Mutex::new(State::default()));
        let nodes: Vec<Node> =
            (0..count).map(|_| node(&authority, "127.0.0.1:0".parse().unwrap(), &state)).collect();
        if count > 0 {
            let settings = Settings { shards: 2, ..Settings::default() };
            let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
            let shards = (1..).zip(shard_starts(2)).map(|(group, first_hash)| ShardInfo {
                group: GroupId(group),
                keyspace: Default::default(),
                first_hash,
                primary: ids.first().copied(),
                voters: ids.clone(),
                learners: Vec::new(),
            });
            let infos = nodes.iter().enumerate().map(|(index, node)| NodeInfo {
                id: node.id,
                name: format!("node-{}", index + 1),
                address: node.address,
                region: None,
                state: NodeState::Live,
            });
            state.lock().unwrap().view = Some(NetworkView {
                network,
                term: Term(1),
                coordinator: ids.first().copied(),
                nodes: infos.collect(),
                revision: Default::default(),
                keyspaces: Vec::new(),
                shards: shards.collect(),
                settings,
                denied: Vec::new(),
                servers: Vec::new(),
            });
        }
        let holder = HolderId::random();
        let credentials =
            credentials(&authority, Identity { network, role: Role::Server, holder, user: None });
        let endpoint =
            Endpoint::listen(server, credentials, Admit::CertifiedAndJoining, b"server").unwrap();
        let address = endpoint.local_address().unwrap();
        let tokens: HashMap<Role, Token> = [Role::Client, Role::Admin]
            .map(|role| (role, Token::generate(role, authority.fingerprint())))
            .into();
        for token in tokens.values() {
            local::leave_token(&home, address.port(), token).unwrap();
        }
        let acceptor = Arc::new(Acceptor::default());
        let joined = Arc::new(Mutex::new(Vec::new()));
        let desk = Desk {
            network,
            authority: authority.clone(),
            tokens: tokens.values().cloned().collect(),
            joined: joined.clone(),
            state: state.clone(),
            acceptor: acceptor.clone(),
        };
        let desk = Arc::new(desk);
        tokio::spawn(acceptor.clone().serve(endpoint.clone(), move |connection, peer| {
            let desk = desk.clone();
            async move { desk.serve(connection, peer).await }
        }));
        let server = endpoint;
        Self {
            network,
            address,
            nodes,
            server,
            acceptor,
            joined,
            authority,
            home,
            state,
            _directory: directory,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How to connect to it.
    pub fn builder(&self) -> dkv_api::ClientBuilder {
        dkv_api::Client::builder()
            .server(self.address.to_string())
            .home(&self.home)
            .timeout(Duration::from_secs(5))
    }
}

fn credentials(authority: &Authority, identity: Identity) -> Credentials {
    credentials_of(authority, identity, SystemTime::now())
}

/// Credentials that were issued at that time.
pub fn credentials_of(
    authority: &Authority,
    identity: Identity,
    issued: SystemTime,
) -> Credentials {
    let (key, public_key) = generate_key().unwrap();
    let certificate = authority.sign(identity, &public_key, issued).unwrap();
    Credentials::new(&certificate, authority.certificate(), key).unwrap()
}

fn node(authority: &Authority, address: SocketAddr, state: &Arc<Mutex<State>>) -> Node {
    let id = NodeId::random();
    let identity = credentials_identity(authority, id);
    let endpoint =
        Endpoint::listen(address, credentials(authority, identity), Admit::Certified, b"node")
            .unwrap();
    let address = endpoint.local_address().unwrap();
    let acceptor = Arc::new(Acceptor::default());
    let script: Arc<Mutex<Option<Script>>> = Arc::default();
    let (theirs, states) = (script.clone(), state.clone());
    tokio::spawn(acceptor.clone().serve(endpoint.clone(), move |connection, _| {
        let (script, state) = (theirs.clone(), states.clone());
        async move {
            while let Ok((send, receive)) = connection.accept_bi().await {
                let (script, state) = (script.clone(), state.clone());
                let connection = connection.clone();
                tokio::spawn(requests(id, connection, send, receive, script, state));
            }
        }
    }));
    Node { id, address, endpoint, acceptor, script }
}

fn credentials_identity(authority: &Authority, id: NodeId) -> Identity {
    Identity::node(authority.network(), id)
}

async fn requests(
    id: NodeId,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    script: Arc<Mutex<Option<Script>>>,
    state: Arc<Mutex<State>>,
) {
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let (replies, mut queue) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        let mut send = send;
        while let Some(bytes) = queue.recv().await {
            if send.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let Ok(Some(opening)) = reader.next().await else { return };
    assert_eq!(decode::<Opening>(&opening).unwrap(), Opening::Requests);
    let framed = |content: &[u8]| [&(content.len() as u32).to_le_bytes(), content].concat();
    while let Ok(Some(frame)) = reader.next().await {
        let request: Request = decode(&frame).unwrap();
        assert!(request.deadline_ms > 0);
        let act = match script.lock().unwrap().as_mut() {
            Some(script) => script(&request.body),
            None => Act::Serve,
        };
        if matches!(request.body, RequestBody::Propose { .. }) {
            state.lock().unwrap().arrived += 1;
        }
        let serve = || {
            let result = state.lock().unwrap().serve(id, &request.body);
            framed(&encode(&Reply { id: request.id, result }))
        };
        let reply = |result| drop(replies.send(framed(&encode(&Reply { id: request.id, result }))));
        let close = || Close::Stopping.close(&connection, "as the script says");
        match act {
            Act::Serve => drop(replies.send(serve())),
            Act::Ignore => {}
            Act::Swallow => drop(serve()),
            Act::Late(pause) => {
                let (reply, replies) = (serve(), replies.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = replies.send(reply);
                });
            }
            Act::ServeAndClose => {
                serve();
                close();
            }
            Act::CloseAtOnce => close(),
            Act::Refuse(refusal) => reply(Err(refusal)),
            Act::Answer(answer) => reply(Ok(answer)),
            Act::Garbage => {
                serve();
                let _ = replies.send(framed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
            }
            Act::Oversize => {
                serve();
                let _ = replies.send(u32::MAX.to_le_bytes().to_vec());
            }
            Act::StrangerFirst => {
                let reply = Reply { id: request.id + 1_000_000, result: Ok(Answer::Done) };
                let _ = replies.send(framed(&encode(&reply)));
                let _ = replies.send(serve());
            }
        }
    }
}

struct Desk {
    network: NetworkId,
    authority: Arc<Authority>,
    tokens: Vec<Token>,
    joined: Arc<Mutex<Vec<HolderId>>>,
    state: Arc<Mutex<State>>,
    acceptor: Arc<Acceptor>,
}

impl Desk {
    async fn serve(&self, connection: quinn::Connection, peer: Peer) {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let mut writer = FrameWriter::new(send);
            match peer {
                Peer::Joining => {
                    let mut reader = FrameReader::new(receive, JOIN_FRAME_BYTES_MAX);
                    let Ok(Some(frame)) = reader.next().await else { continue };
                    let answer = match decode(&frame).unwrap() {
                        Joining::Join(request) => self.join(request),
                        Joining::Recertify(request) => self.recertify(&connection, request),
                        Joining::Readmit(_) => Err(JoinRefusal::Unknown),
                    };
                    let _ = writer.send(&answer).await;
                }
                Peer::Certified(identity) => {
                    let mut reader = FrameReader::new(receive, SERVER_FRAME_BYTES_MAX);
                    let Ok(Some(frame)) = reader.next().await else { continue };
                    let _ = writer.send(&self.answer(identity, decode(&frame).unwrap())).await;
                }
            }
            let _ = writer.into_inner().finish();
        }
    }

    fn join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinRefusal> {
        let known = self
            .tokens
            .iter()
            .find(|token| token.id == request.token && token.secret == request.secret);
        let token = known.ok_or(JoinRefusal::Unknown)?;
        let (network, role, holder) = (self.network, token.role, HolderId::random());
        let identity = Identity { network, role, holder, user: None };
        let certificate =
            self.authority.sign(identity, &request.public_key, SystemTime::now()).unwrap();
        self.joined.lock().unwrap().push(holder);
        Ok(JoinAnswer { network, role, holder, certificate })
    }

    fn recertify(
        &self,
        connection: &quinn::Connection,
        request: RecertifyRequest,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let material = proof_material(connection).unwrap();
        let (identity, public_key) = self
            .authority
            .recognise(&request.certificate, &material, &request.proof)
            .map_err(|_| JoinRefusal::Certificate)?;
        if self.acceptor.is_denied(identity.holder) {
            return Err(JoinRefusal::Denied);
        }
        let certificate = self.authority.sign(identity, &public_key, SystemTime::now()).unwrap();
        let Identity { network, role, holder, user: _ } = identity;
        Ok(JoinAnswer { network, role, holder, certificate })
    }

    fn answer(&self, identity: Identity, request: ServerRequest) -> ServerAnswer {
        let view = self.state.lock().unwrap().view.clone();
        let denied = || ServerAnswer::Refused(ServerRefusal::Denied("for admins only".into()));
        match request {
            ServerRequest::Lookup => ServerAnswer::View(view.map(Box::new)),
            ServerRequest::Status => ServerAnswer::Status(Box::new(ServerStatus {
                server: HolderId(self.network.0),
                books: None,
                network: self.network,
                version: "0".into(),
                uptime_ms: 1,
                bootstrap: None,
                coordinator: None,
                confirmed_at_ms: None,
                report_age_ms: None,
                nodes: Vec::new(),
                view,
                settings: Settings::default(),
                runs: Vec::new(),
                now_ms: 0,
            })),
            ServerRequest::Renew { public_key } => ServerAnswer::Certificate(
                self.authority.sign(identity, &public_key, SystemTime::now()).unwrap(),
            ),
            ServerRequest::CreateToken { .. } if identity.role == Role::Admin => {
                ServerAnswer::Token("a token".into())
            }
            ServerRequest::ListTokens if identity.role == Role::Admin => {
                ServerAnswer::Tokens(Vec::new())
            }
            ServerRequest::RevokeToken(_) if identity.role == Role::Admin => ServerAnswer::Done,
            _ => denied(),
        }
    }
}
