//! Replies: what each means for the request, and for the belief in who leads.

use std::time::Duration;

use dkv_base::id::{NodeId, Number, Revision, Stamp};
use dkv_wire::message::{Answer, Level, Receipt, Refusal, Reply, RequestBody};
use dkv_wire::network::key_hash;

use super::route::BULK_BYTES;
use super::work::{Pending, request_of};
use super::{Router, Stage, Whom, Work, timing};
use crate::error::Error;

/// Keys with large values that are remembered.
pub(super) const LARGE_KEYS: usize = 1024;

impl<W> Pending<W> {
    /// Whether this is a question of the router's own to a node.
    pub(super) fn is_probe(&self) -> bool {
        self.waiter.is_none() && matches!(self.work, Work::Direct { .. })
    }

    /// Whether an answer, given as a strong one, is of a state before what this client had seen
    /// when it asked. Then the shard has lost something, or an older copy of its data answers.
    fn goes_back(&self, answer: &Answer) -> bool {
        let Some(receipt) = receipt(answer).filter(|receipt| receipt.pending.is_none()) else {
            return false;
        };
        let tells_latest = match answer {
            // Of a key that is there, it is the revision of the key.
            Answer::Value(_, stored) | Answer::ValueEverywhere(_, stored, _) => stored.is_none(),
            _ => true,
        };
        let is_strong = matches!(receipt.level, Level::Strong | Level::All);
        is_strong && tells_latest && receipt.revision < self.floor
    }

    /// Whether an answer is one to this request.
    fn fits(&self, answer: &Answer) -> bool {
        match (&self.work, answer) {
            (Work::Read { level, .. }, Answer::Value(..)) => *level != Level::All,
            (Work::Read { level, .. }, Answer::ValueEverywhere(..)) => *level == Level::All,
            (Work::Write { everywhere, .. }, Answer::Written { .. }) => !everywhere,
            (Work::Write { everywhere, .. }, Answer::WrittenEverywhere { .. }) => *everywhere,
            (Work::Scan { .. }, Answer::Page(..))
            | (Work::Deposit { .. }, Answer::Written { .. })
            | (Work::Open { .. }, Answer::Done) => true,
            (Work::Control(body) | Work::Direct { body, .. }, answer) => match body {
                RequestBody::View => matches!(answer, Answer::View(_)),
                RequestBody::Status => matches!(answer, Answer::Status(_)),
                RequestBody::Placement { .. } => matches!(answer, Answer::Placement(_)),
                RequestBody::Read { .. } => matches!(answer, Answer::Value(..)),
                RequestBody::Scan { .. } => matches!(answer, Answer::Page(..)),
                _ => matches!(answer, Answer::Done),
            },
            _ => false,
        }
    }
}

