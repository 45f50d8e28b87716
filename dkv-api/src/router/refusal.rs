//! Refusals: whether to ask another node, wait, or give up.

use std::time::Duration;

use dkv_base::id::{NodeId, Number, Revision, Stamp};
use dkv_wire::message::{Refusal, RequestBody};

use super::dropped::dropped;
use super::{RequestKind, Router, Stage, Target, timing};
use crate::error::Error;

impl<W> Router<W> {
    /// Handles a refusal. Unless noted, the refused attempt had no effect.
    pub(super) fn handle_refusal(
        &mut self,
        now: Duration,
        node: NodeId,
        id: u64,
        refusal: Refusal,
    ) {
        let is_ahead = matches!(&refusal, Refusal::NotYet { asked, .. }
            if self.is_ahead(id, *asked));
        let Some(pending) = self.requests.get_mut(&id) else { return };
        let is_current = pending.stage == Stage::Sent(node);
        let target = pending.kind.target();
        match refusal {
            Refusal::NotPrimary { primary } if target == Target::Primary => {
                self.handle_redirect(now, node, id, primary);
            }
            Refusal::Conflict { receipt, current } => {
                self.note_receipt(&receipt);
                self.finish(now, id, Err(Error::Conflict { current, receipt }));
            }
            // Like a conflict, it is the outcome of the execution, also for a repetition.
            Refusal::Unfit { operation, why }
                if matches!(pending.kind, RequestKind::Transact { .. }) =>
            {
                self.finish(now, id, Err(Error::Unfit { operation, why }));
            }
            // So are these of a change of a lease, and of a put.
            Refusal::NoLease { lease } => self.finish(now, id, Err(Error::NoLease { lease })),
            Refusal::LeaseExists { lease } => {
                self.finish(now, id, Err(Error::LeaseExists { lease }));
            }
            Refusal::TooManyLeases { own, limit } => {
                self.finish(now, id, Err(Error::TooManyLeases { own, limit }));
            }
            Refusal::SessionExpired if pending.kind.write_id().is_some() => {
                self.handle_session_expired(now, id);
            }
            // An earlier attempt opened it, and it has ended since. The next one has another id.
            Refusal::SessionExpired if matches!(pending.kind, RequestKind::Open { .. }) => {
                if let (RequestKind::Open { session }, Some(group)) = (&pending.kind, pending.group)
                    && let Some(group) = self.groups.get_mut(&group)
                {
                    group.session.expired(*session);
                }
                let why = "the session ended before its opening was answered".to_owned();
                self.finish(now, id, Err(Error::Unavailable(why)));
            }
            Refusal::Invalid(why) => self.finish_refused(now, id, Error::Invalid(why)),
            Refusal::TooLarge { what, bytes, limit } => {
                self.finish_refused(now, id, Error::TooLarge { what, bytes, limit });
            }
            Refusal::Denied(why) => self.finish_refused(now, id, Error::Denied(why)),
            Refusal::Overloaded { retry_after_ms } => {
                let told = Duration::from_millis(retry_after_ms.into());
                let pause = timing::jittered(told, self.jitter ^ id, pending.retries);
                self.back_off(now, id, node, refusal.to_string(), Some(pause));
            }
            Refusal::Limited { retry_after_ms, .. } => {
                let told = Duration::from_millis(retry_after_ms.into());
                // A gateway tells its caller, who knows better whether to wait. There is no use in
                // waiting for longer than the caller does.
                if pending.user.is_some() || now + told >= pending.deadline {
                    let why = refusal.to_string();
                    return self.finish_refused(now, id, Error::Limited { why, retry_after: told });
                }
                let pause = timing::jittered(told, self.jitter ^ id, pending.retries);
                self.back_off(now, id, node, refusal.to_string(), Some(pause.max(told)));
            }
            Refusal::Clock { now: stamp }
                if matches!(pending.kind, RequestKind::Deposit { .. }) =>
            {
                self.handle_clock(now, node, id, stamp);
            }
            Refusal::Compacted { floor } => {
                self.finish_refused(now, id, Error::Compacted { floor });
            }
            Refusal::NotYet { asked, latest } if is_ahead => {
                self.finish_refused(now, id, Error::NotYet { asked, latest });
            }
            Refusal::OverQuota { used, limit } if !pending.may_have_effect() => {
                self.finish(now, id, Err(Error::OverQuota { used, limit }));
            }
            Refusal::Dropped { .. } => {
                self.finish(now, id, Err(dropped()));
                // The view may still have other shards of the keyspace.
                self.probe(now, node);
            }
            Refusal::Lost { node, number } => self.deposit_lost(now, id, node, number),
            // Each attempt keeps the shard from writing for a moment, and may come after a later
            // one.
            Refusal::Unknown(why)
                if matches!(
                    pending.kind,
                    RequestKind::Control(RequestBody::MovePrimary { .. })
                ) =>
            {
                self.finish(now, id, Err(Error::Unknown(why)));
            }
            Refusal::NotPrimary { .. }
            | Refusal::Behind { .. }
            | Refusal::NotYet { .. }
            | Refusal::Unavailable(_)
                if target == Target::Replica =>
            {
                // One that is only behind is a replica, whatever the view says.
                let is_misplaced =
                    matches!(refusal, Refusal::NotPrimary { .. } | Refusal::Unavailable(_));
                self.try_next_replica(now, id, node, refusal.to_string(), is_misplaced);
            }
            other => {
                if matches!(other, Refusal::Unknown(_)) {
                    pending.in_doubt = true;
                }
                if let (true, Some(group)) =
                    (is_current, pending.group.and_then(|group| self.groups.get_mut(&group)))
                {
                    group.suspected = true;
                }
                self.back_off(now, id, node, other.to_string(), None);
            }
        }
    }

