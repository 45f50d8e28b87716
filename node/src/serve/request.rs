//! Requests of clients, administrators and other nodes to this node.
//!
//! One stream carries many requests; each is decided where it belongs, and its answer goes back
//! when it is ready, in any order. A connection and its holder have a [share](crate::net::quota) of
//! what may be in flight: a request takes its part before it is read and returns it once its answer
//! is written, so this node stops reading from a peer that does not read its answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::Identity;
use dkv_wire::message::{Command, Request, RequestBody};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::context::RequestContext;
use super::eventual_writes::Deposit;
use super::{
    acts, admin, books, cluster, data, diagnosis, eventual_reads, forwarding, limits, permission,
    rights,
};
use crate::cluster::keyspaces::NewKeyspace;
use crate::common::counters;
use crate::common::timeline::{Subject, Timeline};
use crate::net::quota::{Quota, QuotaPermit};
use crate::net::reply::{Begun, Replies, ReplyTo};
use crate::net::user_limits::Charged;
use crate::node::Node;
use crate::raft::{LeaseQuery, RangeQuery};

/// Answers the requests of one stream until it ends.
pub(crate) async fn serve(
    node: Arc<Node>,
    peer: Identity,
    quota: Quota,
    address: SocketAddr,
    mut reader: FrameReader<quinn::RecvStream>,
    writer: FrameWriter<quinn::SendStream>,
) {
    let (replies, writing) = Replies::new(peer, writer, Arc::clone(node.counters()));
    // A separate task, which ends with this one at the latest.
    let mut writer = JoinSet::new();
    writer.spawn(writing);
    while let Some((frame, mut part, announced)) = next_frame(&mut reader, &quota).await {
        let mut at = Instant::now();
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
        if super::history::has_large_answer(&request.body) {
            let Some(more) = quota.take_scan().await else { break };
            part.merge(more);
            at = Instant::now();
        }
        name_sender(peer, &mut request);
        let bytes = frame.len();
        let timeline = Timeline::new(Subject::of(&request.body), announced, at);
        let (kind, charged) = (counters::kind(&request.body), Charged::new());
        let begun = Begun { kind, at: announced, timeline, charged };
        let reply = replies.to(request.id, part, begun);
        handle(&node, (peer, address), request, bytes, reply);
    }
    drop(replies);
    let _ = writer.join_next().await;
}

/// Returns the next frame, its share of the quota, and when it was announced.
///
/// A request counts from then on: the time until there is room for it is its own.
async fn next_frame(
    reader: &mut FrameReader<quinn::RecvStream>,
    quota: &Quota,
) -> Option<(Bytes, QuotaPermit, Instant)> {
    let room = async |bytes| {
        let announced = Instant::now();
        (quota.take(bytes).await, announced)
    };
    match reader.next_with_room(room).await {
        Ok(Some((frame, (part, announced)))) => Some((frame, part?, announced)),
        Ok(None) => None,
        Err(error) => {
            debug!(%error, "request stream ended");
            None
        }
    }
}

/// Counts a session among those of the holder that opens it, and makes a lease that is granted for
/// a user that user's. A request that another node passes on names them already.
fn name_sender(peer: Identity, request: &mut Request) {
    let user = request.user.or(peer.user);
    let RequestBody::Propose { command, .. } = &mut request.body else { return };
    let named = match decode(command) {
        Ok(Command::OpenSession(session)) => {
            encode(&Command::OpenSessionOf { session, holder: peer.holder })
        }
        Ok(Command::Lease(change)) => match rights::owned(&change, user) {
            Some(change) => encode(&Command::Lease(change)),
            None => return,
        },
        _ => return,
    };
    *command = named;
}

