//! Views: the state of the network, and which node leads each group.
//!
//! A holder of a node's certificate can send any view, and views decide where values go. So the
//! router applies only views of the server and of nodes that, by the previous view, coordinate or
//! vote in a shard: a thief with a token for nodes is soon named as a node, and no more. A node's
//! view must name that node itself, and its term must not leap, because an applied term rules out
//! all earlier ones. A node that an applied view names as removed never becomes a member again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, NodeId};
use dkv_wire::limits;
use dkv_wire::network::NetworkView;

use super::peer::{Group, Peer};
use super::{Effect, Router, Stage, Target, timing};

impl<W> Router<W> {
    /// Adds the nodes that an earlier run stored, as members.
    pub(crate) fn add_known_nodes(
        &mut self,
        nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>,
    ) {
        for (node, address) in nodes {
            let known = Peer { is_member: true, ..Peer::new(address) };
            self.peers.entry(node).or_insert(known);
        }
    }

    /// Adds nodes that have registered with the server. They are asked for their status and nothing
    /// else.
    pub(crate) fn add_registered_nodes(
        &mut self,
        nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>,
    ) {
        for (node, address) in nodes {
            self.peers.entry(node).or_insert_with(|| Peer::new(address));
        }
    }

    /// Records that the server has no view or does not answer.
    pub(crate) fn handle_no_view(&mut self, why: String) {
        self.no_view_reason = Some(why);
    }

    /// Handles a node's view, which counts only if the node is a member that has a part in the
    /// network.
    pub(crate) fn handle_node_view(&mut self, now: Duration, node: NodeId, view: NetworkView) {
        let is_member = self.peers.get(&node).is_some_and(|peer| peer.is_member)
            && self.view.as_ref().is_none_or(|current| has_a_part(current, node));
        let known = self.view.as_ref().map(|current| current.term);
        let counts = is_member
            && !self.denied.contains(&node.into())
            && view.node(node).is_some()
            && view.term.may_follow(known)
            && self.has_plausible_revision(&view);
        if counts {
            self.handle_view(now, view);
        }
    }

    /// Handles the view of the server, or of a member.
    ///
    /// Ignores a view of an older term than ours. Takes over its primary of a group if ours is
    /// unknown, suspect or untried, but never in place of a primary that serves.
    pub(crate) fn handle_view(&mut self, now: Duration, mut view: NetworkView) {
        let current = self.view.as_ref();
        if current
            .is_some_and(|current| view.term < current.term || view.network != current.network)
        {
            return;
        }
        without_denied(&mut view);
        self.keep_newer_keyspaces(&mut view);
        self.remove_denied(now, &view.denied);
        self.update_delays(&view);
        self.update_nodes(&view);
        self.update_servers(&view);
        let mut claims = vec![(GroupId::CONTROL, view.coordinator)];
        self.update_group(GroupId::CONTROL, view.nodes.iter().map(|node| node.id).collect());
        for shard in &view.shards {
            claims.push((shard.group, shard.primary));
            // A learner may have no data yet.
            self.update_group(shard.group, shard.voters.clone());
        }
        let had_shards = current_has_shards(self.view.as_deref());
        self.view = Some(Arc::new(view));
        self.forget_dropped(now);
        for (group, claim) in claims {
            if let Some(primary) = claim {
                self.consider_primary(now, group, primary);
            }
        }
        if !had_shards {
            let unrouted: Vec<u64> = self.unrouted.iter().copied().collect();
            for id in unrouted {
                self.assign_group(now, id);
            }
        }
        if self.groups.values().any(|group| group.confirmed) {
            self.warm_up(now);
        }
        self.route_parked(now);
        self.check_health(now);
    }

    /// Passes the registration servers on if they have changed.
    fn update_servers(&mut self, view: &NetworkView) {
        let known = self.view.as_ref().map_or(&[][..], |view| &view.servers);
        if known != view.servers {
            let addresses = view.servers.iter().map(|server| server.address);
            self.effects.push_back(Effect::LearnServers(addresses.collect()));
        }
    }

    /// Removes nodes that are no longer in the network, and puts their requests in doubt.
    fn remove_denied(&mut self, now: Duration, denied: &[HolderId]) {
        let room = limits::DENIED_MAX.saturating_sub(self.denied.len());
        let is_known = |holder: &&HolderId| self.peers.contains_key(&NodeId(holder.0));
        let gone: Vec<NodeId> = denied.iter().filter(is_known).map(|it| NodeId(it.0)).collect();
        self.denied.extend(denied.iter().take(room));
        for node in gone {
            self.lose_attempts(now, node, "it was removed from the network");
            self.peers.remove(&node);
            self.suspect_primary(node);
            self.effects.push_back(Effect::Disconnect { node });
        }
    }

    /// Updates the rehearsed delays between this client and each node.
    fn update_delays(&mut self, view: &NetworkView) {
        let delays = &view.settings.delays;
        let links = delays.link_delays(delays.place(None, self.region.as_ref()), &view.nodes);
        if links != self.links {
            self.links.clone_from(&links);
            self.effects.push_back(Effect::SetDelays { links, vary: delays.vary });
        }
    }

