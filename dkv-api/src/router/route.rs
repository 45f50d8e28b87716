//! Routing: from a request to the node that can serve it.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, KeyspaceId, NodeId, Revision, SessionId};
use dkv_wire::message::Level;
use dkv_wire::network::{NetworkView, key_hash};

use super::dropped::dropped;
use super::peer::Peer;
use super::{Effect, Outcome, OutgoingRequest, RequestKind, Router, Stage, Target, timing};
use crate::error::Error;

/// Requests of more bytes go over the stream for large ones.
pub(super) const BULK_THRESHOLD_BYTES: usize = 64 * 1024;

impl<W> Router<W> {
    /// Finds the group of a request that has none yet, and sends the request on.
    pub(super) fn assign_group(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get(&id) else { return };
        let mut over = Vec::new();
        if self.is_of_dropped(pending) {
            return self.finish(now, id, Err(dropped()));
        }
        let group = match (&pending.kind, pending.group) {
            (_, Some(group)) => Some(group),
            (RequestKind::Direct { .. }, None) => None,
            (kind, None) if self.view.is_some() && kind.shard().is_some() => kind.shard(),
            (kind, None) => {
                let Some(view) = &self.view else { return self.request_view(now) };
                match kind.key() {
                    None if let RequestKind::Transact { keys, ranges, .. } = kind => {
                        match shards_of_all(view, pending.keyspace, keys, *ranges) {
                            Ok(None) => return self.request_view(now),
                            Ok(Some((home, shards))) => {
                                over = shards;
                                Some(home)
                            }
                            Err(error) => return self.finish(now, id, Err(error)),
                        }
                    }
                    None => Some(GroupId::CONTROL),
                    Some(key) => match view.shard_of(pending.keyspace, key) {
                        Some(shard) => Some(shard.group),
                        None => return self.request_view(now),
                    },
                }
            }
        };
        let limit = self.value_bytes_max();
        if let RequestKind::Write { value: Some(value), .. }
        | RequestKind::Deposit { value: Some(value), .. } = &pending.kind
            && value.len() > limit
        {
            let (bytes, limit) = (value.len() as u64, limit as u64);
            return self.finish(
                now,
                id,
                Err(Error::TooLarge { what: "value".into(), bytes, limit }),
            );
        }
        if let RequestKind::Transact { body, .. } = &pending.kind
            && body.len() > limit + limit / 2
        {
            let (bytes, limit) = (body.len() as u64, (limit + limit / 2) as u64);
            let what = "transaction".into();
            return self.finish(now, id, Err(Error::TooLarge { what, bytes, limit }));
        }
        let is_write = pending.kind.write_id().is_some();
        let is_placed = pending.group.is_some();
        self.unrouted.remove(&id);
        let known = group.and_then(|group| self.groups.get(&group));
        let revision_floor = known.map_or(Revision(0), |group| group.seen);
        let (seen, deposits) = match (&pending.kind, known) {
            (
                RequestKind::Read { level: Level::Session, .. }
                | RequestKind::Scan { level: Level::Session, .. }
                | RequestKind::Range { level: Level::Session, .. },
                Some(group),
            ) => (
                group.seen.max(group.promised),
                group.deposits.iter().map(|(node, last)| (*node, *last)).collect(),
            ),
            _ => Default::default(),
        };
        let is_deposit = matches!(pending.kind, RequestKind::Deposit { .. });
        let stamp = if is_deposit { self.clock.stamp(now) } else { self.clock.latest_eventual() };
        if let Some(pending) = self.requests.get_mut(&id) {
            if let RequestKind::Read { level: Level::Session, bounds, .. }
            | RequestKind::Scan { level: Level::Session, bounds, .. }
            | RequestKind::Range { level: Level::Session, bounds, .. } = &mut pending.kind
            {
                bounds.at_least = bounds.at_least.max(seen);
                bounds.deposits = deposits;
            }
            match &mut pending.kind {
                RequestKind::Deposit { stamp: own, .. } => *own = stamp,
                RequestKind::Write { after, .. } | RequestKind::Transact { after, .. } => {
                    *after = stamp;
                }
                _ => {}
            }
            if let RequestKind::Transact { shards, .. } = &mut pending.kind
                && !is_placed
            {
                *shards = over;
            }
            pending.group = group;
            if !is_placed {
                pending.revision_floor = revision_floor;
            }
            // The group decides what a queued write waits for; see below.
            pending.stage = Stage::Queued;
        }
        match group {
            Some(group) if is_write => {
                if let Some(state) = self.groups.get_mut(&group) {
                    state.queue.push_back(id);
                }
                self.admit_queued_writes(now, group);
            }
            _ => self.start(now, id),
        }
    }

