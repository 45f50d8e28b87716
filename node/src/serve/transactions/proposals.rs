//! Commands about transactions, proposed to any shard of the network from here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_wire::codec::{decode, encode};
use dkv_wire::message::{Answer, Command, Refusal, RequestBody};
use tokio::time::Instant;

use super::answers::with_foreseen;
use crate::net::peers::Lane;
use crate::net::reply::ReplyTo;
use crate::net::rpc::ask;
use crate::node::Node;
use crate::replica::Replica;
use crate::replica::backlog::Place;
use crate::replica::write_batches::PendingWrite;

/// Time before a retry when no node could be asked.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest time for which one node is waited for.
const NODE_PATIENCE: Duration = Duration::from_millis(2000);

/// Has a command proposed by the primary of a shard, wherever that is. The command may come to the
/// log more than once.
///
/// # Errors
/// What the primary refuses it with; [`Refusal::Unknown`] if it may come to the log and no answer
/// came before the deadline.
pub(super) async fn propose(
    node: &Arc<Node>,
    shard: GroupId,
    command: &Command<'_>,
    deadline: Instant,
) -> Result<Answer, Refusal> {
    let command = encode(command);
    let (mut next, mut tried) = (None, BTreeSet::new());
    let (mut doubt, mut why) = (false, "no leader of the shard is known".to_owned());
    loop {
        let result = match node.group(shard).filter(|replica| replica.leads()) {
            Some(replica) => propose_here(node.id(), &replica, command.clone(), deadline).await,
            None => {
                let target = next.take().or_else(|| node.primary_of(shard));
                let target = target.filter(|target: &NodeId| *target != node.id());
                let target = target.filter(|target| !tried.contains(target));
                let Some(target) = target.or_else(|| node.holder_of(shard, &tried)) else {
                    tried.clear();
                    if Instant::now() + PAUSE >= deadline {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                tried.insert(target);
                let patience = deadline.saturating_duration_since(Instant::now());
                let patience = patience.min(NODE_PATIENCE);
                let body =
                    RequestBody::Propose { shard, everywhere: false, command: command.clone() };
                let asked = ask(node.peers(), target, Lane::Bulk, body, patience).await;
                // The command may have arrived, and the answer be lost.
                doubt |= matches!(asked, Err(Refusal::Unavailable(_)));
                asked
            }
        };
        match result {
            Err(Refusal::NotPrimary { primary }) => {
                next = primary;
                why = "its primary is changing".to_owned();
            }
            Err(Refusal::Unavailable(reason)) => why = reason,
            result => return result,
        }
        if Instant::now() + PAUSE >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let why = format!("shard {shard} did not answer in time: {why}");
    Err(if doubt { Refusal::Unknown(why) } else { Refusal::Unavailable(why) })
}

/// Proposes a command to a shard that this node leads.
pub(super) async fn propose_here(
    me: NodeId,
    replica: &Arc<Replica>,
    command: Bytes,
    expires: Instant,
) -> Result<Answer, Refusal> {
    let (mut reply, answer) = ReplyTo::here();
    if let Ok(prepared @ Command::Prepare(_)) = decode(&command) {
        replica.check_quota(&prepared)?;
    }
    if let Ok(Command::Prepare(prepare)) = decode(&command) {
        reply = with_foreseen(replica, command.slice_ref(prepare.body), reply);
    }
    let (holder, place) = (me.into(), Place::default());
    replica.write(PendingWrite { command, holder, expires, reply, place });
    let stopping = || Refusal::Unknown("the node is stopping".into());
    answer.await.unwrap_or_else(|_| Err(stopping()))
}