impl<W> Router<W> {
    /// A node's reply, which came over its connection of that number.
    pub(crate) fn handle_reply(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        reply: Reply,
    ) {
        let current = self.peers.get_mut(&node).is_some_and(|peer| {
            let current = peer.up == Some(generation);
            if current {
                peer.quiet_since = now;
            }
            current
        });
        // Nothing is known of the request any more, which is common: another attempt was quicker,
        // or its caller has gone.
        let id = request_of(reply.id);
        let Some(pending) = self.requests.get_mut(&id) else { return };
        let sent_here = pending.attempts.iter().position(|&attempt| attempt == node);
        // Nobody answers what was not asked.
        if (sent_here.is_none() && !pending.doubt) || pending.work.attempt(id) != reply.id {
            return;
        }
        match reply.result {
            Ok(answer) if pending.fits(&answer) && !pending.goes_back(&answer) => {
                // An old connection's answer is as good as any. It is the only thing of it that is
                // listened to: a refusal would speak of an attempt that is in doubt already.
                self.answered(now, node, id, answer);
            }
            result => {
                let (true, Some(index)) = (current, sent_here) else { return };
                pending.attempts.swap_remove(index);
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.outstanding -= 1;
                }
                let refusal = match result {
                    Err(refusal) => refusal,
                    Ok(answer) if pending.goes_back(&answer) => {
                        let at = receipt(&answer).map_or(Revision(0), |receipt| receipt.revision);
                        let why = format!(
                            "its answer is of revision {at}, and this client has seen revision {}: \
                             it may serve an older copy of the data",
                            pending.floor
                        );
                        match pending.work.has_effect() {
                            true => Refusal::Unknown(why),
                            false => Refusal::Unavailable(why),
                        }
                    }
                    Ok(_) => Refusal::Unknown("the answer is to another kind of request".into()),
                };
                self.refused(now, node, id, refusal);
            }
        }
    }

    fn answered(&mut self, now: Duration, node: NodeId, id: u64, answer: Answer) {
        let Some(pending) = self.requests.get(&id) else { return };
        let strong = matches!(pending.work, Work::Read { level: Level::Strong, .. });
        let alone = !strong && !matches!(pending.work.whom(), Whom::Primary);
        if pending.stage == Stage::Sent(node)
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.measured(now.saturating_sub(pending.sent), alone);
        }
        let primary = pending.work.whom() == Whom::Primary;
        if let (true, Some(group)) = (primary, pending.group.and_then(|g| self.groups.get_mut(&g)))
        {
            group.quiet_since = now;
            group.redirects = 0;
            if group.primary == Some(node) {
                group.doubted = false;
                if !group.confirmed {
                    group.confirmed = true;
                    self.warm_up(now);
                }
            }
        }
        if let Some(receipt) = receipt(&answer) {
            self.seen(&receipt);
        }
        self.remember_size(id, &answer);
        let view = match &answer {
            Answer::View(view) => Some(view.clone()),
            _ => None,
        };
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.probe.is_some_and(|(probe, _)| probe == id)
        {
            peer.probe = None;
        }
        self.finish(now, id, Ok(answer));
        if let Some(view) = view {
            self.handle_view_of(now, node, *view);
        }
    }

    /// Whatever was shown to this client, its session does not go back behind.
    fn seen(&mut self, receipt: &Receipt) {
        let Some(group) = self.groups.get_mut(&receipt.shard) else { return };
        group.seen = group.seen.max(receipt.revision);
        if let Some(number) = receipt.pending {
            let last = group.deposits.entry(receipt.node).or_default();
            *last = number.max(*last);
        }
        self.time.seen(receipt.stamp, receipt.pending.is_some());
    }

    /// Eventual writes that the session must show will never be there: the caller is told, and the
    /// session goes on without them.
    fn lost(&mut self, now: Duration, id: u64, lost: NodeId, number: Number) {
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

    /// Keys with large values are remembered, so that their next answer holds up nobody.
    fn remember_size(&mut self, id: u64, answer: &Answer) {
        let Some(pending) = self.requests.get(&id) else { return };
        let (Some(key), bytes) = (
            pending.work.key(),
            match answer {
                Answer::Value(_, stored) | Answer::ValueEverywhere(_, stored, _) => {
                    stored.as_ref().map_or(0, |stored| stored.value.len())
                }
                _ => pending.work.bytes(),
            },
        ) else {
            return;
        };
        let hash = key_hash(key);
        let place = hash as usize % self.large.len();
        if bytes > BULK_BYTES {
            self.large[place] = hash;
        } else if self.large[place] == hash {
            self.large[place] = 0;
        }
    }

    /// An attempt was refused. Except where it is said, it had no effect.
    fn refused(&mut self, now: Duration, node: NodeId, id: u64, refusal: Refusal) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        let is_current = pending.stage == Stage::Sent(node);
        let whom = pending.work.whom();
        match refusal {
            Refusal::NotPrimary { primary } if whom == Whom::Primary => {
                self.redirected(now, node, id, primary);
            }
            Refusal::Conflict { receipt, current } => {
                self.seen(&receipt);
                self.finish(now, id, Err(Error::Conflict { current, receipt }));
            }
            Refusal::SessionExpired if matches!(pending.work, Work::Write { .. }) => {
                self.expired(now, id);
            }
            Refusal::Invalid(why) => self.finish_refused(now, id, Error::Invalid(why)),
            Refusal::TooLarge { what, bytes, limit } => {
                self.finish_refused(now, id, Error::TooLarge { what, bytes, limit });
            }
            Refusal::Denied(why) => self.finish_refused(now, id, Error::Denied(why)),
            Refusal::Overloaded { retry_after_ms } => {
                let told = Duration::from_millis(retry_after_ms.into());
                let pause = timing::jittered(told, self.jitter ^ id, pending.tries);
                self.pause(now, id, node, refusal.to_string(), Some(pause));
            }
            Refusal::Clock { now: stamp } if matches!(pending.work, Work::Deposit { .. }) => {
                self.told_the_time(now, node, id, stamp);
            }
            Refusal::Lost { node, number } => self.lost(now, id, node, number),
            Refusal::NotPrimary { .. } | Refusal::Behind { .. } | Refusal::Unavailable(_)
                if whom == Whom::Replica =>
            {
                self.pass_on(now, id, node, refusal.to_string());
            }
            other => {
                if matches!(other, Refusal::Unknown(_)) {
                    pending.doubt = true;
                }
                if let (true, Some(group)) =
                    (is_current, pending.group.and_then(|group| self.groups.get_mut(&group)))
                {
                    group.doubted = true;
                }
                self.pause(now, id, node, other.to_string(), None);
            }
        }
    }

    /// An eventual write needs another stamp, of a clock that a node has just set. If an attempt
    /// with the one that it has may have been taken, it has to keep that one, and another node may
    /// like it better.
    fn told_the_time(&mut self, now: Duration, node: NodeId, id: u64, stamp: Stamp) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        // It was so when the node answered: about half of the way ago.
        self.time.told(now - now.saturating_sub(pending.sent) / 2, stamp);
        pending.tries += 1;
        if pending.may_have_effect() || pending.tries > timing::REDIRECTS_MAX {
            return self.pass_on(now, id, node, "the clocks are too far apart".into());
        }
        // Attempts without a stamp are nobody's to take: what comes of them is of no interest.
        pending.doubt = false;
        for attempt in pending.attempts.drain(..) {
            if let Some(peer) = self.peers.get_mut(&attempt) {
                peer.outstanding -= 1;
            }
        }
        if let Work::Deposit { moment, .. } = &mut pending.work {
            *moment = self.time.stamp(now);
        }
        if matches!(pending.stage, Stage::Sent(_)) {
            self.park(now, id, now);
            self.route(now, id);
        }
    }

    /// A replica cannot serve a request that another one may: the next one is asked at once, or
    /// once all that can be reached were asked, the first one again after a while.
    fn pass_on(&mut self, now: Duration, id: u64, node: NodeId, why: String) {
        let replicas = self.requests.get(&id).and_then(|pending| {
            let group = self.groups.get(&pending.group?)?;
            Some(group.replicas.clone())
        });
        let described = format!("{}: {why}", self.describe(node));
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if pending.stage != Stage::Sent(node) {
            return;
        }
        pending.passed.push(node);
        pending.why = Some(described);
        let passed = pending.passed.clone();
        let mut left = replicas.unwrap_or_default();
        left.retain(|replica| !passed.contains(replica));
        if left.iter().any(|&replica| self.is_usable(now, replica)) {
            self.park(now, id, now);
            return self.route(now, id);
        }
        // Nobody else can be asked now: all of them again, after a while.
        for replica in left {
            self.dial(now, replica);
        }
        if let Some(pending) = self.requests.get_mut(&id) {
            pending.passed.clear();
        }
        self.pause(now, id, node, why, None);
    }

    /// A definite refusal ends a request. That this attempt had no effect says nothing about an
    /// earlier one that is open or in doubt.
    pub(super) fn finish_refused(&mut self, now: Duration, id: u64, error: Error) {
        let Some(pending) = self.requests.get(&id) else { return };
        let error = if pending.may_have_effect() {
            Error::Unknown(format!("{error}; an earlier attempt may have had its effect"))
        } else {
            error
        };
        self.finish(now, id, Err(error));
    }

    /// A node says that it does not lead, and perhaps who does.
    fn redirected(&mut self, now: Duration, node: NodeId, id: u64, to: Option<NodeId>) {
        let is_member = |to: &NodeId| self.peers.get(to).is_some_and(|peer| peer.is_member);
        let known = to.filter(|to| *to != node && is_member(to));
        let name = self.describe(node);
        let Some(pending) = self.requests.get_mut(&id) else { return };
        if pending.stage != Stage::Sent(node) {
            // It was sent elsewhere since; that is where news of it comes from.
            return;
        }
        // A refusal tells more than that somebody else was to be asked.
        pending.why.get_or_insert_with(|| format!("{name} is not the primary"));
        let (group_id, by_any) = (pending.group, pending.work.whom() == Whom::Replica);
        self.park(now, id, now);
        if by_any && let Some(group) = group_id.and_then(|group| self.groups.get_mut(&group)) {
            // It has no replica any more, or none yet. Where there are some it knows.
            group.replicas.retain(|replica| *replica != node);
            self.probe(now, node);
        }
        let Some(group) = group_id.and_then(|group| self.groups.get_mut(&group)) else { return };
        if group.primary == Some(node) {
            group.redirects += 1;
            group.doubted = true;
            group.confirmed = false;
            group.primary = None;
            // Two nodes that send us to each other must not keep us running between them.
            let follow = known.filter(|_| group.redirects <= timing::REDIRECTS_MAX);
            if let (Some(to), Some(group)) = (follow, group_id) {
                return self.set_primary(now, group, to);
            }
            if to.is_some() && known.is_none() {
                self.probe(now, node);
            }
        }
        self.route(now, id);
        self.attend(now);
    }

    /// The shard has forgotten our session, so this attempt was not executed. If no other may have
    /// been either, the write begins anew in another session.
    fn expired(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get_mut(&id) else { return };
        pending.expiries += 1;
        let doubt = pending.may_have_effect();
        if doubt || pending.expiries > timing::EXPIRIES_MAX {
            let why = "the shard has forgotten this client's session".to_owned();
            let error = if doubt { Error::Unknown(why) } else { Error::Unavailable(why) };
            return self.finish(now, id, Err(error));
        }
        // In case that it waits for a connection to somebody else.
        if let Stage::Parked { not_before } = pending.stage {
            self.parked.remove(&id);
            self.pauses.remove(&(not_before, id));
        }
        pending.stage = Stage::Queued;
        let Some(group_id) = pending.group else { return };
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        group.waiting -= 1;
        group.quiet_since = now;
        if let Work::Write { stamp, .. } = &mut pending.work
            && let Some(stamp) = stamp.take()
        {
            group.session.expired(stamp.session);
        }
        group.queue.push_back(id);
        self.stamp_queued(now, group_id);
    }

    /// A request is to be sent again after a while.
    fn pause(
        &mut self,
        now: Duration,
        id: u64,
        node: NodeId,
        why: String,
        pause: Option<Duration>,
    ) {
        let why = format!("{}: {why}", self.describe(node));
        let Some(pending) = self.requests.get_mut(&id) else { return };
        pending.why = Some(why.clone());
        if pending.stage != Stage::Sent(node) {
            return;
        }
        if pending.is_probe() || matches!(pending.work, Work::Direct { .. }) {
            return self.finish(now, id, Err(Error::Unavailable(why)));
        }
        pending.tries += 1;
        let pause = pause.unwrap_or_else(|| {
            timing::doubled(timing::BACKOFF_MIN, pending.tries, timing::BACKOFF_MAX)
        });
        self.park(now, id, now + pause.max(timing::BACKOFF_MIN));
        self.attend(now);
    }
}

/// What an answer says about itself, if it shows or changes keys.
fn receipt(answer: &Answer) -> Option<Receipt> {
    match answer {
        Answer::Value(receipt, _)
        | Answer::ValueEverywhere(receipt, ..)
        | Answer::Page(receipt, _)
        | Answer::Written { receipt, .. }
        | Answer::WrittenEverywhere { receipt, .. } => Some(*receipt),
        Answer::View(_)
        | Answer::Status(_)
        | Answer::Committed { .. }
        | Answer::Reached { .. }
        | Answer::Done
        | Answer::Departed { .. }
        | Answer::Placement(_)
        | Answer::Member(_)
        | Answer::Remainder(_) => None,
    }
}
