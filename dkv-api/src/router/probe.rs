//! Failure detection: what to do when a node is silent, refuses, or loses its connection.

use std::collections::BTreeSet;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::RequestBody;

use super::{Effect, RequestKind, Router, Stage, Target, timing};
use crate::error::Error;

impl<W> Router<W> {
    /// A connection is established, and its handshake took `round_trip`. Returns whether it is
    /// still wanted.
    pub(crate) fn connected(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        round_trip: Duration,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if peer.dialing != Some(generation) {
            return false;
        }
        let replaced = peer.connection.is_some();
        peer.dialing = None;
        peer.failures = 0;
        if replaced {
            self.lose_attempts(now, node, "its connection was replaced");
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.connection = Some(generation);
            peer.direct_round_trip.get_or_insert(round_trip);
            peer.probe = None;
            peer.silent_since = now;
        }
        self.route_parked(now);
        self.check_health(now);
        true
    }

    /// A connection could not be established.
    pub(crate) fn connect_failed(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        why: &str,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.dialing != Some(generation) {
            return;
        }
        peer.dialing = None;
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at =
            now + timing::doubled(timing::REDIAL_MIN, peer.failures, timing::REDIAL_MAX);
        if peer.connection.is_some() {
            return;
        }
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        let mut unreached = BTreeSet::new();
        for id in parked {
            let Some(pending) = self.requests.get_mut(&id) else { continue };
            let group = pending.group.and_then(|group| self.groups.get(&group));
            match pending.kind.target() {
                Target::Node(direct) if direct == node => {
                    self.finish(now, id, Err(Error::Unavailable(why.to_owned())));
                }
                Target::Primary if group.and_then(|group| group.primary) == Some(node) => {
                    pending.last_error = Some(why.to_owned());
                }
                Target::Replica => {
                    pending.last_error.get_or_insert_with(|| why.to_owned());
                    unreached.extend(pending.group);
                }
                _ => {}
            }
        }
        self.suspect_primary(node);
        self.check_health(now);
        // A group that only replicas are asked for is never suspected.
        for group in unreached {
            let replicas = self.groups.get(&group).map_or(&[][..], |group| &group.replicas);
            if !replicas.iter().any(|&replica| self.is_usable(now, replica)) {
                self.seek_group(now, group);
            }
        }
    }

    /// An established connection is lost; `denied` if the node closed it because of our
    /// certificate.
    pub(crate) fn connection_lost(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        why: &str,
        denied: bool,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.connection != Some(generation) {
            return;
        }
        peer.connection = None;
        peer.probe = None;
        // The first reconnection is immediate if a request needs it; the following ones back off.
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at = now + if denied { timing::REDIAL_MAX } else { Duration::ZERO };
        self.lose_attempts(now, node, why);
        self.suspect_primary(node);
        if denied {
            self.deny_parked(now, node, why);
        }
        self.route_parked(now);
        self.check_health(now);
    }

    /// Fails the requests that wait for a node that denies us: neither it nor the others will serve
    /// them.
    fn deny_parked(&mut self, now: Duration, node: NodeId, why: &str) {
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        for id in parked {
            let Some(pending) = self.requests.get(&id) else { continue };
            let group = pending.group.and_then(|group| self.groups.get(&group));
            let waits = match pending.kind.target() {
                Target::Node(direct) => direct == node,
                Target::Replica => true,
                Target::Primary => group.and_then(|group| group.primary) == Some(node),
            };
            if waits {
                self.finish_refused(now, id, Error::Denied(why.to_owned()));
            }
        }
    }

    /// Puts all open attempts at a node in doubt, because their answers can no longer come.
    pub(super) fn lose_attempts(&mut self, now: Duration, node: NodeId, why: &str) {
        let why = format!("{}: {why}", self.describe(node));
        let mut homeless = Vec::new();
        for (&id, pending) in &mut self.requests {
            let Some(index) = pending.attempts.iter().position(|&attempt| attempt == node) else {
                continue;
            };
            pending.attempts.swap_remove(index);
            pending.in_doubt = true;
            pending.last_error = Some(why.clone());
            if pending.stage == Stage::Sent(node) {
                homeless.push(id);
            }
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.outstanding = 0;
        }
        for id in homeless {
            if self.requests.get(&id).is_some_and(|pending| pending.is_probe()) {
                self.remove(now, id);
            } else {
                self.park(now, id, now);
            }
        }
    }

