//! Requests of clients, administrators and other nodes to this node.
//!
//! One stream carries many requests; each is decided where it belongs, and its answer goes back
//! when it is ready, in any order. A connection and its holder have a [share](crate::net::quota) of
//! what may be in flight: a request takes its part before it is read and returns it once its answer
//! is written, so this node stops reading from a peer that does not read its answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{Answer, Command, ReadBounds, ReadMode, Refusal, Request, RequestBody};
use dkv_wire::name::check_name;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::cluster::coordinator;
use crate::cluster::rebalancer;
use crate::cluster::replica_removal;
use crate::common::counters;
use crate::net::quota::{Quota, QuotaPermit};
use crate::net::reply::{Begun, Replies, ReplyTo};
use crate::node::Node;
use crate::replica::Group;
use crate::replica::backlog::Place;
use crate::replica::strong_reads::{Asked, PendingRead};
use crate::replica::write_batches::PendingWrite;
use crate::serve::eventual_reads;
use crate::serve::eventual_writes::{self, Deposit};
use crate::serve::forwarding;
use crate::serve::history;
use crate::serve::level_all;
use dkv_state::{Announcement, DirectoryCommand, DirectoryResult};

/// Longest time that nodes being emptied have to report whether they are empty.
const EMPTIED_PATIENCE: Duration = Duration::from_secs(4);

/// Answers the requests of one stream until it ends.
pub(crate) async fn serve(
    node: Arc<Node>,
    peer: Identity,
    quota: Quota,
    address: SocketAddr,
    mut reader: FrameReader<quinn::RecvStream>,
    writer: FrameWriter<quinn::SendStream>,
) {
    let (replies, writing) = Replies::new(writer, Arc::clone(node.counters()));
    // A separate task, which ends with this one at the latest.
    let mut writer = JoinSet::new();
    writer.spawn(writing);
    while let Some((frame, mut part)) = next_frame(&mut reader, &quota).await {
        let at = Instant::now();
        node.counters().received(frame.len());
        let mut request: Request = match decode(&frame) {
            Ok(request) => request,
            Err(error) => {
                // Without its id the request cannot be answered, and what follows cannot be
                // trusted.
                debug!(%peer, %error, "malformed request");
                break;
            }
        };
        if history::has_large_answer(&request.body) {
            let Some(more) = quota.take_scan().await else { break };
            part.merge(more);
        }
        name_session(peer, &mut request.body);
        if let Some(act) = act(&request.body)
            && allowed(peer, &request.body).is_ok()
        {
            info!(by = %peer, %address, "administrative act: {act}");
        }
        let begun = Begun { kind: counters::kind(&request.body), at };
        let reply = replies.to(request.id, part, begun);
        handle(&node, peer, request, reply);
    }
    drop(replies);
    let _ = writer.join_next().await;
}

async fn next_frame(
    reader: &mut FrameReader<quinn::RecvStream>,
    quota: &Quota,
) -> Option<(Bytes, QuotaPermit)> {
    let read = reader.next_with_room(async |bytes| quota.take(bytes).await).await;
    match read {
        Ok(Some((frame, part))) => Some((frame, part?)),
        Ok(None) => None,
        Err(error) => {
            debug!(%error, "request stream ended");
            None
        }
    }
}

/// Counts a session among those of the holder that opens it. A request that another node passes on
/// names its holder already.
fn name_session(peer: Identity, body: &mut RequestBody) {
    let RequestBody::Propose { command, .. } = body else { return };
    let Ok(Command::OpenSession(session)) = decode(command) else { return };
    *command = encode(&Command::OpenSessionOf { session, holder: peer.holder });
}

