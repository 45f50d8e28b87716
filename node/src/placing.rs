//! What the coordinator does about where replicas and primaries are, and what it tells of it.
//!
//! It decides nothing itself: `state::placement` says what to change. Here is only when: what is
//! missing, gone or to go is seen to at once; balance waits until the nodes have been the same for a
//! moment, so that those that join together share at once; and primaries change hands one after the
//! other, with pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dkv_wire::id::{GroupId, NodeId};
use dkv_wire::message::{
    LedGroup, Move, MoveStep, NodePlaces, Placement, PlannedMove, Refusal, RequestBody,
};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::ask;
use crate::node::Node;
use crate::state::placement::{self, Balance, Measured, Transfer, forecast, transfer};
use crate::state::{Directory, DirectoryCommand};

/// Time for which the nodes must have been the same before anything moves for balance.
const SETTLE: Duration = Duration::from_secs(3);
/// Time between two transfers of a primary.
const TRANSFER_EVERY: Duration = Duration::from_millis(1000);
/// The same, when an administrator wants it done.
const TRANSFER_EVERY_ASKED: Duration = Duration::from_millis(100);
/// Time that a transfer may take.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(1500);

/// What the coordinator remembers from one look to the next, for one reign.
pub(crate) struct Placing {
    since: Instant,
    /// The nodes, and whether each is to stay; and since when they are these.
    nodes: (BTreeMap<NodeId, bool>, Instant),
    last_transfer: Option<Instant>,
}

impl Placing {
    /// At the beginning of a reign.
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, nodes: (BTreeMap::new(), since), last_transfer: None }
    }

    /// The next change of the directory, if there is one. Has a primary change hands if that is next.
    pub(crate) fn next(&mut self, node: &Arc<Node>) -> Option<DirectoryCommand> {
        let measured = node.measured(self.since);
        let led = node.heard(|heard, now| heard.led(now));
        let found = node.control().machine().with_directory(|directory| {
            let balance = self.balance(node, directory);
            let change = placement::plan(directory, &measured, balance);
            let transfer = match balance {
                Balance::Off => None,
                _ if change.is_some() => None,
                _ => transfer(directory, &measured),
            };
            let at_rest =
                change.is_none() && transfer.is_none() && moves(directory, &led).is_empty();
            (change, transfer, at_rest)
        });
        let (change, transfer, at_rest) = found?;
        if at_rest && node.is_rebalancing() {
            info!("what the nodes hold and lead is evened out");
            node.set_rebalancing(false);
        }
        if let Some(transfer) = transfer {
            self.transfer(node, transfer);
        }
        change
    }

    fn balance(&mut self, node: &Node, directory: &Directory) -> Balance {
        let nodes: BTreeMap<NodeId, bool> = directory
            .nodes()
            .iter()
            .map(|(id, member)| (*id, !member.retiring && !member.draining))
            .collect();
        if self.nodes.0 != nodes {
            self.nodes = (nodes, Instant::now());
        }
        if node.is_rebalancing() {
            Balance::Eager
        } else if self.nodes.1.elapsed() >= SETTLE {
            Balance::Gentle
        } else {
            Balance::Off
        }
    }

    fn transfer(&mut self, node: &Arc<Node>, transfer: Transfer) {
        let pause = if node.is_rebalancing() { TRANSFER_EVERY_ASKED } else { TRANSFER_EVERY };
        if self.last_transfer.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last_transfer = Some(Instant::now());
        let Transfer { group, from, to } = transfer;
        info!(%group, %from, %to, "handing a primary over for balance");
        let node = Arc::clone(node);
        let asking = Arc::clone(&node);
        node.spawn(async move {
            let body = RequestBody::HandOver { shard: group, to };
            let done = if from == asking.id() {
                hand_over(&asking, group, to).await
            } else {
                ask::tell(asking.peers(), from, body, TRANSFER_PATIENCE).await
            };
            if let Err(error) = done {
                debug!(%group, %error, "the primary was not handed over");
            }
        });
    }
}

/// Hands a shard that this node leads over.
pub(crate) async fn hand_over(node: &Node, shard: GroupId, to: NodeId) -> Result<(), Refusal> {
    let Some(group) = node.group(shard).filter(|group| group.leads()) else {
        return Err(Refusal::NotPrimary { primary: node.primary_of(shard) });
    };
    match group.hand_over_to(to, TRANSFER_PATIENCE).await {
        true => Ok(()),
        false => Err(Refusal::Unavailable("it was not taken over in time".into())),
    }
}

