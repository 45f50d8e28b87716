//! The cluster plane: requests of nodes to each other, and the views that everybody may see.

use std::net::SocketAddr;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::{Answer, Measures, Refusal};
use dkv_wire::name::check_name;
use dkv_wire::region::Region;

use super::context::RequestContext;
use super::rights;
use crate::cluster::{coordinator, rebalancer, replica_removal};
use crate::net::reply::ReplyTo;
use dkv_state::{Announcement, DirectoryCommand};

/// Returns the view of the network.
pub(super) fn view(context: &RequestContext<'_>, reply: ReplyTo) {
    match context.node.view() {
        Some(view) => reply.send(Ok(Answer::View(Box::new(view)))),
        None => reply.refuse(Refusal::Unavailable("the network has not begun yet".into())),
    }
}

/// Returns the status of this node.
pub(super) fn status(context: &RequestContext<'_>, reply: ReplyTo) {
    let mut status = context.node.status();
    if rights::is_limited(context.peer, context.user) {
        for group in &mut status.groups {
            // They change with the keys of others.
            (group.keys, group.bytes, group.state_hash) = (0, 0, 0);
        }
    }
    reply.send(Ok(Answer::Status(Box::new(status))));
}

/// Takes a node that announces itself into the directory.
pub(super) fn announce(
    context: &RequestContext<'_>,
    name: String,
    address: SocketAddr,
    region: Option<Region>,
    reply: ReplyTo,
) {
    let Some(id) = context.peer.as_node() else { return };
    if let Err(error) = check_name(&name) {
        return reply.refuse(Refusal::Invalid(error.to_string()));
    }
    let announcement = Announcement { id, name, address, region };
    match coordinator::welcome(context.node, announcement, context.address.ip()) {
        Ok(command) => context.change_directory(command, reply),
        Err(refusal) => reply.refuse(refusal),
    }
}

/// Notes that a node stops.
pub(super) fn leaving(context: &RequestContext<'_>, reply: ReplyTo) {
    let Some(id) = context.peer.as_node() else { return };
    context.change_directory(DirectoryCommand::Leave(id), reply);
}

/// Records a node's report about itself.
pub(super) fn measures(context: &RequestContext<'_>, measures: Measures, reply: ReplyTo) {
    let Some(id) = context.peer.as_node() else { return };
    if let Err(error) = context.node.hear(id, measures) {
        let why = error.to_string();
        context.node.peers().denials().note(id, &why);
        return reply.refuse(Refusal::Invalid(why));
    }
    reply.send(Ok(Answer::Done));
}

/// Tells a node whether a shard that this node leads still counts on it.
pub(super) fn departed(context: &RequestContext<'_>, shard: GroupId, reply: ReplyTo) {
    let Some(id) = context.peer.as_node() else { return };
    context.answer(reply, move |node| async move {
        let (index, term) = replica_removal::confirm(&node, shard, id).await?;
        Ok(Answer::Departed { index, term })
    });
}

/// Tells whether a node is a member of a group, as far as this node knows.
pub(super) fn member(
    context: &RequestContext<'_>,
    group: GroupId,
    candidate: NodeId,
    reply: ReplyTo,
) {
    match context.node.group(group) {
        Some(group) => {
            let is_member = context.node.replicas().is_member(&group, candidate);
            reply.send(Ok(Answer::Member(is_member)));
        }
        None => reply.refuse(Refusal::NotPrimary { primary: None }),
    }
}

/// Tells whether a node may lead a group, as far as this node knows.
pub(super) fn may_lead(
    context: &RequestContext<'_>,
    group: GroupId,
    candidate: NodeId,
    reply: ReplyTo,
) {
    let replicas = context.node.replicas();
    // The directory knows of groups that are elsewhere.
    let may_lead = match context.node.group(group) {
        Some(group) => replicas.may_lead(&group, candidate),
        None => replicas.is_to_lead(group, candidate),
    };
    reply.send(Ok(Answer::Member(may_lead)));
}

/// Hands a shard that this node leads over to another node, on the coordinator's word.
pub(super) fn hand_over(context: &RequestContext<'_>, shard: GroupId, to: NodeId, reply: ReplyTo) {
    let node = context.node;
    // A node that wrongly takes itself for the coordinator asks in vain.
    if context.peer.as_node() != node.control().leader() {
        let why = "only the coordinator has shards handed over".to_owned();
        if let Some(id) = context.peer.as_node() {
            node.peers().denials().note(id, &why);
        }
        return reply.refuse(Refusal::Denied(why));
    }
    context.answer(reply, move |node| async move {
        rebalancer::hand_over(&node, shard, to).await?;
        Ok(Answer::Done)
    });
}

/// Reports what is left on this node, once it has the directory of entry `applied`.
pub(super) fn remainder(context: &RequestContext<'_>, applied: u64, reply: ReplyTo) {
    let patience = context.patience();
    context.answer(reply, move |node| async move {
        Ok(Answer::Remainder(rebalancer::remainder(&node, applied, patience).await?))
    });
}
