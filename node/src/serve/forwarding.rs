//! Requests that another node has to answer, for clients that ask to have them forwarded.
//!
//! A client that knows only one node can use it for everything: the node sends a request that
//! another node has to answer there, and passes the answer back. A write keeps its stamp on the
//! way, so it is executed once however often it is forwarded. The forwarding node follows what the
//! other node says about the leader; if that node cannot say, it tries again until the client's
//! deadline, but for a minute at most.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, ReadMode, Refusal, Reply, Request, RequestBody};
use dkv_wire::rpc::call;
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::peers::Lane;
use crate::net::reply::ReplyTo;
use crate::node::{Node, Replicas};

/// Time before a retry when no node could be asked.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest time for which a request is tried, whatever its sender has time for: as long as it is,
/// this node asks others again and again.
const FORWARD_MAX: Duration = Duration::from_secs(60);

/// The shard whose primary has to answer a request, if that is another node.
pub(crate) fn destination(replicas: &Replicas, body: &RequestBody) -> Option<GroupId> {
    let (shard, anywhere) = match body {
        RequestBody::Propose { shard, .. } | RequestBody::Cut { shard, .. } => (*shard, false),
        RequestBody::Read { shard, mode, .. }
        | RequestBody::Scan { shard, mode, .. }
        | RequestBody::Range { shard, mode, .. } => {
            (*shard, matches!(mode, ReadMode::Eventual(_) | ReadMode::Replica | ReadMode::Held))
        }
        RequestBody::ReadAt { shard, .. }
        | RequestBody::ScanAt { shard, .. }
        | RequestBody::History { shard, .. } => (*shard, true),
        RequestBody::KeepAlive { shard, .. }
        | RequestBody::Leases { shard, .. }
        | RequestBody::LeaseInfo { shard, .. }
        | RequestBody::KeyTtl { shard, .. } => (*shard, false),
        _ => return None,
    };
    if !replicas.knows_shard(shard) {
        return None;
    }
    match replicas.get(shard) {
        Some(group) if anywhere || group.leads() => None,
        _ => Some(shard),
    }
}

/// Has a request answered by a node that can.
pub(crate) fn forward(node: &Arc<Node>, shard: GroupId, request: Request, mut reply: ReplyTo) {
    reply.enter(Stage::Forward, Instant::now());
    let forwarding = Arc::clone(node);
    node.tasks().spawn(async move {
        let result = pass_on(&forwarding, shard, request).await;
        reply.send(result);
    });
}

async fn pass_on(node: &Node, shard: GroupId, request: Request) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + patience(request.deadline_ms);
    let is_write = matches!(request.body, RequestBody::Propose { .. });
    let (mut doubt, mut why) = (false, "no leader of the shard is known".to_owned());
    // Only a node that may lead is believed to be the primary.
    let believed = |primary: Option<NodeId>| {
        primary.filter(|primary| node.replicas().candidates(shard).contains(primary))
    };
    let mut next = believed(node.primary_of(shard));
    let mut tried = BTreeSet::new();
    while Instant::now() < deadline {
        let target = next.take().or_else(|| node.holder_of(shard, &tried));
        let Some(target) = target else {
            tried.clear();
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tried.insert(target);
        match send(node, target, &request, deadline).await {
            Ok(Err(Refusal::NotPrimary { primary })) => {
                next = believed(primary.filter(|primary| *primary != node.id()));
                if next.is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
                why = format!("node {} is not the primary", target.short());
            }
            Ok(result) => {
                // Once an attempt is in doubt, only an answer or a conflict settles whether it had
                // an effect; another refusal does not.
                let refused = result.is_err() && !matches!(result, Err(Refusal::Conflict { .. }));
                if doubt && is_write && refused {
                    break;
                }
                node.coordination().learn_primary(shard, target);
                return result;
            }
            Err(NotSent::Before(error)) => {
                why = error;
                tokio::time::sleep(PAUSE).await;
            }
            Err(NotSent::Lost(error)) => {
                doubt = true;
                why = error;
            }
        }
    }
    let why = format!("not answered in time: {why}");
    Err(if doubt && is_write { Refusal::Unknown(why) } else { Refusal::Unavailable(why) })
}

/// Returns the time for which a request is tried.
fn patience(deadline_ms: u32) -> Duration {
    Duration::from_millis(deadline_ms.into()).min(FORWARD_MAX)
}

/// The reason for a missing answer.
enum NotSent {
    /// The request was not sent.
    Before(String),
    /// The request was sent.
    Lost(String),
}

async fn send(
    node: &Node,
    target: NodeId,
    request: &Request,
    deadline: Instant,
) -> Result<Result<Answer, Refusal>, NotSent> {
    let patience = deadline.saturating_duration_since(Instant::now());
    let connecting = node.peers().connection(target, Lane::Bulk);
    let connection = match tokio::time::timeout(patience, connecting).await {
        Ok(connection) => connection.map_err(|error| NotSent::Before(error.to_string()))?,
        Err(_) => return Err(NotSent::Before("no connection in time".into())),
    };
    // An attempt that gets no answer leaves time for another.
    let patience = (deadline.saturating_duration_since(Instant::now()) / 2).max(PAUSE);
    let deadline_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let (user, body) = (request.user, request.body.clone());
    let request = Request { id: 1, deadline_ms, forward: false, user, body };
    let asked = Instant::now();
    let reply: Result<Reply, _> =
        call(&connection, Some(&Opening::Requests), &request, FRAME_BYTES_MAX, patience).await;
    match reply {
        Ok(reply) => {
            node.peers().answered(target, Lane::Bulk);
            Ok(reply.result)
        }
        Err(error) => {
            node.peers().failed(target, Lane::Bulk, asked);
            Err(NotSent::Lost(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_a_request_tried_for_days() {
        assert_eq!(patience(500), Duration::from_millis(500));
        assert_eq!(patience(u32::MAX), FORWARD_MAX);
    }
}
