//! The coordinator's actions on the placement of replicas and primaries, and its report of it.
//!
//! It decides nothing itself: `dkv_state::placement` computes what to change. This module only
//! decides when: missing, dead or departing replicas are handled at once; balancing waits until the
//! set of nodes has been the same for a moment, so that nodes that join together share the load at
//! once; and primaries change hands one after the other, with pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::message::{
    Answer, ChangeReason, LedGroup, Move, MoveStep, NodePlaces, Placement, PlannedMove, Refusal,
    Remainder, RequestBody,
};
use futures::future::join_all;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::net::peers::Lane;
use crate::net::rpc;
use crate::node::{Coordination, Node};
use dkv_state::placement::{self, Balance, Measured, Transfer, forecast, transfer};
use dkv_state::{Directory, DirectoryCommand};

/// Time for which the nodes must have been the same before anything moves for balance.
const SETTLE: Duration = Duration::from_secs(3);
/// Time between two transfers of a primary.
const TRANSFER_EVERY: Duration = Duration::from_millis(1000);
/// The same when an administrator asked for it.
const TRANSFER_EVERY_ASKED: Duration = Duration::from_millis(100);
/// Time that a transfer may take.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(1500);

/// The coordinator's memory between two checks, for one term.
pub(crate) struct Rebalancer {
    since: Instant,
    /// The nodes, and whether each is to stay; and since when this set has been the same.
    nodes: (BTreeMap<NodeId, bool>, Instant),
    last_transfer: Option<Instant>,
}