    /// Gives as many queued writes as the session allows their write ids, and sends them. Opens the
    /// session if it is closed.
    pub(super) fn admit_queued_writes(&mut self, now: Duration, group: GroupId) {
        loop {
            let Some(state) = self.groups.get_mut(&group) else { return };
            let Some(&id) = state.queue.front() else { return };
            if state.session.is_closed() {
                return self.open_session(now, group, id);
            }
            let Some(new) = state.session.next_write_id() else { return };
            state.queue.pop_front();
            if let Some(pending) = self.requests.get_mut(&id)
                && let Some(write_id) = pending.kind.write_id_mut()
            {
                *write_id = Some(new);
            }
            self.start(now, id);
        }
    }

    /// Opens a session; `id` is the write that needs it first.
    fn open_session(&mut self, now: Duration, group: GroupId, id: u64) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        let session = state.session.id();
        state.session.opening();
        let deadline = self.requests.get(&id).map_or(now, |pending| pending.deadline);
        let open = self.insert(now, RequestKind::Open { session }, deadline, None);
        if let Some(pending) = self.requests.get_mut(&open) {
            pending.group = Some(group);
        }
        if let Some(state) = self.groups.get_mut(&group) {
            state.opening = Some(open);
        }
        self.start(now, open);
    }

    /// Handles the outcome of opening a session.
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
                // Without a session no write can proceed, so this error is theirs too. A timeout
                // concerns only the writes whose deadline has passed.
                let queued: Vec<u64> = state.queue.iter().copied().collect();
                for id in queued {
                    let Some(pending) = self.requests.get_mut(&id) else { continue };
                    if !error.is_retryable() || pending.deadline <= now {
                        self.finish(now, id, Err(error.clone()));
                    } else if let Error::Unavailable(why) = &error {
                        pending.last_error = Some(why.clone());
                    }
                }
            }
        }
        self.admit_queued_writes(now, group);
    }

    /// Sends a request for the first time.
    fn start(&mut self, now: Duration, id: u64) {
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

    /// Sends a request to the node that should have it now, or parks it.
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
        let target = match pending.kind.target() {
            Target::Node(node) => Some(node),
            Target::Primary => match (&pending.kind, group) {
                (RequestKind::Read { level: Level::Strong, .. }, Some(group)) => {
                    self.detour(now, group).or(group.primary)
                }
                _ => group.and_then(|group| group.primary),
            },
            Target::Replica => {
                let declined = &pending.declined;
                let replica = group.and_then(|group| self.nearest_replica(now, group, declined));
                let reached = replica.filter(|&node| self.is_usable(now, node));
                match pending.kind {
                    RequestKind::Deposit { .. } => {
                        reached.or(self.nearest_node(now, declined)).or(replica)
                    }
                    // If no replica is reachable, a node that holds a write of this client will do.
                    RequestKind::Read { level: Level::Eventual | Level::Session, .. } => {
                        let deposit_holder =
                            group.and_then(|group| self.deposit_holder(now, group, declined));
                        reached.or(deposit_holder).or(replica)
                    }
                    _ => replica,
                }
            }
        };
        match target {
            Some(node) if self.peers.get(&node).is_some_and(|peer| peer.connection.is_some()) => {
                self.send(now, id, node);
            }
            Some(node) => {
                let others = match (pending.kind.target(), group) {
                    (Target::Replica, Some(group)) => group.replicas.clone(),
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

    /// Tries all parked requests again whose back-off is over.
    pub(super) fn route_parked(&mut self, now: Duration) {
        let parked: Vec<u64> = self.parked.iter().copied().collect();
        for id in parked {
            self.route(now, id);
        }
    }

    /// Parks a request until something changes, and at least until `not_before`.
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

    /// Sends a request to a connected node, unless that node has it already.
    fn send(&mut self, now: Duration, id: u64, node: NodeId) {
        let forwarding_time = self.expected_forwarding_time(id, node);
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
        let detour = pending.kind.target() == Target::Primary && primary != Some(node);
        let again = pending.may_have_effect();
        let Some(payload) = pending.kind.payload(group, detour, again) else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(generation) = peer.connection else { return };
        pending.attempts.push(node);
        pending.sent = now;
        peer.sent(now, forwarding_time);
        let mut bulk = pending.kind.bytes() > BULK_THRESHOLD_BYTES
            || matches!(pending.kind, RequestKind::Scan { .. } | RequestKind::ScanAt { .. });
        if let RequestKind::Read { key, .. } | RequestKind::ReadAt { key, .. } = &pending.kind {
            let hash = key_hash(key);
            bulk |= self.large_keys[hash as usize % self.large_keys.len()] == hash;
        }
        let (id, deadline, user) = (pending.kind.attempt(id), pending.deadline, pending.user);
        let outgoing = OutgoingRequest { node, generation, id, deadline, user, payload, bulk };
        self.effects.push_back(Effect::Send(outgoing));
    }

    /// Returns the time that a replica may need to ask the primary; if it is the primary, to ask
    /// the nearest other replica. The distance between nodes is unknown here, so the distance from
    /// here stands in for it.
    fn expected_forwarding_time(&self, id: u64, node: NodeId) -> Duration {
        let pending = self.requests.get(&id).filter(|pending| pending.kind.may_be_forwarded());
        let group = pending.and_then(|pending| self.groups.get(&pending.group?));
        let Some(group) = group else { return Duration::ZERO };
        let time = |node: &NodeId| self.peers.get(node).map(Peer::quorum_time);
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

    /// Reconnects where connecting failed.
    pub(super) fn redial(&mut self, now: Duration) {
        let missing: Vec<NodeId> = self
            .peers
            .iter()
            .take(timing::WARM_MAX)
            .filter(|(_, peer)| peer.connection.is_none() && peer.failures > 0)
            .map(|(&node, _)| node)
            .collect();
        for node in missing {
            self.dial(now, node);
        }
    }
}

/// The shard that decides a transaction, and the shards of all its keys if they are several.
type ShardsOfAll = (GroupId, Vec<GroupId>);

/// Returns the shards of a transaction with these keys, and with `ranges` of keys or without;
/// `None` if the view has no shards yet.
///
/// # Errors
/// [`Error::SeveralShards`] if it has ranges and the network several shards.
fn shards_of_all(
    view: &NetworkView,
    keyspace: KeyspaceId,
    keys: &[Bytes],
    ranges: bool,
) -> Result<Option<ShardsOfAll>, Error> {
    let all = view.shards_of(keyspace);
    if ranges && all.len() > 1 {
        return Err(Error::SeveralShards);
    }
    let shard_of = |key: &Bytes| view.shard_of(keyspace, key).map(|shard| shard.group);
    let Some(shards) = keys.iter().map(shard_of).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let Some(home) = shards.first().copied() else {
        return Ok(all.first().map(|shard| (shard.group, Vec::new())));
    };
    let is_one = ranges || shards.iter().all(|shard| *shard == home);
    Ok(Some((home, if is_one { Vec::new() } else { shards })))
}
