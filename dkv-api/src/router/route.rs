//! Sending: from a request to the node that can serve it.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision, SessionId};
use dkv_wire::message::Level;
use dkv_wire::network::key_hash;

use super::peer::Peer;
use super::{Effect, Outcome, Router, Sending, Stage, Whom, Work, timing};
use crate::error::Error;

/// A request of more bytes is sent where it does not hold up others.
pub(super) const BULK_BYTES: usize = 64 * 1024;

impl<W> Router<W> {
    /// Finds the group of a request that has none yet, and sends it on.
    pub(super) fn place(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get(&id) else { return };
        let group = match (&pending.work, pending.group) {
            (_, Some(group)) => Some(group),
            (Work::Direct { .. }, None) => None,
            (Work::Scan { shard, .. }, None) if self.view.is_some() => Some(*shard),
            (work, None) => {
                let Some(view) = &self.view else { return self.attend_unrouted(now) };
                match work.key() {
                    None => Some(GroupId::CONTROL),
                    Some(key) => match view.shard_of(key) {
                        Some(shard) => Some(shard.group),
                        None => return self.attend_unrouted(now),
                    },
                }
            }
        };
        let limit = self.value_bytes_max();
        if let Work::Write { value: Some(value), .. } | Work::Deposit { value: Some(value), .. } =
            &pending.work
            && value.len() > limit
        {
            let (bytes, limit) = (value.len() as u64, limit as u64);
            return self.finish(
                now,
                id,
                Err(Error::TooLarge { what: "value".into(), bytes, limit }),
            );
        }
        let is_write = matches!(pending.work, Work::Write { .. });
        let is_placed = pending.group.is_some();
        self.unrouted.remove(&id);
        let known = group.and_then(|group| self.groups.get(&group));
        let floor = known.map_or(Revision(0), |group| group.seen);
        let (seen, deposits) = match (&pending.work, known) {
            (
                Work::Read { level: Level::Session, .. } | Work::Scan { level: Level::Session, .. },
                Some(group),
            ) => (group.seen, group.deposits.iter().map(|(node, last)| (*node, *last)).collect()),
            _ => Default::default(),
        };
        let is_deposit = matches!(pending.work, Work::Deposit { .. });
        let moment = if is_deposit { self.time.stamp(now) } else { self.time.after() };
        if let Some(pending) = self.requests.get_mut(&id) {
            if let Work::Read { level: Level::Session, bounds, .. }
            | Work::Scan { level: Level::Session, bounds, .. } = &mut pending.work
            {
                bounds.at_least = bounds.at_least.max(seen);
                bounds.deposits = deposits;
            }
            match &mut pending.work {
                Work::Deposit { moment: stamp, .. } => *stamp = moment,
                Work::Write { after, .. } => *after = moment,
                _ => {}
            }
            pending.group = group;
            if !is_placed {
                pending.floor = floor;
            }
            // What a Stage::Queued write waits for is its group's to say; see below.
            pending.stage = Stage::Queued;
        }
        match group {
            Some(group) if is_write => {
                if let Some(state) = self.groups.get_mut(&group) {
                    state.queue.push_back(id);
                }
                self.stamp_queued(now, group);
            }
            _ => self.begin(now, id),
        }
    }

    /// Stamps as many waiting writes as the session allows, and sends them; opens the session if
    /// it is closed.
    pub(super) fn stamp_queued(&mut self, now: Duration, group: GroupId) {
        loop {
            let Some(state) = self.groups.get_mut(&group) else { return };
            let Some(&id) = state.queue.front() else { return };
            if state.session.is_closed() {
                return self.open_session(now, group, id);
            }
            let Some(new) = state.session.stamp() else { return };
            state.queue.pop_front();
            if let Some(pending) = self.requests.get_mut(&id)
                && let Work::Write { stamp, .. } = &mut pending.work
            {
                *stamp = Some(new);
            }
            self.begin(now, id);
        }
    }

