//! Orderly shutdown.

use std::time::Duration;

use dkv_wire::message::{ChangeReason, RequestBody};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Node;
use crate::net::incarnations;
use crate::net::rpc;

/// Time for which a node that has handed over still tells those who ask it where to go.
const REDIRECT_FOR: Duration = Duration::from_millis(100);

impl Node {
    /// Hands over all leaderships of this node, and stops it.
    pub(crate) async fn stop(&self, patience: Duration) {
        let groups = self.groups();
        let hand_over = groups.iter().filter(|group| group.leads());
        let hand_over = hand_over.inspect(|group| {
            group.turnovers().expect(ChangeReason::Stopping, Instant::now());
        });
        let handed = futures::future::join_all(hand_over.map(|group| group.hand_over(patience)));
        let handed = handed.await;
        if handed.contains(&false) {
            warn!("some shards found no new primary before shutdown");
        }
        self.say_goodbye(patience).await;
        if handed.contains(&true) {
            tokio::time::sleep(REDIRECT_FOR).await;
        }
        incarnations::say_goodbye(
            &self.connections.incarnations,
            &self.connections.server,
            self.me.address,
        )
        .await;
        // A group whose log waits for its disk cannot stop by itself; closing the log ends it.
        let stops = groups.iter().map(|group| tokio::time::timeout(patience, group.stop()));
        futures::future::join_all(stops).await;
        if let Err(error) = self.connections.incarnations.save_records() {
            info!(%error, "could not save the known incarnations of other nodes");
        }
        self.connections.endpoint.close().await;
        self.end_tasks().await;
        self.store.wal.close();
    }

    async fn say_goodbye(&self, patience: Duration) {
        let Some(coordinator) = self.control().leader().filter(|leader| *leader != self.me.id)
        else {
            return;
        };
        let goodbye =
            rpc::tell(&self.connections.peers, coordinator, RequestBody::Leaving, patience);
        if let Err(error) = goodbye.await {
            info!(%error, "could not tell the coordinator that this node leaves");
        }
    }
}
