//! Views: what the network looks like, and who leads what.
//!
//! Whoever holds a node's certificate can say what it likes, and a view decides where values go. So
//! a view counts if it is the server's, or that of a node which the view before names, and which is
//! in its own; and if its term does not leap, as one that is taken once rules out all earlier ones.
//! Whom a view names as removed is forgotten, and is no node of the network in any later one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, NodeId};
use dkv_wire::limits;
use dkv_wire::network::NetworkView;

use super::peer::{Group, Peer};
use super::{Effect, Router, Stage, Whom, timing};

impl<W> Router<W> {
    /// Nodes that are known from an earlier run.
    pub(crate) fn learn_nodes(&mut self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        for (node, address) in nodes {
            let known = Peer { is_member: true, ..Peer::new(address) };
            self.peers.entry(node).or_insert(known);
        }
    }

    /// Whoever has registered with the server, to be asked how they are and no more.
    pub(crate) fn meet_nodes(&mut self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        for (node, address) in nodes {
            self.peers.entry(node).or_insert_with(|| Peer::new(address));
        }
    }

    /// The server has no view, or there is no server that answers.
    pub(crate) fn no_view(&mut self, why: String) {
        self.no_view = Some(why);
    }

    /// A node's view, which counts only if it is one of the network's.
    pub(crate) fn handle_view_of(&mut self, now: Duration, node: NodeId, view: NetworkView) {
        let is_member = self.peers.get(&node).is_some_and(|peer| peer.is_member);
        let known = self.view.as_ref().map(|current| current.term);
        let counts = is_member
            && !self.denied.contains(&node.into())
            && view.node(node).is_some()
            && view.term.may_follow(known);
        if counts {
            self.handle_view(now, view);
        }
    }

    /// The server's view, or that of a node of the network.
    ///
    /// One of an older term than ours is not looked at. Claims of an equal or newer one about a
    /// primary are believed if ours is unknown, in doubt or untried, but never against a primary
    /// that serves.
    pub(crate) fn handle_view(&mut self, now: Duration, view: NetworkView) {
        let current = self.view.as_ref();
        if current
            .is_some_and(|current| view.term < current.term || view.network != current.network)
            || view.nodes.iter().any(|info| view.denied.contains(&info.id.into()))
        {
            return;
        }
        self.deny(now, &view.denied);
        self.keep_apart(&view);
        self.update_nodes(&view);
        let mut claims = vec![(GroupId::CONTROL, view.coordinator)];
        self.update_group(GroupId::CONTROL, view.nodes.iter().map(|node| node.id).collect());
        for shard in &view.shards {
            claims.push((shard.group, shard.primary));
            // A learner is a replica on its way: it may have nothing yet.
            self.update_group(shard.group, shard.voters.clone());
        }
        let had_shards = current_has_shards(self.view.as_deref());
        self.view = Some(Arc::new(view));
        for (group, claim) in claims {
            if let Some(primary) = claim {
                self.consider(now, group, primary);
            }
        }
        if !had_shards {
            let unrouted: Vec<u64> = self.unrouted.iter().copied().collect();
            for id in unrouted {
                self.place(now, id);
            }
        }
        if self.groups.values().any(|group| group.confirmed) {
            self.warm_up(now);
        }
        self.route_parked(now);
        self.attend(now);
    }

    /// Forgets nodes that were removed from the network, and what was asked of them.
    fn deny(&mut self, now: Duration, denied: &[HolderId]) {
        let room = limits::DENIED_MAX.saturating_sub(self.denied.len());
        let is_known = |holder: &&HolderId| self.peers.contains_key(&NodeId(holder.0));
        let gone: Vec<NodeId> = denied.iter().filter(is_known).map(|it| NodeId(it.0)).collect();
        self.denied.extend(denied.iter().take(room));
        for node in gone {
            self.lose_attempts(now, node, "it was removed from the network");
            self.peers.remove(&node);
            self.doubt_primary(node);
            self.effects.push_back(Effect::Disconnect { node });
        }
    }

    /// In a network that rehearses distances, a client has its own from each node.
    fn keep_apart(&mut self, view: &NetworkView) {
        let delays = &view.settings.delays;
        let links = delays.link_delays(delays.place(None, self.region.as_ref()), &view.nodes);
        if links != self.links {
            self.links.clone_from(&links);
            self.effects.push_back(Effect::KeepApart { links, vary: delays.vary });
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
                    // What was sent to the old address may still be answered; what comes next goes
                    // to the new one.
                    peer.address = info.address;
                    peer.retry_at = Duration::ZERO;
                    peer.dialing = None;
                    let node = info.id;
                    if let Some(peer) = self.peers.get(&node)
                        && peer.up.is_some()
                    {
                        self.dial(Duration::ZERO, node);
                    }
                    changed = true;
                }
                Some(_) => {}
            }
            if let Some(peer) = self.peers.get_mut(&info.id) {
                peer.is_near = self.region.is_some() && info.region == self.region;
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
            self.effects.push_back(Effect::Remember(self.addresses()));
        }
    }

    fn update_group(&mut self, group: GroupId, replicas: Vec<NodeId>) {
        let (first, mut replicas) = (self.first_session, replicas);
        replicas.retain(|node| self.peers.get(node).is_some_and(|peer| peer.is_member));
        self.groups.entry(group).or_insert_with(|| Group::new(first)).replicas = replicas;
    }

    /// Somebody claims that `primary` leads `group`.
    fn consider(&mut self, now: Duration, id: GroupId, primary: NodeId) {
        let Some(group) = self.groups.get(&id) else { return };
        let is_member = self.peers.get(&primary).is_some_and(|peer| peer.is_member);
        if group.primary == Some(primary) || !is_member {
            return;
        }
        // One that has had no time to serve yet gives way only to one that answers: otherwise the
        // next view from somebody who does not know of the failover would send us back.
        let answers = self
            .peers
            .get(&primary)
            .is_some_and(|peer| peer.up.is_some() && !peer.is_silent(now, peer.patience()));
        let untried = !group.confirmed && answers;
        if group.primary.is_none() || untried || self.in_trouble(now, id) {
            self.set_primary(now, id, primary);
        }
    }

    /// From now on `primary` is believed to lead the group: everything that waits for it goes
    /// there, whoever has it already.
    pub(super) fn set_primary(&mut self, now: Duration, id: GroupId, primary: NodeId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.primary = Some(primary);
        group.confirmed = false;
        group.doubted = false;
        group.quiet_since = now;
        let moved: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, pending)| {
                pending.group == Some(id)
                    && pending.work.whom() == Whom::Primary
                    && pending.stage != Stage::Queued
            })
            .map(|(&id, _)| id)
            .collect();
        for id in moved {
            // A pause was for the old one.
            if let Some(Stage::Parked { .. }) = self.requests.get(&id).map(|pending| pending.stage)
            {
                self.park(now, id, now);
            }
            self.route(now, id);
        }
    }

    /// A node has served: it is worth having connections to those that may take over.
    pub(super) fn warm_up(&mut self, now: Duration) {
        let cold: Vec<NodeId> = self
            .peers
            .iter()
            .take(timing::WARM_MAX)
            .filter(|(_, peer)| peer.is_member && peer.up.is_none() && peer.generation == 0)
            .map(|(&node, _)| node)
            .collect();
        for node in cold {
            self.dial(now, node);
        }
    }
}

fn current_has_shards(view: Option<&NetworkView>) -> bool {
    view.is_some_and(|view| !view.shards.is_empty())
}