/// Describes an administrator's request for the log; `None` for any other request.
fn act(body: &RequestBody) -> Option<String> {
    match body {
        RequestBody::RemoveNode(node) => Some(format!("remove node {node}")),
        RequestBody::Revoke(holder) => Some(format!("revoke {holder}")),
        RequestBody::Drain { node, on: true } => Some(format!("drain node {node}")),
        RequestBody::Drain { node, on: false } => Some(format!("use node {node} again")),
        RequestBody::Compact { shard, floor } => {
            Some(format!("compact shard {shard} to revision {floor}"))
        }
        RequestBody::Rebalance => Some("rebalance".into()),
        _ => None,
    }
}

fn handle(node: &Arc<Node>, peer: Identity, request: Request, reply: ReplyTo) {
    if let Err(refusal) = allowed(peer, &request.body) {
        return reply.refuse(refusal);
    }
    if let Some(stranger) =
        peer.as_node().filter(|id| needs_listing(&request.body) && !node.is_listed(*id))
    {
        // A node that has just joined may not be in the directory here yet: the node, or the sender
        // of the request, asks again.
        let why = "a node that the directory does not name is not served";
        node.peers().denials().note(stranger, why);
        return reply.refuse(Refusal::Unavailable(why.into()));
    }
    if let Some(why) = held_back(node, &request.body) {
        return reply.refuse(Refusal::Unavailable(why.to_string()));
    }
    if request.forward && is_deposited(&request.body) {
        // It would arrive in this node's name.
        return reply.refuse(Refusal::Denied("what is in an outbox is not passed on".into()));
    }
    if let Some(answer) = eventual_reads::without_replica(node, &request.body) {
        return reply.send(Ok(answer));
    }
    if request.forward
        && let Some(shard) = forwarding::destination(node, &request.body)
    {
        return forwarding::forward(node, shard, request, reply);
    }
    match request.body {
        RequestBody::Propose { shard, everywhere, command } => {
            let Some(group) = shard_here(node, shard) else {
                return reply.refuse(elsewhere(node, shard));
            };
            let deadline_ms = request.deadline_ms;
            let reply = if everywhere { at_all(&group, deadline_ms, reply) } else { reply };
            write(node, peer, &group, command, deadline_ms, reply);
        }
        RequestBody::Deposit { shard, stamp, again, key, value } => {
            let holder = peer.holder;
            eventual_writes::take(node, Deposit { shard, holder, stamp, again, key, value }, reply);
        }
        RequestBody::Read { shard, key, mode } => {
            let Some(group) = shard_here(node, shard) else {
                return reply.refuse(elsewhere(node, shard));
            };
            if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
                return reply.refuse(Refusal::Invalid("a key has 1 to 4096 bytes".into()));
            }
            read(node, &group, Asked::Key(key), mode, request.deadline_ms, reply);
        }
        RequestBody::Scan { shard, span, mode } => {
            let Some(group) = shard_here(node, shard) else {
                return reply.refuse(elsewhere(node, shard));
            };
            if span.prefix.len().max(span.after.len()) > limits::KEY_BYTES_MAX {
                return reply.refuse(Refusal::Invalid("a key has at most 4096 bytes".into()));
            }
            read(node, &group, Asked::Page(span, Vec::new()), mode, request.deadline_ms, reply);
        }
        RequestBody::ReadAt { shard, .. }
        | RequestBody::ScanAt { shard, .. }
        | RequestBody::History { shard, .. }
        | RequestBody::Compact { shard, .. } => match shard_here(node, shard) {
            Some(group) => history::serve(&group, request.body, request.deadline_ms, reply),
            None => reply.refuse(elsewhere(node, shard)),
        },
        RequestBody::Committed { shard, followed } => match node.group(shard) {
            Some(group) => group.tell_committed(peer.as_node().zip(followed), reply),
            None => reply.refuse(elsewhere(node, shard)),
        },
        RequestBody::Reach { shard, index } => match shard_here(node, shard) {
            Some(group) => level_all::report(&group, index, request.deadline_ms, reply),
            None => reply.refuse(elsewhere(node, shard)),
        },
        RequestBody::View => match node.view() {
            Some(view) => reply.send(Ok(Answer::View(Box::new(view)))),
            None => reply.refuse(Refusal::Unavailable("the network has not begun yet".into())),
        },
        RequestBody::Status => reply.send(Ok(Answer::Status(Box::new(node.status())))),
        RequestBody::Announce { name, address, region } => {
            let Some(id) = peer.as_node() else { return };
            if let Err(error) = check_name(&name) {
                return reply.refuse(Refusal::Invalid(error.to_string()));
            }
            let announcement = Announcement { id, name, address, region };
            match coordinator::welcome(node, announcement) {
                Ok(command) => direct(node, command, request.deadline_ms, reply),
                Err(refusal) => reply.refuse(refusal),
            }
        }
        RequestBody::Leaving => {
            let Some(id) = peer.as_node() else { return };
            direct(node, DirectoryCommand::Leave(id), request.deadline_ms, reply);
        }
        RequestBody::RemoveNode(id) => {
            direct(node, DirectoryCommand::Retire(id), request.deadline_ms, reply);
        }
        RequestBody::Revoke(holder) => {
            direct(node, DirectoryCommand::Deny(holder), request.deadline_ms, reply);
        }
        RequestBody::Drain { node: id, on } => {
            direct(node, DirectoryCommand::Drain { node: id, on }, request.deadline_ms, reply);
        }
        RequestBody::Rebalance => match node.leader_since() {
            Some(_) => {
                node.set_rebalancing(true);
                reply.send(Ok(Answer::Done));
            }
            None => reply.refuse(Refusal::NotPrimary { primary: node.control().leader() }),
        },
        RequestBody::Placement { forecast } => {
            // The rest of the time is for the answer's way back.
            let until = Instant::now() + patience(request.deadline_ms) / 4 * 3;
            answer(node, reply, move |node| async move {
                // A deposed coordinator may not know that a node is in use again.
                let confirmed = node.control().confirm_leadership();
                tokio::time::timeout_at(until, confirmed)
                    .await
                    .map_err(|_| Refusal::Unavailable("no quorum answers in time".into()))??;
                let left = until.saturating_duration_since(Instant::now()).min(EMPTIED_PATIENCE);
                let report = rebalancer::report(&node, forecast, left).await?;
                Ok(Answer::Placement(Box::new(report)))
            });
        }
        RequestBody::Remainder { applied } => {
            let patience = patience(request.deadline_ms);
            answer(node, reply, move |node| async move {
                Ok(Answer::Remainder(rebalancer::remainder(&node, applied, patience).await?))
            });
        }
        RequestBody::Measures(measures) => {
            let Some(id) = peer.as_node() else { return };
            if let Err(why) = node.hear(id, *measures) {
                node.peers().denials().note(id, &why);
                return reply.refuse(Refusal::Invalid(why));
            }
            reply.send(Ok(Answer::Done));
        }
        RequestBody::Departed(shard) => {
            let Some(id) = peer.as_node() else { return };
            answer(node, reply, move |node| async move {
                let (index, term) = replica_removal::confirm(&node, shard, id).await?;
                Ok(Answer::Departed { index, term })
            });
        }
        RequestBody::Member { group, node: asked } => match node.group(group) {
            Some(group) => reply.send(Ok(Answer::Member(node.is_member(&group, asked)))),
            None => reply.refuse(Refusal::NotPrimary { primary: None }),
        },
        // A node that wrongly takes itself for the coordinator asks in vain.
        RequestBody::HandOver { .. } if peer.as_node() != node.control().leader() => {
            let why = "only the coordinator has shards handed over".to_owned();
            if let Some(id) = peer.as_node() {
                node.peers().denials().note(id, &why);
            }
            reply.refuse(Refusal::Denied(why));
        }
        RequestBody::HandOver { shard, to } => answer(node, reply, move |node| async move {
            rebalancer::hand_over(&node, shard, to).await?;
            Ok(Answer::Done)
        }),
    }
}

