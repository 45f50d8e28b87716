//! Removes replicas that are no longer wanted on this node: it deletes their log and rows, once no
//! group counts on them.
//!
//! A directory that does not name this node for a shard states a wish, and may be an old one. Only
//! the shard's own log can say that the shard does not count on this node any more: its primary
//! confirms that it leads, and that by a committed entry this node is not a member. And since the
//! word of a single node must not delete anything, most of the nodes that shall have the shard must
//! confirm that they have it, without this node. The node then stops the replica, and deletes it
//! unless its own log has gone past that entry, which would mean that it is a member again.
//!
//! A shard that was dropped with its keyspace is gone for good, by a committed entry of the control
//! group: the node deletes what it has of it at once.
//!
//! A node that is to be emptied also closes its outboxes, durably, and opens them again if the
//! order is taken back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::limits;
use dkv_wire::message::{Answer, Refusal, RequestBody};
use tracing::{debug, warn};

use crate::net::peers::Lane;
use crate::net::rpc;
use crate::node::{Node, Replicas};
use crate::raft::Vote;
use crate::replica::Replica;

/// Interval at which a node looks for replicas that it need not keep.
const EVERY: Duration = Duration::from_millis(300);
/// Time that a primary has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most nodes that are asked in a row.
const ASKED_MAX: usize = 4;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut told = false;
    loop {
        node.ticks().pause(EVERY).await;
        match node.follow_intake().await {
            Ok(()) => told = false,
            // Logged once, and not three times a second for as long as the disk is full.
            Err(_) if told => {}
            Err(error) => {
                warn!(%error, "cannot note in the data directory whether this node is to be emptied");
                told = true;
            }
        }
        if let Err(why) = node.delete_leftovers().await {
            return node.tasks().fail(why);
        }
        if let Err(why) = node.delete_dropped().await {
            return node.tasks().fail(why);
        }
        for group in node.groups() {
            let Some(holders) = unwanted(node.replicas(), &group, node.id()) else { continue };
            // A leader leads until it is taken out; no node informs a leader that was voted out
            // while it was cut off, and it cannot confirm that it leads.
            if group.leads() && group.confirm_leadership().await.is_ok() {
                continue;
            }
            match departed(&node, &group, holders).await {
                Ok((index, leader)) => {
                    if let Err(why) = node.close_group(group.id(), index, leader).await {
                        return node.tasks().fail(why);
                    }
                }
                Err(why) => {
                    debug!(group = %group.id(), %why, "keeping the replica: the shard still needs it")
                }
            }
        }
    }
}

/// If the directory no longer wants this replica, returns the nodes that shall have one.
fn unwanted(replicas: &Replicas, group: &Replica, me: NodeId) -> Option<Vec<NodeId>> {
    if !group.id().is_shard() {
        return None;
    }
    let holders = replicas.with_directory(|directory| {
        let plan = directory.groups().get(&group.id())?;
        (!plan.has(me)).then(|| plan.voters.iter().copied().collect())
    });
    holders.flatten()
}

/// Asks the primary whether the shard counts on this node. If it does not, returns the entry that
/// says so, and the vote with which the primary leads.
async fn departed(
    node: &Node,
    group: &Replica,
    holders: Vec<NodeId>,
) -> Result<(u64, Vote), Refusal> {
    let mut next: Vec<NodeId> = holders.iter().rev().copied().collect();
    next.extend(group.leader().filter(|leader| *leader != node.id()));
    let is_known = |peer: NodeId| holders.contains(&peer) || node.replicas().is_member(group, peer);
    let mut last = Refusal::Unavailable("no holder of the shard is known".into());
    for _ in 0..ASKED_MAX {
        let Some(peer) = next.pop() else { break };
        let body = RequestBody::Departed(group.id());
        match rpc::ask(node.peers(), peer, Lane::Urgent, body, PATIENCE).await {
            Ok(Answer::Departed { index, term }) => {
                check(group, index, term)?;
                agreed(node, group, peer, &holders).await?;
                return Ok((index, Vote::new(term.0, peer)));
            }
            Ok(_) => last = Refusal::Unavailable("unexpected answer".into()),
            Err(refusal) => {
                if let Refusal::NotPrimary { primary: Some(primary) } = &refusal
                    && is_known(*primary)
                {
                    next.push(*primary);
                }
                last = refusal;
            }
        }
    }
    Err(last)
}

/// Checks that the entry and the term are possible.
fn check(group: &Replica, index: u64, term: Term) -> Result<(), Refusal> {
    let last = group.state_machine().applied_index().max(group.configured().index);
    let can_be = term.may_follow(Some(group.term()))
        && index >= group.state_machine().voters().0
        && index <= last.saturating_add(limits::ENTRIES_AHEAD_MAX);
    match can_be {
        true => Ok(()),
        false => Err(Refusal::Invalid(format!("entry {index} in term {term} cannot be"))),
    }
}

/// Checks that most of the nodes that shall have a shard have it, without this node; `primary` has
/// already confirmed.
async fn agreed(
    node: &Node,
    group: &Replica,
    primary: NodeId,
    holders: &[NodeId],
) -> Result<(), Refusal> {
    let mut confirmed = BTreeSet::from([primary]);
    for holder in holders.iter().filter(|holder| **holder != primary) {
        if is_majority(&confirmed, holders) {
            break;
        }
        let body = RequestBody::Member { group: group.id(), node: node.id() };
        let asked = rpc::ask(node.peers(), *holder, Lane::Urgent, body, PATIENCE).await;
        if matches!(asked, Ok(Answer::Member(false))) {
            confirmed.insert(*holder);
        }
    }
    match is_majority(&confirmed, holders) {
        true => Ok(()),
        false => Err(Refusal::Unavailable("most of its holders have not confirmed it".into())),
    }
}

/// Whether most of the nodes that shall have a shard are among those that have confirmed. Anybody
/// may claim to be the primary, and counts only if it shall have the shard.
fn is_majority(confirmed: &BTreeSet<NodeId>, holders: &[NodeId]) -> bool {
    let agree = holders.iter().filter(|holder| confirmed.contains(holder)).count();
    agree > holders.len() / 2
}

/// Whether a group of this node does not count on `who` any more; if so, returns by which entry of
/// its log, and in which term this node leads.
///
/// # Errors
/// If the group does count on it, or this node cannot say.
pub(crate) async fn confirm(
    node: &Node,
    shard: GroupId,
    who: NodeId,
) -> Result<(u64, Term), Refusal> {
    let Some(group) = node.group(shard) else {
        return Err(Refusal::NotPrimary { primary: None });
    };
    let term = group.confirm_leadership().await?;
    let configured = group.configured();
    let is_member = configured.voters.contains(&who) || configured.others.contains(&who);
    if is_member || configured.is_joint || !configured.is_applied {
        return Err(Refusal::Unavailable("the shard still needs the node".into()));
    }
    Ok((configured.index, term))
}

#[cfg(test)]
mod tests;