    pub(super) fn suspect_primary(&mut self, node: NodeId) {
        for group in self.groups.values_mut().filter(|group| group.primary == Some(node)) {
            group.suspected = true;
        }
    }

    /// Returns whether requests wait for the primary of a group and it does not appear healthy.
    pub(super) fn is_primary_suspect(&self, now: Duration, group: GroupId) -> bool {
        let Some(group) = self.groups.get(&group) else { return false };
        if group.waiting == 0 {
            return false;
        }
        let Some(peer) = group.primary.and_then(|primary| self.peers.get(&primary)) else {
            return true;
        };
        let patience = peer.patience();
        group.suspected
            || now.saturating_sub(group.silent_since) >= patience
            || peer.is_silent(now, patience)
    }

    /// Looks after groups whose primary is suspect, and after silent nodes.
    pub(super) fn check_health(&mut self, now: Duration) {
        self.request_view(now);
        let groups: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, group)| group.waiting > 0 && group.probe_at <= now)
            .map(|(&id, _)| id)
            .collect();
        for group in groups {
            if self.is_primary_suspect(now, group) {
                self.probe_group(now, group);
            }
        }
        self.check_silent_peers(now);
    }

    /// Asks the server and the nodes for a view, if requests wait for one.
    pub(super) fn request_view(&mut self, now: Duration) {
        if self.unrouted.is_empty() || self.ask_server_at > now {
            return;
        }
        self.ask_server_at = now + timing::ASK_SERVER_EVERY;
        self.effects.push_back(Effect::AskServer);
        let nodes: Vec<NodeId> = self.members().take(timing::PROBES_MAX).collect();
        for node in nodes {
            self.probe(now, node);
        }
    }

    /// Asks who has a group, unless that was asked of any group a moment ago: an answer is a view
    /// of all groups.
    pub(super) fn seek_group(&mut self, now: Duration, id: GroupId) {
        if self.seek_at <= now {
            self.seek_at = now + timing::ASK_SERVER_EVERY;
            self.probe_group(now, id);
        }
    }

    /// Asks the other replicas, and after a while the server, which node leads a group.
    fn probe_group(&mut self, now: Duration, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.probe_at = now + timing::PROBE_EVERY;
        let primary = group.primary;
        let quiet = now.saturating_sub(group.silent_since);
        let mut others: Vec<NodeId> =
            group.replicas.iter().copied().filter(|&node| Some(node) != primary).collect();
        if group.ask_server_at <= now {
            group.ask_server_at = now + timing::ASK_SERVER_EVERY;
            self.effects.push_back(Effect::AskServer);
        }
        if !others.iter().any(|&node| self.is_usable(now, node)) {
            others = self.members().filter(|&node| Some(node) != primary).collect();
        }
        others.truncate(timing::PROBES_MAX);
        others.extend(primary.filter(|_| quiet >= timing::PROBE_SILENT_AFTER));
        for node in others {
            self.probe(now, node);
        }
    }

    /// Asks a node for its view, unless that is under way.
    pub(super) fn probe(&mut self, now: Duration, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.connection.is_none() {
            return self.dial(now, node);
        }
        let probe_timeout = peer.probe_timeout();
        if let Some((id, since)) = peer.probe {
            if now.saturating_sub(since) < probe_timeout {
                return;
            }
            self.remove(now, id);
        }
        let kind = RequestKind::Direct { node, body: RequestBody::View };
        let id = self.submit(now, kind, 4 * probe_timeout, None);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probe = Some((id, now));
        }
    }

    /// Moves reads that any replica can serve away from silent nodes. Asks each silent node for its
    /// view, which it has at hand. A node that does not send that either gets a new connection, and
    /// what it owed is in doubt.
    fn check_silent_peers(&mut self, now: Duration) {
        let silent: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.connection.is_some() && peer.is_silent(now, peer.patience()))
            .map(|(&node, _)| node)
            .collect();
        for node in silent {
            let owed = self.requests.iter().filter(|(_, pending)| {
                pending.kind.target() == Target::Replica && pending.attempts.contains(&node)
            });
            let owed: Vec<u64> = owed.map(|(&id, _)| id).collect();
            for &id in &owed {
                if self.requests.get(&id).is_some_and(|pending| pending.stage == Stage::Sent(node))
                {
                    self.route(now, id);
                }
            }
            let long = self
                .peers
                .get(&node)
                .is_some_and(|peer| peer.is_silent(now, peer.reconnect_after()));
            if long {
                self.dial(now, node);
            } else if !owed.is_empty() {
                self.probe(now, node);
            }
        }
    }
}
