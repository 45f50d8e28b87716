//! Announces this node to the coordinator, and keeps the directory's record of it up to date.
//!
//! A node that joins, comes back or has moved announces itself to the coordinator, which it finds
//! through the nodes that it knows. It repeats the announcement until the directory, as replicated
//! to this node, shows the node as it is. A refusal, from any node, does not stop this one: it
//! warns the operator and asks again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_wire::message::{Refusal, RequestBody};
use tracing::{debug, info, warn};

use crate::net::rpc::tell;
use crate::node::{Me, Node, Replicas};
use dkv_state::DirectoryCommand;

/// Interval between attempts of a node that is not in the directory yet.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// Interval at which a node in the directory checks whether it still is.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Interval between attempts of a node that was refused, and between its warnings.
const REFUSED_EVERY: Duration = Duration::from_secs(5);
/// Time that one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut known_before = false;
    loop {
        if is_known(node.me(), node.replicas()) {
            if !known_before {
                info!(name = node.me().name, address = %node.me().address, "known to the network");
                known_before = true;
            }
            tokio::time::sleep(CHECK_EVERY).await;
            continue;
        }
        let pause = match announce(&node).await {
            Err(Refusal::Invalid(why)) => {
                warn!(name = node.me().name, why, "the coordinator rejected this node's name");
                REFUSED_EVERY
            }
            _ => RETRY_EVERY,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether the directory shows the node as it is.
fn is_known(me: &Me, replicas: &Replicas) -> bool {
    let known = replicas.with_directory(|directory| {
        directory.nodes().get(&me.id).is_some_and(|member| {
            member.name == me.name
                && member.address == me.address
                && member.region == me.region
                && !member.left
        })
    });
    known.unwrap_or(false)
}

/// Announces the node to the coordinator, wherever it is.
async fn announce(node: &Node) -> Result<(), Refusal> {
    if node.control().leads() {
        let command = DirectoryCommand::Announce(node.announcement());
        return match node.change_directory(command).await {
            Ok(dkv_state::DirectoryResult::Rejected(why)) => Err(Refusal::Invalid(why)),
            Ok(dkv_state::DirectoryResult::Done) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let mut asked = BTreeSet::from([node.id()]);
    let mut next = node.askable();
    next.extend(node.control().leader());
    let mut last = Err(Refusal::Unavailable("no other node is known".into()));
    while let Some(peer) = next.pop() {
        if !asked.insert(peer) {
            continue;
        }
        let Me { name, address, region, .. } = node.me().clone();
        let body = RequestBody::Announce { name, address, region };
        last = tell(node.peers(), peer, body, PATIENCE).await;
        match &last {
            Ok(()) | Err(Refusal::Invalid(_)) => return last,
            Err(Refusal::NotPrimary { primary }) => next.extend(*primary),
            Err(error) => debug!(?peer, %error, "not announced"),
        }
    }
    last
}