    fn update_nodes(&mut self, view: &NetworkView) {
        let mut changed = false;
        for info in &view.nodes {
            if self.denied.contains(&info.id.into()) {
                continue;
            }
            match self.peers.get_mut(&info.id) {
                None => {
                    self.peers.insert(info.id, Peer::new(info.address));
                    changed = true;
                }
                Some(peer) if peer.address != info.address => {
                    // The old connection may still bring answers; new requests go to the new
                    // address.
                    peer.address = info.address;
                    peer.retry_at = Duration::ZERO;
                    peer.dialing = None;
                    let node = info.id;
                    if let Some(peer) = self.peers.get(&node)
                        && peer.connection.is_some()
                    {
                        self.dial(Duration::ZERO, node);
                    }
                    changed = true;
                }
                Some(_) => {}
            }
            if let Some(peer) = self.peers.get_mut(&info.id) {
                peer.in_own_region = self.region.is_some() && info.region == self.region;
                changed |= !std::mem::replace(&mut peer.is_member, true);
            }
        }
        for (node, peer) in &mut self.peers {
            peer.is_member &= view.node(*node).is_some();
        }
        let gone: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, peer)| peer.outstanding == 0 && view.node(**node).is_none())
            .map(|(&node, _)| node)
            .collect();
        for node in gone {
            self.peers.remove(&node);
            self.effects.push_back(Effect::Disconnect { node });
            changed = true;
        }
        if changed {
            self.effects.push_back(Effect::SaveNodes(self.addresses()));
        }
    }

    fn update_group(&mut self, group: GroupId, replicas: Vec<NodeId>) {
        let (first, mut replicas) = (self.first_session, replicas);
        replicas.retain(|node| self.peers.get(node).is_some_and(|peer| peer.is_member));
        self.groups.entry(group).or_insert_with(|| Group::new(first)).replicas = replicas;
    }

    /// Considers a claim that `primary` leads a group.
    fn consider_primary(&mut self, now: Duration, id: GroupId, primary: NodeId) {
        let Some(group) = self.groups.get(&id) else { return };
        let is_member = self.peers.get(&primary).is_some_and(|peer| peer.is_member);
        if group.primary == Some(primary) || !is_member {
            return;
        }
        // A primary that has had no time to serve yet gives way only to one that answers. Otherwise
        // a view from before the failover would send us back.
        let answers = self
            .peers
            .get(&primary)
            .is_some_and(|peer| peer.connection.is_some() && !peer.is_silent(now, peer.patience()));
        let untried = !group.confirmed && answers;
        if group.primary.is_none() || untried || self.is_primary_suspect(now, id) {
            self.set_primary(now, id, primary);
        }
    }

    /// Makes `primary` the primary of a group, and sends it everything that waits for the primary,
    /// even if another node has it already.
    pub(super) fn set_primary(&mut self, now: Duration, id: GroupId, primary: NodeId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.primary = Some(primary);
        group.confirmed = false;
        group.suspected = false;
        group.silent_since = now;
        let moved: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, pending)| {
                pending.group == Some(id)
                    && pending.kind.target() == Target::Primary
                    && pending.stage != Stage::Queued
            })
            .map(|(&id, _)| id)
            .collect();
        for id in moved {
            // The back-off was for the old primary.
            if let Some(Stage::Parked { .. }) = self.requests.get(&id).map(|pending| pending.stage)
            {
                self.park(now, id, now);
            }
            self.route(now, id);
        }
    }

    /// Connects to the other members once a node has served: one of them may take over.
    pub(super) fn warm_up(&mut self, now: Duration) {
        let cold: Vec<NodeId> = self
            .peers
            .iter()
            .take(timing::WARM_MAX)
            .filter(|(_, peer)| peer.is_member && peer.connection.is_none() && peer.generation == 0)
            .map(|(&node, _)| node)
            .collect();
        for node in cold {
            self.dial(now, node);
        }
    }
}

/// Removes the nodes that the view denies. One that an administrator has expelled is named until no
/// group counts on it.
fn without_denied(view: &mut NetworkView) {
    let NetworkView { nodes, shards, coordinator, denied, .. } = view;
    let is_denied = |node: NodeId| denied.contains(&node.into());
    nodes.retain(|info| !is_denied(info.id));
    *coordinator = coordinator.filter(|node| !is_denied(*node));
    for shard in shards {
        shard.primary = shard.primary.filter(|node| !is_denied(*node));
        shard.voters.retain(|node| !is_denied(*node));
        shard.learners.retain(|node| !is_denied(*node));
    }
}

/// Returns whether a node coordinates or votes in a shard. Without shards, any node may.
fn has_a_part(view: &NetworkView, node: NodeId) -> bool {
    let mut shards = view.shards.iter();
    view.shards.is_empty()
        || view.coordinator == Some(node)
        || shards.any(|shard| shard.primary == Some(node) || shard.voters.contains(&node))
}

fn current_has_shards(view: Option<&NetworkView>) -> bool {
    view.is_some_and(|view| !view.shards.is_empty())
}