/// Checks a request with a frame of `bytes` bytes, and answers it or hands it on: to the data
/// plane, the cluster plane or the admin plane, or to the node that can answer it.
fn handle(
    node: &Arc<Node>,
    (peer, address): (Identity, SocketAddr),
    mut request: Request,
    bytes: usize,
    reply: ReplyTo,
) {
    if let Err(refusal) = permission::check(node, peer, &request) {
        let what = || acts::of(node.replicas(), &request.body);
        acts::note_denied(peer, request.user, address, &refusal, what);
        return reply.refuse(refusal);
    }
    let reply = match limits::take(node, peer, request.user, &request.body, bytes) {
        Ok(charged) => reply.charged(charged),
        Err(refusal) => return reply.refuse(refusal),
    };
    let reply = reply.for_act(acts::begin(node.replicas(), peer, address, &request));
    request.deadline_ms = rights::deadline_ms(peer, &request);
    if let Some(answer) = eventual_reads::without_replica(node, &request.body) {
        return reply.send(Ok(answer));
    }
    if request.forward
        && let Some(shard) = forwarding::destination(node.replicas(), &request.body)
    {
        // It arrives in this node's name.
        request.user = request.user.or(peer.user);
        return forwarding::forward(node, shard, request, reply);
    }
    let (deadline_ms, user) = (request.deadline_ms, request.user);
    let context = &RequestContext { node, peer, address, user, deadline_ms };
    match request.body {
        RequestBody::Propose { shard, everywhere, command } => {
            data::propose(context, shard, everywhere, command, reply);
        }
        RequestBody::Deposit { shard, stamp, again, key, value } => {
            let holder = peer.holder;
            data::deposit(context, Deposit { shard, holder, stamp, again, key, value }, reply);
        }
        RequestBody::Read { shard, key, mode } => data::read(context, shard, key, mode, reply),
        RequestBody::Scan { shard, span, mode } => data::scan(context, shard, span, mode, reply),
        RequestBody::Range { shard, keys, after, options, bytes_max, count, mode } => {
            let bytes_max = bytes_max as usize;
            let query = RangeQuery { keys, after, options, bytes_max, count };
            data::range(context, shard, query, mode, reply);
        }
        RequestBody::ReadAt { shard, .. }
        | RequestBody::ScanAt { shard, .. }
        | RequestBody::History { shard, .. }
        | RequestBody::Compact { shard, .. } => {
            data::history(context, shard, request.body, reply);
        }
        RequestBody::Cut { shard, moment } => data::cut(context, shard, moment, reply),
        RequestBody::KeepAlive { shard, lease } => {
            data::about_leases(context, shard, LeaseQuery::KeepAlive(lease), reply);
        }
        RequestBody::Leases { shard, after, leases_max } => {
            data::about_leases(context, shard, LeaseQuery::Leases { after, leases_max }, reply);
        }
        RequestBody::LeaseInfo { shard, lease, after, keys_max } => {
            let query = LeaseQuery::Lease { lease, after, keys_max };
            data::about_leases(context, shard, query, reply);
        }
        RequestBody::KeyTtl { shard, key } => {
            data::about_leases(context, shard, LeaseQuery::Key(key), reply);
        }
        RequestBody::Committed { shard, followed } => {
            data::committed(context, shard, followed, reply);
        }
        RequestBody::Reach { shard, index } => data::reach(context, shard, index, reply),

        RequestBody::View => cluster::view(context, reply),
        RequestBody::Status => cluster::status(context, reply),
        RequestBody::Announce { name, address, region } => {
            cluster::announce(context, name, address, region, reply);
        }
        RequestBody::Leaving => cluster::leaving(context, reply),
        RequestBody::Measures(measures) => cluster::measures(context, *measures, reply),
        RequestBody::Departed(shard) => cluster::departed(context, shard, reply),
        RequestBody::Member { group, node } => cluster::member(context, group, node, reply),
        RequestBody::MayLead { group, node } => cluster::may_lead(context, group, node, reply),
        RequestBody::HandOver { shard, to } => cluster::hand_over(context, shard, to, reply),
        RequestBody::Remainder { applied } => cluster::remainder(context, applied, reply),

        RequestBody::RemoveNode(id) => admin::remove_node(context, id, reply),
        RequestBody::ExpelNode(id) => admin::expel_node(context, id, reply),
        RequestBody::Revoke(holder) => admin::revoke(context, holder, reply),
        RequestBody::Drain { node, on } => admin::drain(context, node, on, reply),
        RequestBody::Rebalance => admin::rebalance(context, reply),
        RequestBody::MovePrimary { shard, to } => admin::move_primary(context, shard, to, reply),
        RequestBody::Placement { forecast } => admin::placement(context, forecast, reply),
        RequestBody::Keyspaces => admin::keyspaces(context, reply),
        RequestBody::CreateKeyspace { creation, name, settings } => {
            admin::create_keyspace(context, NewKeyspace { creation, name, settings }, reply);
        }
        RequestBody::SetKeyspace { keyspace, change } => {
            admin::set_keyspace(context, keyspace, change, reply);
        }
        RequestBody::DropKeyspace(keyspace) => admin::drop_keyspace(context, keyspace, reply),
        RequestBody::Policies => admin::policies(context, reply),
        RequestBody::ChangePolicy(change) => admin::change_policy(context, change, reply),
        RequestBody::Log(change) => diagnosis::log(context, change, reply),
        RequestBody::Diagnose => diagnosis::diagnose(context, reply),

        RequestBody::Books { after, known } => books::page(context, after, known, reply),
        RequestBody::ChangeBooks(change) => books::change(context, change, reply),
    }
}
