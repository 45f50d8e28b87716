//! Watches the failover after a node of a local network was killed, stopped or paused.
//!
//! It measures two times from that moment: until another node is the coordinator, if the node was
//! it, and until each shard accepts writes whose primary the node was. To find the latter, it sends
//! a delete on a condition that never holds, which goes all the way through the log but changes
//! nothing.

use std::time::{Duration, Instant};

use dkv_api::{
    Client, Condition, Error, GroupId, KeyspaceId, NetworkView, NodeId, Revision, WriteOptions,
};
use dkv_console::Console;
use dkv_console::problem::Abort;
use dkv_console::units::duration;
use dkv_local::LocalNetwork;

use crate::status::{self, Report};

/// Longest time to watch a failover.
const WATCH: Duration = Duration::from_secs(15);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The role of a node before an action on it, and what to watch afterwards.
pub(super) struct FailoverWatch {
    node: Option<NodeId>,
    /// The term in which it was the coordinator; `None` if it was not.
    led: Option<u64>,
    /// The shards whose primary it was, with a key of each.
    probes: Vec<(GroupId, Vec<u8>)>,
    /// Whether a group has no majority without it.
    indispensable: bool,
}

impl FailoverWatch {
    pub(super) async fn begin(network: &LocalNetwork, name: &str, before: &Report) -> Self {
        let node = before.nodes.iter().find(|node| node.name == name);
        let coordinator = before.coordinator.as_ref().filter(|it| it.name == name);
        let mut probes = Vec::new();
        if let (Some(node), Some(client)) = (node, network.client())
            && let Ok(view) = client.view().await
        {
            let shards = node.primaries.iter().map(|shard| GroupId(*shard));
            probes = shards.filter_map(|shard| Some((shard, probe(&view, shard)?))).collect();
        }
        let votes = |group: &&status::Group| {
            group.voters.iter().any(|voter| voter.name == name && voter.reachable)
        };
        let spare = before.groups.iter().filter(votes).filter_map(|group| group.spare).min();
        Self {
            node: node.map(|node| node.id),
            led: coordinator.map(|it| it.term),
            probes,
            indispensable: spare.is_some_and(|spare| spare < 1),
        }
    }

    pub(super) fn was_coordinator(&self) -> bool {
        self.led.is_some()
    }

    /// Watches until the failover is complete, and reports how long it took.
    pub(super) async fn tell(
        self,
        since: Instant,
        network: &LocalNetwork,
        console: &mut Console,
    ) -> Result<(), Abort> {
        if self.indispensable {
            console.line(
                "too few voters are left: reads and writes wait until one is back (start NAME or \
                 resume NAME)",
            )?;
            return Ok(());
        }
        let Some(client) = network.client() else { return Ok(()) };
        let until = since + WATCH;
        let shards = self.probes.iter().map(|(shard, _)| shard.to_string()).collect::<Vec<_>>();
        let writes = futures::future::join_all(
            self.probes.iter().map(|(_, key)| takes_writes(client, key, until)),
        );
        let (successor, served) =
            tokio::join!(successor(client, self.node, self.led, until), writes);
        match (self.was_coordinator(), successor) {
            (false, _) => {}
            (true, Some((node, at))) => {
                let name = client.view().await.ok();
                let name = name.and_then(|view| view.node(node).map(|node| node.name.clone()));
                let name = name.unwrap_or_else(|| node.short());
                let after = duration(at.duration_since(since));
                console.line(&format!("{name} is the coordinator now, after {after}"))?;
            }
            (true, None) => {
                let waited = WATCH.as_secs();
                return Err(format!("no new coordinator after {waited} s; see status").into());
            }
        }
        if shards.is_empty() {
            console.line("it was not the primary of any shard, so no write had to wait")?;
            return Ok(());
        }
        let what = if shards.len() == 1 { "shard" } else { "shards" };
        let latest = served.iter().copied().collect::<Option<Vec<Instant>>>();
        match latest.and_then(|all| all.into_iter().max()) {
            Some(at) => console.line(&format!(
                "writes to {what} {} waited {}",
                shards.join(", "),
                duration(at.duration_since(since))
            ))?,
            None => {
                let waited = WATCH.as_secs();
                let shards = shards.join(", ");
                return Err(
                    format!("{what} {shards}: no writes after {waited} s; see status").into()
                );
            }
        }
        Ok(())
    }
}

/// Waits for a coordinator of a later term. Returns it with the time at which it appeared.
async fn successor(
    client: &Client,
    node: Option<NodeId>,
    led: Option<u64>,
    until: Instant,
) -> Option<(NodeId, Instant)> {
    let led = led?;
    while Instant::now() < until {
        if let Ok(view) = client.refresh().await
            && view.term.0 > led
            && let Some(coordinator) = view.coordinator.filter(|it| Some(*it) != node)
        {
            return Some((coordinator, Instant::now()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

/// Waits until the shard of a key accepts writes. Returns the time.
async fn takes_writes(client: &Client, key: &[u8], until: Instant) -> Option<Instant> {
    // No write ever has this revision.
    let never = Condition::Revision(Revision(u64::MAX));
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        let options = WriteOptions::default().condition(never).timeout(left);
        match client.delete_with(key, options).await {
            Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. }) => {
                return Some(Instant::now());
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    None
}

/// Returns a key of a shard.
fn probe(view: &NetworkView, shard: GroupId) -> Option<Vec<u8>> {
    (0..100_000_u32)
        .map(|number| format!("dkv local probe {number}").into_bytes())
        .find(|key| view.shard_of(KeyspaceId::DEFAULT, key).is_some_and(|it| it.group == shard))
}