/// Returns why this node refuses a request, if its data directory may be a copy.
fn held_back(node: &Node, body: &RequestBody) -> Option<Arc<str>> {
    match body {
        RequestBody::Status => None,
        RequestBody::View
        | RequestBody::Placement { .. }
        | RequestBody::Read { .. }
        | RequestBody::Scan { .. }
        | RequestBody::ReadAt { .. }
        | RequestBody::ScanAt { .. }
        | RequestBody::History { .. }
        | RequestBody::Committed { .. }
        | RequestBody::Reach { .. }
        | RequestBody::Departed(_)
        | RequestBody::Measures(_) => node.incarnations().held(),
        _ => node.incarnations().doubted(),
    }
}

/// Checks that a peer's role allows a request.
fn allowed(peer: Identity, body: &RequestBody) -> Result<(), Refusal> {
    let role = peer.role;
    let needed = match body {
        RequestBody::View | RequestBody::Status | RequestBody::Placement { .. } => return Ok(()),
        RequestBody::Read { .. }
        | RequestBody::Scan { .. }
        | RequestBody::ReadAt { .. }
        | RequestBody::ScanAt { .. }
        | RequestBody::History { .. }
        | RequestBody::Propose { .. }
        | RequestBody::Deposit { .. } => {
            let writes = matches!(body, RequestBody::Propose { .. } | RequestBody::Deposit { .. });
            match role {
                Role::Client | Role::Admin | Role::Node => return Ok(()),
                Role::Reader if !writes => return Ok(()),
                Role::Reader | Role::Server => Role::Client,
            }
        }
        RequestBody::Announce { .. }
        | RequestBody::Leaving
        | RequestBody::Committed { .. }
        | RequestBody::Reach { .. }
        | RequestBody::Measures(_)
        | RequestBody::Departed(_)
        | RequestBody::Member { .. }
        | RequestBody::HandOver { .. }
        | RequestBody::Remainder { .. } => Role::Node,
        RequestBody::RemoveNode(_)
        | RequestBody::Revoke(_)
        | RequestBody::Drain { .. }
        | RequestBody::Compact { .. }
        | RequestBody::Rebalance => Role::Admin,
    };
    if role == needed {
        Ok(())
    } else {
        Err(Refusal::Denied(format!(
            "this needs the certificate of a {needed}, and yours is a {role}'s"
        )))
    }
}

