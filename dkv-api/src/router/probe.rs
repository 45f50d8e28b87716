//! Doubt: when a node is silent, refuses or is gone, and who is asked then.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::RequestBody;

use super::{Effect, Router, Stage, Whom, Work, timing};
use crate::error::Error;

impl<W> Router<W> {
    /// A connection is up, and its handshake took `round_trip` there and back. Says whether it is
    /// wanted: it may have come too late.
    pub(crate) fn link_up(
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
        let replaced = peer.up.is_some();
        peer.dialing = None;
        peer.failures = 0;
        if replaced {
            self.lose_attempts(now, node, "its connection was replaced");
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.up = Some(generation);
            peer.reach.get_or_insert(round_trip);
            peer.probe = None;
            peer.quiet_since = now;
        }
        self.route_parked(now);
        self.attend(now);
        true
    }

    /// A connection was not made.
    pub(crate) fn link_failed(&mut self, now: Duration, node: NodeId, generation: u64, why: &str) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.dialing != Some(generation) {
            return;
        }
        peer.dialing = None;
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at =
            now + timing::doubled(timing::REDIAL_MIN, peer.failures, timing::REDIAL_MAX);
        if peer.up.is_some() {
            return;
        }
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        for id in parked {
            let Some(pending) = self.requests.get_mut(&id) else { continue };
            let group = pending.group.and_then(|group| self.groups.get(&group));
            match pending.work.whom() {
                Whom::Node(direct) if direct == node => {
                    self.finish(now, id, Err(Error::Unavailable(why.to_owned())));
                }
                Whom::Primary if group.and_then(|group| group.primary) == Some(node) => {
                    pending.why = Some(why.to_owned());
                }
                _ => {}
            }
        }
        self.doubt_primary(node);
        self.attend(now);
    }

    /// A connection that was up is lost. `denied` if the node says that it is because of our
    /// certificate.
    pub(crate) fn link_lost(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        why: &str,
        denied: bool,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.up != Some(generation) {
            return;
        }
        peer.up = None;
        peer.probe = None;
        // The first new connection is tried at once if something waits for it; the next ones wait.
        peer.failures = peer.failures.saturating_add(1);
        peer.retry_at = now + if denied { timing::REDIAL_MAX } else { Duration::ZERO };
        self.lose_attempts(now, node, why);
        self.doubt_primary(node);
        if denied {
            self.deny_parked(now, node, why);
        }
        self.route_parked(now);
        self.attend(now);
    }

    /// A node that denies us will not serve what waits for it, and neither will the others.
    fn deny_parked(&mut self, now: Duration, node: NodeId, why: &str) {
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        for id in parked {
            let Some(pending) = self.requests.get(&id) else { continue };
            let group = pending.group.and_then(|group| self.groups.get(&group));
            let waits = match pending.work.whom() {
                Whom::Node(direct) => direct == node,
                Whom::Replica => true,
                Whom::Primary => group.and_then(|group| group.primary) == Some(node),
            };
            if waits {
                self.finish_refused(now, id, Error::Denied(why.to_owned()));
            }
        }
    }

    /// The answers of a node to everything that it has cannot come any more.
    pub(super) fn lose_attempts(&mut self, now: Duration, node: NodeId, why: &str) {
        let why = format!("{}: {why}", self.describe(node));
        let mut homeless = Vec::new();
        for (&id, pending) in &mut self.requests {
            let Some(index) = pending.attempts.iter().position(|&attempt| attempt == node) else {
                continue;
            };
            pending.attempts.swap_remove(index);
            pending.doubt = true;
            pending.why = Some(why.clone());
            if pending.stage == Stage::Sent(node) {
                homeless.push(id);
            }
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.outstanding = 0;
        }
        for id in homeless {
            if self.requests.get(&id).is_some_and(|pending| pending.is_probe()) {
                self.take(now, id);
            } else {
                self.park(now, id, now);
            }
        }
    }

    pub(super) fn doubt_primary(&mut self, node: NodeId) {
        for group in self.groups.values_mut().filter(|group| group.primary == Some(node)) {
            group.doubted = true;
        }
    }

    /// Whether something waits for the primary of that group, and it is not in good order.
    pub(super) fn in_trouble(&self, now: Duration, group: GroupId) -> bool {
        let Some(group) = self.groups.get(&group) else { return false };
        if group.waiting == 0 {
            return false;
        }
        let Some(peer) = group.primary.and_then(|primary| self.peers.get(&primary)) else {
            return true;
        };
        let patience = peer.patience();
        group.doubted
            || now.saturating_sub(group.quiet_since) >= patience
            || peer.is_silent(now, patience)
    }

    /// Looks after every group whose primary is in doubt, and every node that is silent.
    pub(super) fn attend(&mut self, now: Duration) {
        self.attend_unrouted(now);
        let groups: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, group)| group.waiting > 0 && group.probe_at <= now)
            .map(|(&id, _)| id)
            .collect();
        for group in groups {
            if self.in_trouble(now, group) {
                self.probe_group(now, group);
            }
        }
        self.attend_silent(now);
    }

    /// Requests whose shard is not known wait for a view, from wherever it comes.
    pub(super) fn attend_unrouted(&mut self, now: Duration) {
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

    /// Asks the other replicas, and after a while the server, who leads a group.
    fn probe_group(&mut self, now: Duration, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.probe_at = now + timing::PROBE_EVERY;
        let primary = group.primary;
        let quiet = now.saturating_sub(group.quiet_since);
        let mut others: Vec<NodeId> =
            group.replicas.iter().copied().filter(|&node| Some(node) != primary).collect();
        if group.ask_server_at <= now {
            group.ask_server_at = now + timing::ASK_SERVER_EVERY;
            self.effects.push_back(Effect::AskServer);
        }
        if others.is_empty() {
            others = self.members().filter(|&node| Some(node) != primary).collect();
        }
        others.truncate(timing::PROBES_MAX);
        others.extend(primary.filter(|_| quiet >= timing::PROBE_SILENT_AFTER));
        for node in others {
            self.probe(now, node);
        }
    }

    /// Asks a node for its view, unless it was asked just now.
    pub(super) fn probe(&mut self, now: Duration, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.up.is_none() {
            return self.dial(now, node);
        }
        let lost_after = peer.lost_after();
        if let Some((id, since)) = peer.probe {
            if now.saturating_sub(since) < lost_after {
                return;
            }
            self.take(now, id);
        }
        let work = Work::Direct { node, body: RequestBody::View };
        let id = self.submit(now, work, 4 * lost_after, None);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probe = Some((id, now));
        }
    }

    /// Reads at any replica go to another one when theirs is silent. The silent one is asked for
    /// its view, which it has at hand: one that does not give that either gets another connection,
    /// and what it owed is lost.
    fn attend_silent(&mut self, now: Duration) {
        let silent: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.up.is_some() && peer.is_silent(now, peer.patience()))
            .map(|(&node, _)| node)
            .collect();
        for node in silent {
            let owed = self.requests.iter().filter(|(_, pending)| {
                pending.work.whom() == Whom::Replica && pending.attempts.contains(&node)
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