    /// Returns whether nothing that this client has seen contradicts that a shard has not reached a
    /// revision. A replica asks the primary before it says so.
    fn is_ahead(&self, id: u64, asked: Revision) -> bool {
        let group = self.requests.get(&id).and_then(|pending| pending.group);
        let group = group.and_then(|group| self.groups.get(&group));
        group.is_some_and(|group| group.seen < asked)
    }

    /// Ends a request with a definite refusal. That this attempt had no effect says nothing about
    /// an earlier one that is open or in doubt.
    pub(super) fn finish_refused(&mut self, now: Duration, id: u64, error: Error) {
        let Some(pending) = self.requests.get(&id) else { return };
        let error = if pending.may_have_effect() {
            Error::Unknown(format!("{error}; an earlier attempt may have had its effect"))
        } else {
            error
        };
        self.finish(now, id, Err(error));
    }

    /// Handles a redirect: the node is not the primary, and may name the node that is.
    fn handle_redirect(&mut self, now: Duration, node: NodeId, id: u64, to: Option<NodeId>) {
        let is_member = |to: &NodeId| self.peers.get(to).is_some_and(|peer| peer.is_member);
        let known = to.filter(|to| *to != node && is_member(to));
        let name = self.describe(node);
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if pending.stage != Stage::Sent(node) {
            // The request has been sent elsewhere since, and that attempt decides.
            return;
        }
        // Keeps an earlier error, which says more than a redirect does.
        pending.last_error.get_or_insert_with(|| format!("{name} is not the primary"));
        let group_id = pending.group;
        self.park(now, id, now);
        let Some(group) = group_id.and_then(|group| self.groups.get_mut(&group)) else { return };
        if group.primary == Some(node) {
            group.redirects += 1;
            group.suspected = true;
            group.confirmed = false;
            group.primary = None;
            // Limits how long two nodes can redirect us to each other.
            let follow = known.filter(|_| group.redirects <= timing::REDIRECTS_MAX);
            if let (Some(to), Some(group)) = (follow, group_id) {
                return self.set_primary(now, group, to);
            }
            if to.is_some() && known.is_none() {
                self.probe(now, node);
            }
        }
        self.route(now, id);
        self.check_health(now);
    }

    /// Sends a request that a replica cannot serve to the next one. Once all reachable replicas
    /// have declined, backs off and starts over; if the last of them may be no replica any more, it
    /// asks who is.
    fn try_next_replica(
        &mut self,
        now: Duration,
        id: u64,
        node: NodeId,
        why: String,
        is_misplaced: bool,
    ) {
        let replicas = self.requests.get(&id).and_then(|pending| {
            let group = self.groups.get(&pending.group?)?;
            // The primary may be known by a redirect only.
            let new = group.primary.filter(|primary| !group.replicas.contains(primary));
            Some(group.replicas.iter().copied().chain(new).collect::<Vec<_>>())
        });
        let described = format!("{}: {why}", self.describe(node));
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if pending.stage != Stage::Sent(node) {
            return;
        }
        pending.declined.push(node);
        pending.last_error = Some(described);
        let declined = pending.declined.clone();
        let mut left = replicas.unwrap_or_default();
        left.retain(|replica| !declined.contains(replica));
        if left.iter().any(|&replica| self.is_usable(now, replica)) {
            self.park(now, id, now);
            return self.route(now, id);
        }
        // No other replica is reachable now: back off, then ask all of them again.
        for replica in left {
            self.dial(now, replica);
        }
        let mut group = None;
        if let Some(pending) = self.requests.get_mut(&id) {
            pending.declined.clear();
            group = pending.group;
        }
        self.back_off(now, id, node, why, None);
        // They may be replicas no more, and nothing else would tell: a group whose primary nobody
        // waits for is never suspected.
        if let Some(group) = group.filter(|_| is_misplaced) {
            self.seek_group(now, group);
        }
    }

