//! An intruder: an attacker with a stolen node token, who speaks the network's own protocol.
//!
//! The token gets the intruder the certificate of a node. With it, the intruder
//! - sends every message of a group member, in its own name, to every node and for every group;
//! - reports to the server as the coordinator of a later term, with all other nodes denied;
//! - registers its own address and waits for misled clients.
//!
//! Then it has the network take it in, as any node with a token is, and goes on: it claims to lead
//! the control group and the shards. At the end an administrator throws it out.
//!
//! None of this may have an effect: no term rises, no node stops, no client comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{GroupId, NetworkView, NodeId, Role};
use dkv_base::id::{Number, Stamp, Term};
use dkv_console::Console;
use dkv_local::SERVER;
use dkv_node::fuzzing::{forgeries, introduce};
use dkv_wire::certificate::Credentials;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::incarnation::{BootId, Incarnation};
use dkv_wire::join::join;
use dkv_wire::limits::{FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use dkv_wire::message::{
    Answer, Command, ControlGroup, CoordinatorReport, Deposited, LedGroup, Measures, Opening,
    Operation, Refusal, Reply, Request, RequestBody, ServerAnswer, ServerRequest,
};
use dkv_wire::network::{NodeInfo, NodeState, ShardInfo};
use dkv_wire::quic::Endpoint;
use dkv_wire::rpc::call;
use dkv_wire::tls::{Admit, Expect};
use dkv_wire::token::Token;
use tokio::task::JoinSet;

use crate::error::{DrillError, Obstacle, Violation};
use crate::testbed::Testbed;

/// Time limit of an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause between two waves, so as not to overload the machine.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest time after which it is gone once an administrator wants it to be.
const THROWN_OUT_WITHIN: Duration = Duration::from_secs(20);
/// The key that it tries to write.
const KEY: &[u8] = b"intruder";

/// Attacks for about `time`.
///
/// # Errors
/// The intruder achieved something, or could not attack.
pub(crate) async fn attack(
    testbed: &mut Testbed,
    time: Duration,
    console: &mut Console,
) -> Result<(), DrillError> {
    let network = testbed.network()?;
    let address = network.address().to_owned();
    let server: SocketAddr =
        address.parse().map_err(|source| Obstacle::Address { address, source })?;
    let token = network.dir().data(SERVER).join("tokens/node.token");
    let token = std::fs::read_to_string(&token)
        .map_err(Obstacle::file(format!("cannot read {}", token.display())))?;
    let client = network.connect(Role::Client).await?;
    let view = client.view().await?;
    let intruder = Arc::new(Intruder::join(server, token.trim(), view).await?);
    testbed
        .record("an intruder with a stolen node token attacks every node and the server", console);
    let mut attacking = JoinSet::new();
    let attacker = Arc::clone(&intruder);
    attacking.spawn(async move { attacker.run(time).await });
    testbed.work_for(time, console).await;
    let tried = match attacking.join_next().await {
        Some(Ok(tried)) => tried?,
        _ => return Err(Obstacle::Task.into()),
    };
    testbed.record(&format!("the attack is over: {tried} conversations"), console);
    let found = intruder.judge(&client, testbed).await;
    client.close().await;
    found?;
    let admin = testbed.network()?.connect(Role::Admin).await?;
    let gone = intruder.throw_out(&admin).await;
    admin.close().await;
    testbed.record("an administrator has thrown the intruder out", console);
    gone
}

/// The attacker.
struct Intruder {
    id: NodeId,
    name: String,
    /// Endpoint from which it attacks, and at which it waits for misled clients.
    endpoint: Endpoint,
    address: SocketAddr,
    server: SocketAddr,
    /// The network before the attack.
    view: NetworkView,
    /// Number of requests from misled clients.
    captured: Arc<AtomicUsize>,
    /// Whether the network has taken it in.
    is_listed: AtomicBool,
    _serving: JoinSet<()>,
}

impl Intruder {
    async fn join(server: SocketAddr, token: &str, view: NetworkView) -> Result<Self, Obstacle> {
        let token: Token = token.parse().map_err(|_| Obstacle::Token)?;
        let joiner = Endpoint::dial_only(None).map_err(Obstacle::Socket)?;
        let credentials: Credentials = join(&joiner, server, &token).await?;
        let id = credentials.identity.as_node().ok_or(Obstacle::Token)?;
        let here = ([127, 0, 0, 1], 0).into();
        let secret = credentials.secret().to_vec();
        let endpoint = Endpoint::listen(here, credentials, Admit::Certified, &secret)
            .map_err(Obstacle::Socket)?;
        let address = endpoint.local_address().map_err(Obstacle::Socket)?;
        let captured = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        serving.spawn(serve_misled_clients(endpoint.clone(), forged_view(&view, id, address), {
            Arc::clone(&captured)
        }));
        let name = "intruder".to_owned();
        let is_listed = AtomicBool::new(false);
        Ok(Self {
            id,
            name,
            endpoint,
            address,
            server,
            view,
            captured,
            is_listed,
            _serving: serving,
        })
    }

    /// Attacks until the time is over. Returns the number of conversations.
    async fn run(&self, time: Duration) -> Result<usize, Violation> {
        let (half, end) = (Instant::now() + time / 2, Instant::now() + time);
        let mut tried = 0;
        // However long a wave takes, there is one as a stranger and one as a node.
        let mut waves = 0;
        while Instant::now() < end || waves < 2 {
            if waves > 0 && Instant::now() >= half && !self.is_listed.load(Ordering::Relaxed) {
                tried += self.announce().await;
            }
            waves += 1;
            tried += self.attack_server().await?;
            for node in &self.view.nodes {
                tried += self.attack_node(node).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(tried)
    }

    /// Registers as the leader of the control group, and reports as the coordinator.
    ///
    /// # Errors
    /// The server accepted a report.
    async fn attack_server(&self) -> Result<usize, Violation> {
        let Ok(connection) = self.endpoint.connect(self.server, Expect::Server).await else {
            return Ok(0);
        };
        let mut tried = 0;
        let known = self.view.term.0;
        for term in [known, known + 1, known + 1000, u64::MAX] {
            let control = ControlGroup {
                term: Term(term),
                leader: Some(self.id),
                index: 1 << 30,
                voters: vec![self.id],
            };
            let register = ServerRequest::Register {
                name: Some(self.name.clone()),
                address: self.address,
                region: None,
                control: Some(control.clone()),
            };
            let mut view = forged_view(&self.view, self.id, self.address);
            view.term = Term(term);
            let report =
                ServerRequest::Report(CoordinatorReport { term: view.term, view, control });
            for request in [register, report] {
                tried += 1;
                let answer: Result<ServerAnswer, _> =
                    call(&connection, None::<&()>, &request, SERVER_FRAME_BYTES_MAX, ANSWER).await;
                if matches!(answer, Ok(ServerAnswer::Confirmed(_))) {
                    return Err(Violation::ReportAccepted(term));
                }
            }
        }
        Ok(tried)
    }

    /// Has the network take it in. Returns the number of conversations.
    async fn announce(&self) -> usize {
        for node in &self.view.nodes {
            let body = RequestBody::Announce {
                name: self.name.clone(),
                address: self.address,
                region: None,
            };
            if let Some(Ok(Answer::Done)) = self.ask(node, body).await {
                self.is_listed.store(true, Ordering::Relaxed);
            }
        }
        self.view.nodes.len()
    }

    /// Asks a node. Returns `None` if it does not answer.
    async fn ask(&self, node: &NodeInfo, body: RequestBody) -> Option<Result<Answer, Refusal>> {
        let connecting = self.endpoint.connect(node.address, Expect::Node(node.id));
        let connection = connecting.await.ok()?;
        let request = Request { id: 1, deadline_ms: 500, forward: false, user: None, body };
        let opening = Some(&Opening::Requests);
        let reply: Result<Reply, _> =
            call(&connection, opening, &request, FRAME_BYTES_MAX, ANSWER).await;
        Some(reply.ok()?.result)
    }

    /// Has an administrator remove it, whatever it says.
    ///
    /// # Errors
    /// It stays.
    async fn throw_out(&self, admin: &dkv_api::Client) -> Result<(), DrillError> {
        if !self.is_listed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match admin.expel_node(self.id).await {
            Ok(()) | Err(dkv_api::Error::NotEverywhere { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let until = Instant::now() + THROWN_OUT_WITHIN;
        // A client does not show a denied node even while the directory still has it.
        while admin.placement(false).await?.nodes.iter().any(|places| places.node == self.id) {
            if Instant::now() > until {
                return Err(Violation::Admitted.into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Sends a node every forged message. Returns their number.
    async fn attack_node(&self, node: &NodeInfo) -> usize {
        let mut tried = 0;
        let groups = self.view.shards.iter().map(|shard| shard.group);
        let groups: Vec<GroupId> = [GroupId::CONTROL].into_iter().chain(groups).collect();
        for group in &groups {
            for term in [1, self.view.term.0 + 1, self.view.term.0 + 1_000_000, u64::MAX] {
                for forged in forgeries(self.id, node.id, *group, term) {
                    tried += 1;
                    let sent = self.send(node.address, forged.opening, forged.frames);
                    // A refused message may remain unanswered, and a node may close the connection.
                    let _ = tokio::time::timeout(ANSWER, sent).await;
                }
            }
        }
        for term in [self.view.term.0 + 1, u64::MAX] {
            for body in self.requests(&groups, Term(term)) {
                tried += 1;
                let _ = self.ask(node, body).await;
            }
        }
        tried
    }

    /// Opens a stream, sends frames and waits for the first answer. Returns `None` if the node
    /// takes no part in that, as it may.
    async fn send(&self, to: SocketAddr, opening: Opening, frames: Vec<Bytes>) -> Option<()> {
        let connection = self.endpoint.connect(to, Expect::AnyNode).await.ok()?;
        // A node ignores peers that have not said which run they are.
        let run = Incarnation::default().next(BootId(1));
        introduce(&connection, self.id, &run).await?;
        let (send, receive) = connection.open_bi().await.ok()?;
        let mut writer = FrameWriter::new(send);
        writer.push(&opening);
        for frame in frames {
            writer.push_bytes(&frame);
        }
        writer.flush().await.ok()?;
        let _ = FrameReader::new(receive, FRAME_BYTES_MAX).next().await;
        Some(())
    }

    /// Returns the requests that only nodes of the network may send. Once the network has taken it
    /// in, it may write as a client does; that proves nothing.
    fn requests(&self, groups: &[GroupId], term: Term) -> Vec<RequestBody> {
        let led = groups.iter().map(|group| LedGroup {
            group: *group,
            term,
            voters: vec![self.id],
            learners: Vec::new(),
            is_joint: false,
            bytes: 0,
            last_index: u64::MAX,
            members: Vec::new(),
            is_changing: false,
        });
        let mut requests = vec![RequestBody::Measures(Box::new(Measures {
            leads: led.collect(),
            ..Measures::default()
        }))];
        let write = Deposited {
            node: self.id,
            number: Number(1),
            after: Number(0),
            stamp: Stamp(1 << 40),
            key: KEY,
            operation: Operation::Put(b"stolen"),
        };
        let command = dkv_wire::codec::encode(&Command::Deposited(write));
        for shard in groups.iter().copied().filter(|group| group.is_shard()) {
            let command = command.clone();
            requests.extend([
                RequestBody::HandOver { shard, to: self.id },
                RequestBody::Departed(shard),
                RequestBody::Committed { shard, followed: Some(term) },
            ]);
            if !self.is_listed.load(Ordering::Relaxed) {
                requests.push(RequestBody::Propose { shard, everywhere: false, command });
            }
        }
        requests.push(RequestBody::Leaving);
        requests
    }

    /// Checks that the attack had no effect.
    ///
    /// # Errors
    /// The intruder achieved something.
    async fn judge(&self, client: &dkv_api::Client, testbed: &Testbed) -> Result<(), DrillError> {
        let captured = self.captured.load(Ordering::Relaxed);
        if captured > 0 {
            return Err(Violation::Misled(captured).into());
        }
        if let Ok(read) = client.read(KEY).await {
            let value = String::from_utf8_lossy(&read.value).into_owned();
            return Err(Violation::Stored(value).into());
        }
        let view = client.refresh().await?;
        let is_expected = self.is_listed.load(Ordering::Relaxed);
        let holds =
            |shard: &ShardInfo| shard.primary == Some(self.id) || shard.voters.contains(&self.id);
        if view.node(self.id).is_some() && !is_expected
            || view.coordinator == Some(self.id)
            || view.shards.iter().any(holds)
        {
            return Err(Violation::Admitted.into());
        }
        let before: Vec<NodeId> = self.view.nodes.iter().map(|node| node.id).collect();
        if let Some(gone) = before.iter().find(|node| view.node(**node).is_none()) {
            return Err(Violation::DrivenOut(*gone).into());
        }
        for node in &self.view.nodes {
            if testbed.process(&node.name).await.is_err() {
                return Err(Violation::Stopped(node.name.clone()).into());
            }
            testbed.wait_live(&node.name).await?;
        }
        Ok(())
    }
}

/// Returns a view in which the intruder is the only node.
fn forged_view(view: &NetworkView, id: NodeId, address: SocketAddr) -> NetworkView {
    let mut forged = view.clone();
    forged.term = Term(view.term.0 + 1);
    forged.coordinator = Some(id);
    forged.denied = view.nodes.iter().map(|node| node.id.into()).collect();
    let (name, region, state) = ("intruder".into(), None, NodeState::Live);
    forged.nodes = vec![NodeInfo { id, name, address, region, state }];
    for shard in &mut forged.shards {
        shard.primary = Some(id);
        shard.voters = vec![id];
        shard.learners.clear();
    }
    forged
}

/// Answers every client, so that misled clients stay, and counts the requests for more than a view.
async fn serve_misled_clients(endpoint: Endpoint, view: NetworkView, captured: Arc<AtomicUsize>) {
    let mut conversations = JoinSet::new();
    while let Some(incoming) = endpoint.quinn().accept().await {
        let (view, captured) = (view.clone(), Arc::clone(&captured));
        conversations.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, receive)) = connection.accept_bi().await {
                let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
                let mut writer = FrameWriter::new(send);
                let opening = reader.next().await.ok().flatten();
                if !matches!(opening.map(|it| decode::<Opening>(&it)), Some(Ok(Opening::Requests)))
                {
                    continue;
                }
                while let Ok(Some(frame)) = reader.next().await {
                    let Ok(request) = decode::<Request>(&frame) else { break };
                    let result = match request.body {
                        RequestBody::View => Ok(Answer::View(Box::new(view.clone()))),
                        RequestBody::Read { .. }
                        | RequestBody::Scan { .. }
                        | RequestBody::Propose { .. }
                        | RequestBody::Deposit { .. } => {
                            captured.fetch_add(1, Ordering::Relaxed);
                            Ok(Answer::Done)
                        }
                        _ => Err(Refusal::Unavailable("busy".into())),
                    };
                    if writer.send(&Reply { id: request.id, result }).await.is_err() {
                        break;
                    }
                }
            }
        });
    }
}
