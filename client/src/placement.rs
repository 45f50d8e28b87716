//! Moves replicas: drains nodes and rebalances.

use std::time::{Duration, Instant};

use dkv_api::{Client, Error, NetworkView, NodeId, NodeInfo, NodePlaces, Placement, PlannedMove};
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem, unreported_change};
use dkv_console::units::{bytes, plural};
use serde_json::json;

use crate::admin::find;
use crate::api_problems::request_problem;
use crate::json_results;

/// Interval between checks of the progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Interval between reminders that a drain makes no progress.
const REMIND_EVERY: Duration = Duration::from_secs(10);
/// Number of moves of a plan to show one by one.
const MOVES_SHOWN: usize = 50;

/// Drains a node and, if requested, waits until it may be switched off.
pub(crate) async fn drain(
    node: &str,
    wait: bool,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let found = look_up(node, client).await?;
    client.drain_node(found.id, true).await.map_err(|error| request_problem(&error))?;
    let text = format!(
        "node {} is draining: its replicas move to other nodes; dkv drain {} --undo cancels this",
        found.name, found.name
    );
    if !wait {
        console.changed(&text, || document(&found, "draining"))?;
        return Ok(());
    }
    if !console.json {
        console.line(&text).map_err(|error| unreported_change(text, error))?;
    }
    let mut told: Option<(String, Instant)> = None;
    loop {
        match client.placement(false).await {
            Ok(placement) => {
                let places = placement.nodes.iter().find(|places| places.node == found.id);
                let Some(places) = places else {
                    return Err(Problem::failed(format!("node {} was removed", found.name)).into());
                };
                if !places.draining {
                    return Err(Problem::failed("the drain was undone by someone else").into());
                }
                if places.may_stop {
                    let text = format!("node {} is empty and may be switched off", found.name);
                    console.changed(&text, || document(&found, "drained"))?;
                    return Ok(());
                }
                let now = progress(&found.name, places, &placement);
                let due = told.as_ref().is_none_or(|(before, when)| {
                    *before != now || places.obstacle.is_some() && when.elapsed() >= REMIND_EVERY
                });
                if due {
                    console.note(&now);
                    told = Some((now, Instant::now()));
                }
            }
            // The coordinator may be changing; the drain goes on.
            Err(error @ (Error::Unavailable(_) | Error::Unknown(_))) => {
                let now = format!("progress unknown: {error}");
                if told.as_ref().is_none_or(|(_, when)| when.elapsed() >= REMIND_EVERY) {
                    console.note(&now);
                    told = Some((now, Instant::now()));
                }
            }
            Err(error) => return Err(request_problem(&error).into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn document(node: &NodeInfo, state: &str) -> serde_json::Value {
    json!({ "command": "drain", "node": node.id.to_string(), "name": node.name, "state": state })
}

/// Describes the progress of a drain.
fn progress(name: &str, places: &NodePlaces, placement: &Placement) -> String {
    let moving = placement.moves.iter().filter(|it| it.from == Some(places.node)).count();
    let shards = plural(places.shards.into(), "shard", "shards");
    let mut text = match places.shards {
        0 => format!("{name} has no shards left; releasing its last replicas and votes"),
        count => format!("{name} has {count} {shards}, {}", bytes(places.bytes)),
    };
    if moving > 0 {
        text.push_str(&format!("; {moving} moving"));
    }
    if let Some(why) = &places.obstacle {
        text.push_str(&format!("; it cannot be drained yet: {why}"));
    }
    text
}

/// Puts a drained node back into use.
pub(crate) async fn undrain(
    node: &str,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let found = look_up(node, client).await?;
    client.drain_node(found.id, false).await.map_err(|error| request_problem(&error))?;
    let text = format!("node {} is back in use; shards will move to it", found.name);
    console.changed(&text, || document(&found, "used"))?;
    Ok(())
}

/// Shows what a rebalancing would move.
pub(crate) async fn show_plan(client: &Client, console: &mut Console) -> Result<(), Abort> {
    let view = client.refresh().await.map_err(|error| request_problem(&error))?;
    let placement = client.placement(true).await.map_err(|error| request_problem(&error))?;
    console.result(&plan(&placement, &view), || json_results::plan(&placement, &view))?;
    Ok(())
}

/// Starts a rebalancing.
pub(crate) async fn rebalance(client: &Client, console: &mut Console) -> Result<(), Abort> {
    client.rebalance().await.map_err(|error| request_problem(&error))?;
    let text = "rebalancing replicas and primaries; status shows the progress";
    console.changed(text, || json!({ "command": "rebalance", "dry_run": false }))?;
    Ok(())
}

async fn look_up(node: &str, client: &Client) -> Result<NodeInfo, Problem> {
    let view = client.refresh().await.map_err(|error| request_problem(&error))?;
    find(node, &view.nodes).cloned()
}

/// Formats a plan for people.
fn plan(placement: &Placement, view: &NetworkView) -> String {
    let name =
        |node: NodeId| view.node(node).map_or_else(|| node.short(), |node| node.name.clone());
    let way = |it: &PlannedMove| match (it.from, it.to) {
        (Some(from), Some(to)) => format!("from {} to {}", name(from), name(to)),
        (None, Some(to)) => format!("one more, to {}", name(to)),
        (Some(from), None) => format!("one less, from {}", name(from)),
        (None, None) => String::new(),
    };
    let mut lines = Vec::new();
    if !placement.moves.is_empty() {
        let count = placement.moves.len() as u64;
        lines.push(format!(
            "{count} {} already moving",
            plural(count, "replica is", "replicas are")
        ));
    }
    let mut list = |what: &str, none: &str, moves: &[PlannedMove]| {
        if moves.is_empty() {
            lines.push(none.to_owned());
            return;
        }
        let all: u64 = moves.iter().map(|it| it.bytes).sum();
        lines.push(format!("{} {what}, {}:", moves.len(), bytes(all)));
        for it in moves.iter().take(MOVES_SHOWN) {
            lines.push(format!("  shard {:<5} {}, {}", it.group, way(it), bytes(it.bytes)));
        }
        if let Some(more) = moves.len().checked_sub(MOVES_SHOWN + 1) {
            lines.push(format!("  and {} more", more + 1));
        }
    };
    list("replicas would move", "no replica would move", &placement.planned);
    list("primaries would change hands", "no primary would change hands", &placement.transfers);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use dkv_api::{GroupId, NetworkId, NodeState, Term, Uuid};
    use dkv_wire::network::Settings;

    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId(Uuid::from_u128(u128::from(number) << 96))
    }

    fn view() -> NetworkView {
        let node = |number: u8| NodeInfo {
            id: id(number),
            name: format!("n{number}"),
            address: "127.0.0.1:1".parse().unwrap(),
            region: None,
            state: NodeState::Live,
        };
        NetworkView {
            network: NetworkId(Uuid::nil()),
            term: Term(1),
            coordinator: Some(id(1)),
            nodes: (1..=3).map(node).collect(),
            revision: Default::default(),
            keyspaces: Vec::new(),
            shards: Vec::new(),
            settings: Settings::default(),
            denied: Vec::new(),
            servers: Vec::new(),
        }
    }

    #[test]
    fn a_plan_lists_each_move() {
        let moved = |group, from: Option<u8>, to: Option<u8>| PlannedMove {
            group: GroupId(group),
            from: from.map(id),
            to: to.map(id),
            bytes: 2 << 20,
        };
        let mut placement = Placement {
            nodes: Vec::new(),
            moves: Vec::new(),
            planned: vec![moved(1, Some(1), Some(3)), moved(12, None, Some(2))],
            transfers: Vec::new(),
        };
        assert_eq!(
            plan(&placement, &view()),
            "2 replicas would move, 4.0 MiB:\n  shard 1     from n1 to n3, 2.0 MiB\n  shard 12    \
             one more, to n2, 2.0 MiB\nno primary would change hands"
        );
        placement.planned.clear();
        placement.transfers = vec![moved(7, Some(2), Some(1)); MOVES_SHOWN + 2];
        let told = plan(&placement, &view());
        assert!(told.starts_with("no replica would move\n52 primaries would change hands"));
        assert!(told.ends_with("and 2 more"), "{told}");
    }

    #[test]
    fn progress_names_the_obstacle() {
        let mut places = NodePlaces {
            node: id(2),
            shards: 1,
            primaries: 0,
            bytes: 1 << 20,
            draining: true,
            retiring: false,
            may_stop: false,
            obstacle: Some("no other node has room for shard 1".into()),
        };
        let placement = Placement {
            nodes: Vec::new(),
            moves: Vec::new(),
            planned: Vec::new(),
            transfers: Vec::new(),
        };
        assert_eq!(
            progress("n2", &places, &placement),
            "n2 has 1 shard, 1.0 MiB; it cannot be drained yet: no other node has room for shard 1"
        );
        (places.shards, places.obstacle) = (0, None);
        assert_eq!(
            progress("n2", &places, &placement),
            "n2 has no shards left; releasing its last replicas and votes"
        );
    }
}
