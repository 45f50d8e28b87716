//! Connections to this node, and the purposes of their streams.
//!
//! By the time a connection gets here its peer has shown a certificate of this network. Each stream
//! states its purpose in its first frame; this module alone decides who may open which. Raft is for
//! the voters of a group, and each speaks for itself only.

use std::sync::Arc;

use dkv_base::audit::{self, What};
use dkv_base::id::NodeId;
use dkv_wire::acceptor::Peer;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::Opening;
use dkv_wire::quic::Close;
use tracing::debug;

use crate::net::incarnations::{self, Caller};
use crate::net::quota::Quota;
use crate::node::Node;
use crate::raft::{self, RaftPeer};
use crate::serve::limits as user_limits;
use crate::serve::request;
use crate::serve::watches;

/// Serves one connection until it closes.
pub(crate) async fn serve(node: Arc<Node>, connection: quinn::Connection, peer: Peer) {
    let Peer::Certified(identity) = peer else {
        return Close::Denied.close(&connection, "a certificate is needed");
    };
    if let Some(peer) = identity.as_node().filter(|peer| node.knows(*peer)) {
        node.peers().met(peer, &connection);
    }
    if identity.role == Role::Server {
        node.connections().set_called_back();
    }
    let Some(_place) = user_limits::connect(&node, identity) else {
        let why = "this user has as many connections to this node as its policies allow";
        return Close::Busy.close(&connection, why);
    };
    let quota = node.connections().quotas().of(identity.holder);
    let caller = Arc::new(Caller::default());
    loop {
        if identity.role == Role::Node {
            // The number of its groups grows while the connection lasts.
            allow_streams(&node, identity, &connection, &quota);
        }
        let Ok((send, receive)) = connection.accept_bi().await else { return };
        let reader = FrameReader::new(receive, limits::OPENING_BYTES_MAX);
        let writer = FrameWriter::new(send);
        let stream = serve_stream(
            Arc::clone(&node),
            identity,
            connection.clone(),
            quota.clone(),
            Arc::clone(&caller),
            reader,
            writer,
        );
        node.tasks().spawn(stream);
    }
}

async fn serve_stream(
    node: Arc<Node>,
    identity: Identity,
    connection: quinn::Connection,
    quota: Quota,
    caller: Arc<Caller>,
    mut reader: FrameReader<quinn::RecvStream>,
    writer: FrameWriter<quinn::SendStream>,
) {
    // A stream that is opened and never used costs its peer one of the few that it may have.
    let opening = match reader.next().await {
        Ok(Some(frame)) => decode::<Opening>(&frame),
        Ok(None) => return,
        Err(error) => return debug!(%identity, %error, "stream ended before it began"),
    };
    let opening = match opening {
        Ok(opening) => opening,
        Err(error) => {
            debug!(%identity, %error, "malformed opening");
            return Close::Protocol.close(&connection, "malformed opening of a stream");
        }
    };
    reader.set_limit(limits::FRAME_BYTES_MAX);
    let (group, from) = match opening {
        Opening::Requests => {
            let address = connection.remote_address();
            return request::serve(node, identity, quota, address, reader, writer).await;
        }
        Opening::RaftCalls { group, from }
        | Opening::RaftAppend { group, from, .. }
        | Opening::RaftSnapshot { group, from } => (Some(group), from),
        Opening::Watch => {
            // The streams of watches do not count.
            let begun = || allow_streams(&node, identity, &connection, &quota);
            let by = (identity, connection.remote_address());
            return watches::serve(&node, by, &quota, begun, reader, writer).await;
        }
        Opening::RaftHeartbeats { from } | Opening::Run { from } => (None, from),
    };
    if !speaks_for(identity, from) {
        node.peers().denials().note_impostor(identity, from);
        let who = identity.audited(None, connection.remote_address());
        let what = What::new("speak Raft as node", from.to_string());
        audit::denied(who, what, "only a node speaks Raft, and for itself");
        return Close::Denied.close(&connection, "only a node speaks Raft, and for itself");
    }
    if matches!(opening, Opening::Run { .. }) {
        return incarnations::serve(
            node.incarnations(),
            from,
            &connection,
            &caller,
            reader,
            writer,
        )
        .await;
    }
    // A peer that has not reported its incarnation, or may not take part, is ignored; so is every
    // peer while this node takes no part.
    if caller.boot().is_none() || node.incarnations().held().is_some() {
        return debug!(%identity, "ignoring a peer whose incarnation is unknown or held back");
    }
    let Some(group) = group else {
        let raft_peer = raft_peer(&node, from);
        let find = |id| Some(node.group(id)?.as_replica_handle());
        let marks = |mark| {
            node.peers().advance(from, &connection, mark);
            node.peers().mark()
        };
        return raft::serve_heartbeats(find, raft_peer, marks, reader, writer).await;
    };
    // Not here yet, or no longer: the peer finds its stream ended and tries again.
    let Some(group) = node.group(group) else { return };
    if !node.may_speak(group.id(), from) {
        let why = format!("denied: no voter of group {}", group.id());
        return node.peers().denials().note(from, &why);
    }
    let raft_peer = raft_peer(&node, from);
    match opening {
        Opening::Requests
        | Opening::Watch
        | Opening::RaftHeartbeats { .. }
        | Opening::Run { .. } => {}
        Opening::RaftCalls { .. } => {
            raft::serve_calls(group.as_replica_handle(), raft_peer, reader, writer).await;
        }
        Opening::RaftAppend { acknowledged, .. } => {
            if let Err(why) = group.durability().check(from, acknowledged) {
                return node.peers().denials().note(from, &why.to_string());
            }
            raft::serve_append(group.as_replica_handle(), raft_peer, reader, writer).await;
        }
        Opening::RaftSnapshot { .. } => {
            let taken =
                raft::serve_snapshot(group.as_replica_handle(), raft_peer, reader, writer).await;
            // A group that was closed meanwhile takes nothing any more, and need not.
            let is_open = node.group(group.id()).is_some_and(|open| Arc::ptr_eq(&open, &group));
            if let Err(why) = taken
                && is_open
            {
                node.tasks().fail(format!("group {} has stopped: {why}", group.id()));
            }
        }
    }
}

/// Allows a peer to have as many streams as it needs for requests, groups and its watches.
fn allow_streams(node: &Node, identity: Identity, connection: &quinn::Connection, quota: &Quota) {
    let groups = if identity.role == Role::Node { node.groups().len() } else { 0 };
    let groups = u32::try_from(groups).unwrap_or(u32::MAX);
    let streams = groups.saturating_mul(limits::GROUP_STREAMS_MAX);
    let streams = streams.saturating_add(limits::CONNECTION_STREAMS_MAX);
    let watches = u32::try_from(quota.watches()).unwrap_or(u32::MAX);
    // QUIC announces a new limit only once an eighth of it can be added to what the peer knows, so
    // what is free must be more than that.
    let streams = streams.saturating_add(watches).saturating_add(watches / 4);
    connection.set_max_concurrent_bi_streams(streams.into());
}

/// A node that sends Raft messages, and what it may do.
fn raft_peer(node: &Arc<Node>, from: NodeId) -> RaftPeer {
    let (liveness, looking) = (node.peers().liveness(from), Arc::clone(node));
    let denials = node.peers().denials().clone();
    let may_speak = Arc::new(move |group| looking.may_speak(group, from));
    RaftPeer { id: from, liveness, may_speak, denials }
}

/// Returns whether the holder of a certificate is the node that a message names as its sender.
fn speaks_for(identity: Identity, from: NodeId) -> bool {
    identity.as_node() == Some(from)
}