    /// Sends a request again after a pause; `pause` overrides the usual back-off.
    fn back_off(
        &mut self,
        now: Duration,
        id: u64,
        node: NodeId,
        why: String,
        pause: Option<Duration>,
    ) {
        let why = format!("{}: {why}", self.describe(node));
        let Some(pending) = self.requests.get_mut(&id) else { return };
        pending.last_error = Some(why.clone());
        if pending.stage != Stage::Sent(node) {
            return;
        }
        if pending.is_probe() || matches!(pending.kind, RequestKind::Direct { .. }) {
            return self.finish(now, id, Err(Error::Unavailable(why)));
        }
        pending.retries += 1;
        let pause = pause.unwrap_or_else(|| {
            timing::doubled(timing::BACKOFF_MIN, pending.retries, timing::BACKOFF_MAX)
        });
        self.park(now, id, now + pause.max(timing::BACKOFF_MIN));
        self.check_health(now);
    }

    /// The shard no longer knows our session, so it did not execute this attempt. If no other
    /// attempt may have been executed either, the write starts over in a new session.
    fn handle_session_expired(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        pending.session_expiries += 1;
        let in_doubt = pending.may_have_effect();
        if in_doubt || pending.session_expiries > timing::SESSION_EXPIRIES_MAX {
            let why = "the shard has forgotten this client's session".to_owned();
            let error = if in_doubt { Error::Unknown(why) } else { Error::Unavailable(why) };
            return self.finish(now, id, Err(error));
        }
        // The request may be parked until another node is connected.
        if let Stage::Parked { not_before } = pending.stage {
            self.parked.remove(&id);
            self.pauses.remove(&(not_before, id));
        }
        pending.stage = Stage::Queued;
        let Some(group_id) = pending.group else { return };
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        group.waiting -= 1;
        group.silent_since = now;
        if let Some(write_id) = pending.kind.write_id_mut()
            && let Some(write_id) = write_id.take()
        {
            group.session.expired(write_id.session);
        }
        group.queue.push_back(id);
        self.admit_queued_writes(now, group_id);
    }

    /// An eventual write needs a new stamp from the clock that a node just reported. If an attempt
    /// with the present stamp may have been accepted, the write has to keep that stamp, and another
    /// node may accept it.
    fn handle_clock(&mut self, now: Duration, node: NodeId, id: u64, stamp: Stamp) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        // The node read its clock about half a round trip ago.
        self.clock.set(now - now.saturating_sub(pending.sent) / 2, stamp);
        pending.retries += 1;
        if pending.may_have_effect() || pending.retries > timing::REDIRECTS_MAX {
            let why = "the clocks are too far apart".into();
            return self.try_next_replica(now, id, node, why, false);
        }
        // No node accepts an attempt without a stamp, so the outcomes of those do not matter.
        pending.in_doubt = false;
        for attempt in pending.attempts.drain(..) {
            if let Some(peer) = self.peers.get_mut(&attempt) {
                peer.outstanding -= 1;
            }
        }
        if let RequestKind::Deposit { stamp, .. } = &mut pending.kind {
            *stamp = self.clock.stamp(now);
        }
        if matches!(pending.stage, Stage::Sent(_)) {
            self.park(now, id, now);
            self.route(now, id);
        }
    }

    /// Eventual writes that the session must show are lost for good. Fails this request with that
    /// news; the session then continues without them.
    fn deposit_lost(&mut self, now: Duration, id: u64, lost: NodeId, number: Number) {
        let group = self.requests.get(&id).and_then(|pending| pending.group);
        if let Some(group) = group.and_then(|group| self.groups.get_mut(&group))
            && group.deposits.get(&lost).is_some_and(|last| *last <= number)
        {
            group.deposits.remove(&lost);
        }
        let why = format!(
            "eventual writes that this session has made or seen were lost: {} was removed before it had \
             delivered them; the session goes on without them",
            self.describe(lost)
        );
        self.finish(now, id, Err(Error::Unavailable(why)));
    }
}