/// Returns whether a node must be in the directory to send this request. The certificate of a node
/// that is not there says only that it may ask to be taken in.
fn needs_listing(body: &RequestBody) -> bool {
    !matches!(
        body,
        RequestBody::View
            | RequestBody::Status
            | RequestBody::Announce { .. }
            | RequestBody::Placement { .. }
            | RequestBody::Member { .. }
    )
}

fn patience(deadline_ms: u32) -> Duration {
    Duration::from_millis(u64::from(deadline_ms))
}

pub(super) fn shard_here(node: &Node, shard: GroupId) -> Option<Arc<Group>> {
    if shard.is_shard() { node.group(shard) } else { None }
}

/// The refusal of a node that does not hold a shard.
pub(super) fn elsewhere(node: &Node, shard: GroupId) -> Refusal {
    match node.knows_shard(shard) {
        true => Refusal::NotPrimary {
            // A node that should have a replica knows who leads.
            primary: node.primary_of(shard).or_else(|| node.holder_of(shard, &BTreeSet::new())),
        },
        false => Refusal::Invalid(format!("there is no shard {shard}")),
    }
}

fn read(
    node: &Arc<Node>,
    group: &Arc<Group>,
    asked: Asked,
    mode: ReadMode,
    deadline_ms: u32,
    reply: ReplyTo,
) {
    let (anywhere, reply) = match mode {
        ReadMode::Eventual(bounds) => {
            return eventual_reads::read(node, group, asked, bounds, reply);
        }
        ReadMode::Held => {
            return eventual_reads::read(node, group, asked, ReadBounds::default(), reply);
        }
        ReadMode::Primary => (false, reply),
        ReadMode::Replica => (true, reply),
        ReadMode::All => (false, at_all(group, deadline_ms, reply)),
    };
    group.read(PendingRead { asked, anywhere, reply });
}

