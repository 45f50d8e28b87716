//! The admin plane: requests of administrators.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, KeyspaceId, NodeId};
use dkv_wire::message::{Answer, PolicyChange, PolicyList, Refusal};
use dkv_wire::network::{KeyspaceChange, NodeState};
use tokio::time::Instant;
use tracing::warn;

use super::context::{RequestContext, change_directory};
use super::{expulsion, level_all, rights};
use crate::cluster::keyspaces::{self, NewKeyspace};
use crate::cluster::rebalancer;
use crate::net::reply::ReplyTo;
use crate::node::Node;
use dkv_state::DirectoryCommand;

/// Longest time that nodes being emptied have to report whether they are empty.
const EMPTIED_PATIENCE: Duration = Duration::from_secs(4);

/// Removes a node from the network, once its replicas are on others.
pub(super) fn remove_node(context: &RequestContext<'_>, node: NodeId, reply: ReplyTo) {
    context.change_directory(DirectoryCommand::Retire(node), reply);
}

/// Denies a node, and removes it once no group counts on it, whatever it says or has.
pub(super) fn expel_node(context: &RequestContext<'_>, node: NodeId, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |here| async move {
        // What a deposed coordinator has heard is old.
        let since = confirm_coordinator(&here, until).await?;
        if !here.replicas().is_denied(node) {
            expulsion::check(&here, since, node).await?;
        }
        everywhere(&here, DirectoryCommand::Expel(node), until).await
    });
}

/// Denies the holder of a certificate from now on.
pub(super) fn revoke(context: &RequestContext<'_>, holder: HolderId, reply: ReplyTo) {
    change_everywhere(context, DirectoryCommand::Deny(holder), reply);
}

/// Changes what all nodes have to observe. Answers once they do, or names those that have not
/// confirmed it in time.
fn change_everywhere(context: &RequestContext<'_>, command: DirectoryCommand, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move { everywhere(&node, command, until).await });
}

async fn everywhere(
    node: &Arc<Node>,
    command: DirectoryCommand,
    until: Instant,
) -> Result<Answer, Refusal> {
    let done = change_directory(node, command, until).await?;
    let until = until.min(Instant::now() + rights::DENIALS_AGE_MAX);
    let since = node.coordination().leader_since().unwrap_or_else(Instant::now);
    let states = node.states(since);
    let down = |id: &NodeId| states.get(id) == Some(&NodeState::Down);
    let others = node.control().members().into_iter();
    let others = others.filter(|id| *id != node.id() && !node.replicas().is_denied(*id));
    // Nodes that are down are named, and not waited for.
    let (mut missing, awaited): (Vec<_>, Vec<_>) = others.partition(down);
    let awaited = awaited.into_iter();
    missing.extend(level_all::reach_of(node.control(), awaited, until).await.missing);
    if missing.is_empty() {
        return Ok(done);
    }
    let names: Vec<String> = missing.iter().map(NodeId::short).collect();
    warn!(nodes = names.join(", "), "a change is not known to be in force there");
    Ok(Answer::NotEverywhere(missing))
}

/// Has a node emptied, or used again.
pub(super) fn drain(context: &RequestContext<'_>, node: NodeId, on: bool, reply: ReplyTo) {
    context.change_directory(DirectoryCommand::Drain { node, on }, reply);
}

/// Has replicas and primaries rebalanced at once.
pub(super) fn rebalance(context: &RequestContext<'_>, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move {
        confirm_coordinator(&node, until).await?;
        node.coordination().set_rebalancing(true);
        Ok(Answer::Done)
    });
}

/// Confirms that this node is the coordinator now, and returns since when. A deposed one may not
/// have noticed yet, and know neither where the primaries are nor whether a node is in use again.
async fn confirm_coordinator(node: &Node, until: Instant) -> Result<Instant, Refusal> {
    let confirmed = tokio::time::timeout_at(until, node.control().confirm_leadership());
    confirmed.await.map_err(|_| Refusal::Unavailable("no quorum answers in time".into()))??;
    let since = node.coordination().leader_since();
    since.ok_or_else(|| Refusal::NotPrimary { primary: node.control().leader() })
}

/// Has the primary of a shard handed over to another of its voters.
pub(super) fn move_primary(
    context: &RequestContext<'_>,
    shard: GroupId,
    to: NodeId,
    reply: ReplyTo,
) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move {
        let since = confirm_coordinator(&node, until).await?;
        rebalancer::move_primary(&node, since, shard, to).await?;
        Ok(Answer::Done)
    });
}

/// Reports where replicas are, and with `forecast` where they would go.
pub(super) fn placement(context: &RequestContext<'_>, forecast: bool, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move {
        confirm_coordinator(&node, until).await?;
        let left = until.saturating_duration_since(Instant::now()).min(EMPTIED_PATIENCE);
        let report = rebalancer::report(&node, forecast, left).await?;
        Ok(Answer::Placement(Box::new(report)))
    });
}

/// Creates a keyspace, and answers once its shards have primaries.
pub(super) fn create_keyspace(context: &RequestContext<'_>, new: NewKeyspace, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move {
        keyspaces::create(&node, new, until).await.map(|()| Answer::Done)
    });
}

/// Changes the settings of a keyspace.
pub(super) fn set_keyspace(
    context: &RequestContext<'_>,
    keyspace: KeyspaceId,
    change: KeyspaceChange,
    reply: ReplyTo,
) {
    context.change_directory(DirectoryCommand::SetKeyspace { keyspace, change }, reply);
}

/// Drops a keyspace.
pub(super) fn drop_keyspace(context: &RequestContext<'_>, keyspace: KeyspaceId, reply: ReplyTo) {
    context.change_directory(DirectoryCommand::DropKeyspace(keyspace), reply);
}

/// Changes a policy. Answers once all nodes apply it to what they are asked, or names those that
/// are slower than that; these deny nothing for good until they do.
pub(super) fn change_policy(context: &RequestContext<'_>, change: PolicyChange, reply: ReplyTo) {
    change_everywhere(context, DirectoryCommand::Policy(change), reply);
}

/// Lists the policies that the sender may see.
pub(super) fn policies(context: &RequestContext<'_>, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    let user = context.user.or(context.peer.user);
    let about = match rights::asks_about(context.peer, context.user) {
        Ok(about) => about,
        Err(refusal) => return reply.refuse(refusal),
    };
    context.answer(reply, move |node| async move {
        confirm_coordinator(&node, until).await?;
        let policies = node.replicas().with_directory(|directory| match about {
            None => directory.policies().collect(),
            Some(Some(user)) => directory.policies_of(user).collect(),
            Some(None) => Vec::new(),
        });
        let policies = policies.unwrap_or_default();
        Ok(Answer::Policies(Box::new(PolicyList { user, policies })))
    });
}

/// Lists the keyspaces and their use.
pub(super) fn keyspaces(context: &RequestContext<'_>, reply: ReplyTo) {
    let until = Instant::now() + context.working_time();
    context.answer(reply, move |node| async move {
        Ok(Answer::Keyspaces(keyspaces::list(&node, until).await?))
    });
}