/// Where replicas are and where they are going.
///
/// # Errors
/// If this node is not the coordinator.
pub(crate) fn report(node: &Node, foresee: bool) -> Result<Placement, Refusal> {
    let not_coordinator = || Refusal::NotPrimary { primary: node.control().leader() };
    let since = node.reign().ok_or_else(not_coordinator)?;
    let measured = node.measured(since);
    let led = node.heard(|heard, now| heard.led(now));
    // A copy, as looking ahead takes its time.
    let directory = node.control().machine().with_directory(Directory::clone);
    let directory = directory.ok_or_else(not_coordinator)?;
    let places = directory.nodes().keys().map(|id| places(&directory, &measured, *id));
    let mut report = Placement {
        nodes: places.collect(),
        moves: moves(&directory, &led),
        planned: Vec::new(),
        transfers: Vec::new(),
    };
    if foresee {
        let foreseen = forecast(&directory, &measured, Balance::Eager);
        let bytes = |group| measured.groups.get(&group).map_or(0, |it| it.bytes);
        let planned = foreseen.moves.into_iter();
        report.planned = planned
            .map(|(group, from, to)| PlannedMove { group, from, to, bytes: bytes(group) })
            .collect();
        let transfers = foreseen.transfers.into_iter();
        report.transfers = transfers
            .map(|Transfer { group, from, to }| {
                let (from, to) = (Some(from), Some(to));
                PlannedMove { group, from, to, bytes: bytes(group) }
            })
            .collect();
    }
    Ok(report)
}

/// What is on its way: wherever what is wished and what is so differ.
fn moves(directory: &Directory, led: &BTreeMap<GroupId, (NodeId, LedGroup)>) -> Vec<Move> {
    let mut moves = Vec::new();
    let shards = directory.groups().iter().filter(|(group, plan)| group.is_shard() && plan.started);
    for (group, plan) in shards {
        let Some((_, led)) = led.get(group) else { continue };
        let members: BTreeSet<NodeId> = led.voters.iter().chain(&led.learners).copied().collect();
        let voters: BTreeSet<NodeId> = led.voters.iter().copied().collect();
        let mut coming = plan.voters.difference(&voters).copied();
        let mut going = members.difference(&plan.voters).copied();
        loop {
            let (from, to) = (going.next(), coming.next());
            if from.is_none() && to.is_none() {
                break;
            }
            moves.push(one_move(*group, from, to, led));
        }
    }
    moves
}

fn one_move(group: GroupId, from: Option<NodeId>, to: Option<NodeId>, led: &LedGroup) -> Move {
    let progress = to.and_then(|to| led.members.iter().find(|member| member.node == to));
    let step = match (to, progress) {
        (None, _) => MoveStep::Removing,
        (Some(_), Some(progress)) if progress.is_ready => MoveStep::Promoting,
        (Some(_), Some(_)) => MoveStep::Learning,
        (Some(_), None) => MoveStep::Waiting,
    };
    let matched_index = progress.map_or(0, |progress| progress.matched_index);
    Move { group, from, to, step, matched_index, last_index: led.last_index, bytes: led.bytes }
}

/// What one node has.
fn places(directory: &Directory, measured: &Measured, node: NodeId) -> NodePlaces {
    let member = directory.nodes().get(&node);
    let draining = member.is_some_and(|member| member.draining);
    let mut places = NodePlaces {
        node,
        shards: 0,
        primaries: 0,
        bytes: 0,
        draining,
        retiring: member.is_some_and(|member| member.retiring),
        may_stop: true,
        obstacle: None,
    };
    for (group, plan) in directory.groups().iter().filter(|(_, plan)| plan.started) {
        let actual = measured.groups.get(group);
        if !group.is_shard() {
            // Its members all follow it; what counts is whether its vote is needed.
            let votes = actual.is_none_or(|it| it.is_joint || it.voters.contains(&node));
            places.may_stop &= !votes && !plan.voters.contains(&node);
            continue;
        }
        // A shard of which nothing is known may count on any node.
        let has = plan.has(node) || actual.is_none_or(|it| it.has(node));
        places.may_stop &= !has;
        if plan.has(node) || actual.is_some_and(|it| it.has(node)) {
            places.shards += 1;
            places.bytes = places.bytes.saturating_add(actual.map_or(0, |it| it.bytes));
        }
        places.primaries += u32::from(actual.is_some_and(|it| it.leader == node));
    }
    // Its own word on what it has not deleted or not delivered yet, if it lives.
    if let Some(report) = measured.nodes.get(&node).and_then(|seen| seen.report.as_ref()) {
        places.may_stop &= !report.holds.iter().any(|it| it.is_shard());
        let is_going = draining || places.retiring;
        places.may_stop &= !(is_going && report.keeps_writes);
    }
    if draining && !places.may_stop {
        places.obstacle = placement::obstacle(directory, measured, node);
    }
    places
}