    /// Opens a session; `id` is the write that needs it first.
    fn open_session(&mut self, now: Duration, group: GroupId, id: u64) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        let session = state.session.id();
        state.session.opening();
        let deadline = self.requests.get(&id).map_or(now, |pending| pending.deadline);
        let open = self.insert(now, Work::Open { session }, deadline, None);
        if let Some(pending) = self.requests.get_mut(&open) {
            pending.group = Some(group);
        }
        if let Some(state) = self.groups.get_mut(&group) {
            state.opening = Some(open);
        }
        self.begin(now, open);
    }

    /// The shard's answer about a session, or that there is none.
    pub(super) fn session_answered(
        &mut self,
        now: Duration,
        group: GroupId,
        session: SessionId,
        outcome: Outcome,
    ) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        match outcome {
            Ok(_) => state.session.opened(session),
            Err(error) => {
                state.session.not_opened(session);
                // Nobody can write without a session, so what stands in its way stands in theirs.
                // At a deadline it stands only in the way of those whose deadline it is.
                let queued: Vec<u64> = state.queue.iter().copied().collect();
                for id in queued {
                    let Some(pending) = self.requests.get_mut(&id) else { continue };
                    if !error.is_retryable() || pending.deadline <= now {
                        self.finish(now, id, Err(error.clone()));
                    } else if let Error::Unavailable(why) = &error {
                        pending.why = Some(why.clone());
                    }
                }
            }
        }
        self.stamp_queued(now, group);
    }

    /// A request is ready to be sent for the first time.
    fn begin(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        pending.stage = Stage::Parked { not_before: now };
        self.parked.insert(id);
        if pending.waits_for_primary()
            && let Some(group) = pending.group.and_then(|group| self.groups.get_mut(&group))
        {
            group.wait(now);
        }
        self.route(now, id);
    }

    /// Sends a request to whom it should be sent now, or parks it.
    pub(super) fn route(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get(&id) else { return };
        if let Stage::Parked { not_before } = pending.stage
            && not_before > now
        {
            return;
        }
        if !matches!(pending.stage, Stage::Parked { .. } | Stage::Sent(_)) {
            return;
        }
        let group = pending.group.and_then(|group| self.groups.get(&group));
        let target = match pending.work.whom() {
            Whom::Node(node) => Some(node),
            Whom::Primary => match (&pending.work, group) {
                (Work::Read { level: Level::Strong, .. }, Some(group)) => {
                    self.detour(now, group).or(group.primary)
                }
                _ => group.and_then(|group| group.primary),
            },
            Whom::Replica => {
                let passed = &pending.passed;
                let replica = group.and_then(|group| self.choose(now, group, passed));
                let reached = replica.filter(|&node| self.is_usable(now, node));
                match pending.work {
                    Work::Deposit { .. } => reached.or(self.anybody(now, passed)).or(replica),
                    // Without a replica there are those that keep a write of this client.
                    Work::Read { level: Level::Eventual | Level::Session, .. } => {
                        let keeper = group.and_then(|group| self.keeper(now, group, passed));
                        reached.or(keeper).or(replica)
                    }
                    _ => replica,
                }
            }
        };
        match target {
            Some(node) if self.peers.get(&node).is_some_and(|peer| peer.up.is_some()) => {
                self.send(now, id, node);
            }
            Some(node) => {
                let others = match (pending.work.whom(), group) {
                    (Whom::Replica, Some(group)) => group.replicas.clone(),
                    _ => Vec::new(),
                };
                self.park(now, id, now);
                self.dial(now, node);
                for other in others.into_iter().take(timing::WARM_MAX) {
                    self.dial(now, other);
                }
            }
            None => self.park(now, id, now),
        }
    }

    /// Everything that is parked, and may go by now, is tried again.
    pub(super) fn route_parked(&mut self, now: Duration) {
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        for id in parked {
            self.route(now, id);
        }
    }

    /// A request waits: for something to happen, and at least until `not_before`.
    pub(super) fn park(&mut self, now: Duration, id: u64, not_before: Duration) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if let Stage::Parked { not_before: earlier } = pending.stage {
            self.pauses.remove(&(earlier, id));
        }
        pending.stage = Stage::Parked { not_before };
        self.parked.insert(id);
        if not_before > now {
            self.pauses.insert((not_before, id));
        }
    }

    /// Sends a request to a node that is connected. If that node has it already, its answer is
    /// waited for.
    fn send(&mut self, now: Duration, id: u64, node: NodeId) {
        let asks = self.asks(id, node);
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if let Stage::Parked { not_before } = pending.stage {
            self.parked.remove(&id);
            self.pauses.remove(&(not_before, id));
        }
        pending.stage = Stage::Sent(node);
        if pending.attempts.contains(&node) {
            return;
        }
        let group = pending.group.unwrap_or(GroupId::CONTROL);
        let primary = self.groups.get(&group).and_then(|group| group.primary);
        let detour = pending.work.whom() == Whom::Primary && primary != Some(node);
        let again = pending.may_have_effect();
        let Some(message) = pending.work.message(group, detour, again) else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(generation) = peer.up else { return };
        pending.attempts.push(node);
        pending.sent = now;
        peer.sent(now, asks);
        let mut bulk =
            pending.work.bytes() > BULK_BYTES || matches!(pending.work, Work::Scan { .. });
        if let Work::Read { key, .. } = &pending.work {
            let hash = key_hash(key);
            bulk |= self.large[hash as usize % self.large.len()] == hash;
        }
        let (id, deadline) = (pending.work.attempt(id), pending.deadline);
        let sending = Sending { node, generation, id, deadline, message, bulk };
        self.effects.push_back(Effect::Send(sending));
    }

    /// Time that a replica may take to ask the primary for its answer, or if it is the primary, the
    /// nearest of the others. How far they are from it is not known here: it is taken to be as far
    /// as they are from here.
    fn asks(&self, id: u64, node: NodeId) -> Duration {
        let pending = self.requests.get(&id).filter(|pending| pending.work.may_ask_on());
        let group = pending.and_then(|pending| self.groups.get(&pending.group?));
        let Some(group) = group else { return Duration::ZERO };
        let time = |node: &NodeId| self.peers.get(node).map(Peer::there_and_to_a_majority);
        let asked = match group.primary.filter(|&primary| primary != node) {
            Some(primary) => time(&primary),
            None => group.replicas.iter().filter(|&&other| other != node).filter_map(time).min(),
        };
        asked.unwrap_or_default()
    }

    /// Connects to a node, unless that is under way or it is too early to try again.
    pub(super) fn dial(&mut self, now: Duration, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.dialing.is_some() || peer.retry_at > now {
            return;
        }
        peer.generation += 1;
        peer.dialing = Some(peer.generation);
        let (generation, address) = (peer.generation, peer.address);
        self.effects.push_back(Effect::Connect { node, generation, address });
    }

    /// Connects again where that failed, and to whom may be needed.
    pub(super) fn redial(&mut self, now: Duration) {
        let missing: Vec<NodeId> = self
            .peers
            .iter()
            .take(timing::WARM_MAX)
            .filter(|(_, peer)| peer.up.is_none() && peer.failures > 0)
            .map(|(&node, _)| node)
            .collect();
        for node in missing {
            self.dial(now, node);
        }
    }
}