/// The destination of an answer that is to wait for every replica.
fn at_all(group: &Arc<Group>, deadline_ms: u32, reply: ReplyTo) -> ReplyTo {
    let (here, done) = ReplyTo::here();
    level_all::answer(group, done, deadline_ms, reply);
    here
}

fn write(
    node: &Node,
    peer: Identity,
    group: &Group,
    command: Bytes,
    deadline_ms: u32,
    reply: ReplyTo,
) {
    let valid = dkv_state::validate(&command, node.settings().value_bytes_max);
    if let Err(refusal) = valid.and_then(|command| may_propose(node, peer, &command)) {
        return reply.refuse(refusal);
    }
    if node.disk_full() {
        return reply.refuse(Refusal::Unavailable(
            "the disk of the primary is full; writes go on once there is room on it".into(),
        ));
    }
    let expires = Instant::now() + Duration::from_millis(u64::from(deadline_ms));
    let (holder, place) = (peer.holder, Place::default());
    group.write(PendingWrite { command, holder, expires, reply, place });
}

/// Checks that a command may go into the log in the name of its sender.
fn may_propose(node: &Node, peer: Identity, command: &Command<'_>) -> Result<(), Refusal> {
    match command {
        Command::OpenSession(_) => Ok(()),
        Command::OpenSessionOf { holder, .. }
            if peer.role == Role::Node || *holder == peer.holder =>
        {
            Ok(())
        }
        Command::OpenSessionOf { .. } => {
            Err(Refusal::Denied("a session is opened in one's own name".into()))
        }
        Command::Compact { .. } => Err(Refusal::Denied("only a node proposes to compact".into())),
        Command::Write(write) if node.clock().allows(write.after) => Ok(()),
        Command::Write(_) => Err(Refusal::Invalid(
            "the stamp of the write is more than an hour ahead of this node's clock".into(),
        )),
        Command::Deposited(deposited) if peer.as_node() == Some(deposited.node) => Ok(()),
        Command::Deposited(_) => {
            Err(Refusal::Denied("only a node brings what is in its outbox".into()))
        }
    }
}

/// Returns whether this is a write from an outbox.
fn is_deposited(body: &RequestBody) -> bool {
    let RequestBody::Propose { command, .. } = body else { return false };
    matches!(decode::<Command<'_>>(command), Ok(Command::Deposited(_)))
}

/// Answers when `work` is done. There are few of these, so each may have a task.
fn answer<F>(node: &Arc<Node>, reply: ReplyTo, work: impl FnOnce(Arc<Node>) -> F)
where
    F: Future<Output = Result<Answer, Refusal>> + Send + 'static,
{
    let working = work(Arc::clone(node));
    node.spawn(async move { reply.send(working.await) });
}

/// Proposes a change to the directory. These are few, so each may have a task.
fn direct(node: &Arc<Node>, command: DirectoryCommand, deadline_ms: u32, reply: ReplyTo) {
    let proposing = Arc::clone(node);
    node.spawn(async move {
        // The asker gets an answer before it gives up.
        let patience = patience(deadline_ms) / 4 * 3;
        let result = match tokio::time::timeout(patience, proposing.change_directory(command)).await
        {
            Ok(Ok(DirectoryResult::Done)) => Ok(Answer::Done),
            Ok(Ok(DirectoryResult::Rejected(why))) => Err(Refusal::Invalid(why)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Refusal::Unknown("no answer from a quorum in time".into())),
        };
        reply.send(result);
    });
}
