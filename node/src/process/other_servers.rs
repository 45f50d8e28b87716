//! The registration servers beside the one that this node keeps to.
//!
//! A node asks one server, whichever answers. The others must know as much: the coordinator reports
//! to each, and every node registers at each. The directory names them all, so a node knows them
//! even if its operator named only one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::debug;

use super::node_registration::keep_known;
use crate::cluster::coordinator;
use crate::node::Node;

/// Interval at which the node compares its tasks with the servers that there are.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Runs for the life of the node.
pub(super) async fn run(node: Arc<Node>) {
    let mut served: BTreeMap<SocketAddr, JoinSet<()>> = BTreeMap::new();
    loop {
        let servers = node.replicas().with_directory(|directory| {
            directory.servers().map(|server| server.address).collect::<Vec<_>>()
        });
        let servers = servers.unwrap_or_default();
        let link = node.connections().server();
        link.learn(servers.clone());
        let main = link.connected();
        // Dropping a set ends its tasks.
        served.retain(|address, _| servers.contains(address) && main != Some(*address));
        for address in servers {
            if main == Some(address) || served.contains_key(&address) {
                continue;
            }
            debug!(%address, "there is another registration server");
            let other = Arc::new(link.to(address));
            let mut tasks = JoinSet::new();
            tasks.spawn(node.tasks().guarded(
                "the task that reports to another registration server",
                coordinator::report(Arc::clone(&node), Arc::clone(&other)),
            ));
            tasks.spawn(node.tasks().guarded(
                "the task that registers at another registration server",
                keep_known(Arc::clone(&node), other),
            ));
            served.insert(address, tasks);
        }
        node.ticks().pause(CHECK_EVERY).await;
    }
}