impl Rebalancer {
    /// Makes the memory of a term that begins at `since`.
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, nodes: (BTreeMap::new(), since), last_transfer: None }
    }

    /// Returns the next change of the directory, if there is one. If a transfer of a primary is
    /// next, starts that.
    pub(crate) fn next(&mut self, node: &Arc<Node>) -> Option<DirectoryCommand> {
        let measured = node.measured(self.since);
        let led = node.heard(|heard, now| heard.led(now));
        let found = node.control().state_machine().with_directory(|directory| {
            let balance = self.balance(node.coordination(), directory);
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
        if at_rest && node.coordination().is_rebalancing() {
            info!("replicas and primaries are balanced");
            node.coordination().set_rebalancing(false);
        }
        if let Some(transfer) = transfer {
            self.transfer(node, transfer);
        }
        change
    }

    fn balance(&mut self, coordination: &Coordination, directory: &Directory) -> Balance {
        let nodes: BTreeMap<NodeId, bool> = directory
            .nodes()
            .iter()
            .map(|(id, member)| (*id, !member.retiring && !member.draining))
            .collect();
        if self.nodes.0 != nodes {
            self.nodes = (nodes, Instant::now());
        }
        if coordination.is_rebalancing() {
            Balance::Eager
        } else if self.nodes.1.elapsed() >= SETTLE {
            Balance::Gentle
        } else {
            Balance::Off
        }
    }

    fn transfer(&mut self, node: &Arc<Node>, transfer: Transfer) {
        let pause = if node.coordination().is_rebalancing() {
            TRANSFER_EVERY_ASKED
        } else {
            TRANSFER_EVERY
        };
        if self.last_transfer.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last_transfer = Some(Instant::now());
        let Transfer { group, from, to } = transfer;
        info!(%group, %from, %to, "handing a primary over for balance");
        let asking = Arc::clone(node);
        node.tasks().spawn(async move {
            if let Err(error) = tell_to_hand_over(&asking, transfer).await {
                debug!(%group, %error, "the primary was not handed over");
            }
        });
    }
}

/// Has a node hand over a shard that it leads.
async fn tell_to_hand_over(node: &Node, transfer: Transfer) -> Result<(), Refusal> {
    let Transfer { group: shard, from, to } = transfer;
    if from == node.id() {
        return hand_over(node, shard, to).await;
    }
    let body = RequestBody::HandOver { shard, to };
    rpc::tell(node.peers(), from, body, TRANSFER_PATIENCE).await
}

/// Makes a node the primary of a shard, on an administrator's word. To be called on the
/// coordinator, which has led since `since`. Balancing may move the primary again.
///
/// # Errors
/// The node could not lead the shard, or did not take over in time. Asking again is for the
/// administrator: each attempt keeps the shard from writing for a moment.
pub(crate) async fn move_primary(
    node: &Node,
    since: Instant,
    shard: GroupId,
    to: NodeId,
) -> Result<(), Refusal> {
    let measured = node.measured(since);
    let found = node.replicas().with_directory(|directory| {
        let mut possible = placement::transfers(directory, &measured).into_iter();
        let transfer = possible.find(|it| it.group == shard && it.to == to);
        directory.groups().contains_key(&shard).then_some(transfer)
    });
    match found.flatten() {
        None => Err(Refusal::Invalid(format!("there is no shard {shard}"))),
        Some(_) if node.primary_of(shard) == Some(to) => Ok(()),
        Some(None) => Err(Refusal::Invalid(format!(
            "node {} cannot lead shard {shard} now: it has to be a live voter that has caught up, \
             and no change of the voters may be under way",
            to.short()
        ))),
        Some(Some(transfer)) => {
            let Transfer { from, .. } = transfer;
            info!(%shard, %from, %to, "handing a primary over for an administrator");
            let done = tell_to_hand_over(node, transfer).await;
            let failed =
                |why| format!("node {} has not taken shard {shard} over: {why}", to.short());
            done.map_err(|why| match why {
                // It may have been told, and take the shard over yet.
                Refusal::Unavailable(_) | Refusal::Unknown(_) => Refusal::Unknown(failed(why)),
                why => Refusal::Invalid(failed(why)),
            })
        }
    }
}

/// Hands over a shard that this node leads.
pub(crate) async fn hand_over(node: &Node, shard: GroupId, to: NodeId) -> Result<(), Refusal> {
    let Some(group) = node.group(shard).filter(|group| group.leads()) else {
        return Err(Refusal::NotPrimary { primary: node.primary_of(shard) });
    };
    group.turnovers().expect(ChangeReason::Moved, Instant::now());
    match group.hand_over_to(to, TRANSFER_PATIENCE).await {
        true => Ok(()),
        false => Err(Refusal::Unavailable("it was not taken over in time".into())),
    }
}

/// Reports where replicas are and where they are going. To be called once this node's leadership is
/// confirmed. For nodes that may be switched off, it asks those nodes within `patience`.
///
/// # Errors
/// If this node is not the coordinator.
pub(crate) async fn report(
    node: &Node,
    foresee: bool,
    patience: Duration,
) -> Result<Placement, Refusal> {
    let not_coordinator = || Refusal::NotPrimary { primary: node.control().leader() };
    let since = node.coordination().leader_since().ok_or_else(not_coordinator)?;
    // A copy, because asking and planning ahead take time.
    let directory = node.control().state_machine().with_directory(Directory::clone);
    let directory = directory.ok_or_else(not_coordinator)?;
    let words = ask_the_emptied(node, &directory, &node.measured(since), patience).await;
    let measured = node.measured(since);
    let led = node.heard(|heard, now| heard.led(now));
    let places =
        directory.nodes().keys().map(|id| places(&directory, &measured, *id, words.get(id)));
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

/// Asks the nodes that are to be emptied and seem to be for what is left on them. Each answers from
/// a directory that is no older than this one.
async fn ask_the_emptied(
    node: &Node,
    directory: &Directory,
    measured: &Measured,
    patience: Duration,
) -> BTreeMap<NodeId, Word> {
    let applied = node.control().state_machine().summary().applied_index;
    let nothing = Ok(Remainder::default());
    let seem_empty = directory.nodes().keys().copied();
    let seem_empty =
        seem_empty.filter(|id| places(directory, measured, *id, Some(&nothing)).may_stop);
    let asked = seem_empty.map(|id| async move {
        if id == node.id() {
            return (id, Ok(node.remainder()));
        }
        let body = RequestBody::Remainder { applied };
        let answer = rpc::ask(node.peers(), id, Lane::Urgent, body, patience).await;
        let word = match answer {
            Ok(Answer::Remainder(left)) => Ok(left),
            Ok(_) => Err(NoWord::WrongAnswer),
            Err(refusal) => Err(NoWord::Refused(refusal)),
        };
        (id, word)
    });
    join_all(asked).await.into_iter().collect()
}

/// A node's answer on what is left on it, or why it gives none.
type Word = Result<Remainder, NoWord>;

/// Reason why the remainder on a node is not known. The report then does not say that the node may
/// be switched off.
#[derive(Debug, thiserror::Error)]
enum NoWord {
    /// It did not answer, or refused.
    #[error(transparent)]
    Refused(Refusal),
    /// Its answer belongs to a question of another kind.
    #[error("unexpected answer")]
    WrongAnswer,
}

/// Returns what is left on this node, once it has the directory of entry `applied`.
///
/// # Errors
/// If that directory does not arrive in time.
pub(crate) async fn remainder(
    node: &Node,
    applied: u64,
    patience: Duration,
) -> Result<Remainder, Refusal> {
    let mut news = node.control().state_machine().applied();
    match tokio::time::timeout(patience, news.wait_for(|index| *index >= applied)).await {
        Ok(Ok(_)) => Ok(node.remainder()),
        _ => Err(Refusal::Unavailable("its directory is an older one".into())),
    }
}

/// Moves under way: every difference between the plan and the actual state.
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

/// The replicas of one node. Without the node's own `word` they never say that it may be switched
/// off.
fn places(
    directory: &Directory,
    measured: &Measured,
    node: NodeId,
    word: Option<&Word>,
) -> NodePlaces {
    let member = directory.nodes().get(&node);
    let draining = member.is_some_and(|member| member.draining);
    let retiring = member.is_some_and(|member| member.retiring);
    let mut places = NodePlaces {
        node,
        shards: 0,
        primaries: 0,
        bytes: 0,
        draining,
        retiring,
        // Any other node may take an eventual write at any moment.
        may_stop: draining || retiring,
        obstacle: None,
    };
    for (group, plan) in directory.groups().iter().filter(|(_, plan)| plan.started) {
        let actual = measured.groups.get(group);
        if !group.is_shard() {
            // All members follow it; the question is whether its vote is needed.
            let votes = actual.is_none_or(|it| it.is_joint || it.voters.contains(&node));
            places.may_stop &= !votes && !plan.voters.contains(&node);
            continue;
        }
        // A shard whose state is unknown may count on any node.
        let has = plan.has(node) || actual.is_none_or(|it| it.has(node));
        places.may_stop &= !has;
        if plan.has(node) || actual.is_some_and(|it| it.has(node)) {
            places.shards += 1;
            places.bytes = places.bytes.saturating_add(actual.map_or(0, |it| it.bytes));
        }
        places.primaries += u32::from(actual.is_some_and(|it| it.leader == node));
    }
    if draining && !places.may_stop {
        places.obstacle = placement::obstacle(directory, measured, node);
    }
    // The node's own word on what it has not deleted or not delivered yet.
    if places.may_stop && !planted(Mutant::PromiseWithoutAsking) {
        places.may_stop = matches!(word, Some(Ok(left)) if left.is_nothing());
        if let Some(Err(why)) = word {
            places.obstacle = Some(format!("it does not say whether it is empty: {why}"));
        }
    }
    places
}

#[cfg(test)]
mod tests;
