//! Answers: what each means for its request, and for the suspicion against a primary.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision};
use dkv_wire::message::{
    Answer, LeaseAction, Level, PartReceipt, Receipt, Refusal, Reply, RequestBody,
};
use dkv_wire::network::key_hash;

use super::request::{Pending, request_of};
use super::route::BULK_THRESHOLD_BYTES;
use super::{RequestKind, Router, Stage, Target};

/// Keys with large values that are remembered.
pub(super) const LARGE_KEYS: usize = 1024;

impl<W> Pending<W> {
    /// Returns whether this is a question of the router's own to a node.
    pub(super) fn is_probe(&self) -> bool {
        self.waiter.is_none() && matches!(self.kind, RequestKind::Direct { .. })
    }

    /// Returns whether a strong answer shows a state older than what this client had seen when it
    /// asked. If so, the shard has lost data, or an older copy of it answers.
    fn is_regression(&self, answer: &Answer) -> bool {
        let Some(receipt) = receipt(answer).filter(|receipt| receipt.pending.is_none()) else {
            return false;
        };
        let tells_latest = match answer {
            // A read at a revision is of the past.
            Answer::VersionAt(..) | Answer::Versions(..) => false,
            Answer::Page(..) if matches!(self.kind, RequestKind::ScanAt { .. }) => false,
            // For a key that exists, the receipt has the key's revision and not the shard's.
            Answer::Value(_, stored) | Answer::ValueEverywhere(_, stored, _) => stored.is_none(),
            _ => true,
        };
        let is_strong = matches!(receipt.level, Level::Strong | Level::All);
        is_strong && tells_latest && receipt.revision < self.revision_floor
    }

    /// Returns whether an answer is of the kind that this request asks for.
    fn matches_request(&self, answer: &Answer) -> bool {
        match (&self.kind, answer) {
            (RequestKind::Read { level, .. }, Answer::Value(..)) => *level != Level::All,
            (RequestKind::Read { level, .. }, Answer::ValueEverywhere(..)) => *level == Level::All,
            (RequestKind::Write { everywhere, .. }, Answer::Written { .. }) => !everywhere,
            (RequestKind::Write { everywhere, .. }, Answer::WrittenEverywhere { .. }) => {
                *everywhere
            }
            (
                RequestKind::Scan { .. } | RequestKind::Locate { .. } | RequestKind::ScanAt { .. },
                Answer::Page(..),
            )
            | (RequestKind::ReadAt { .. }, Answer::VersionAt(..))
            | (RequestKind::History { .. }, Answer::Versions(..))
            | (RequestKind::Cut { .. }, Answer::Cut(..))
            | (RequestKind::Compact { .. }, Answer::Compacted { .. })
            | (RequestKind::Range { .. }, Answer::Ranged(..))
            | (RequestKind::Deposit { .. }, Answer::Written { .. })
            | (
                RequestKind::Transact { .. },
                Answer::Transacted { .. } | Answer::TransactedOver { .. },
            )
            | (RequestKind::Open { .. }, Answer::Done) => true,
            (RequestKind::Lease { action, .. }, answer) => match action {
                LeaseAction::Grant { .. } | LeaseAction::GrantTo { .. } => {
                    matches!(answer, Answer::Granted(_))
                }
                LeaseAction::Revoke => matches!(answer, Answer::Revoked { .. }),
            },
            (RequestKind::Ask { body, .. }, answer) => match body {
                RequestBody::KeepAlive { .. } => matches!(answer, Answer::KeptAlive { .. }),
                RequestBody::Leases { .. } => matches!(answer, Answer::Leases { .. }),
                RequestBody::LeaseInfo { .. } => matches!(answer, Answer::Lease { .. }),
                RequestBody::KeyTtl { .. } => matches!(answer, Answer::KeyExpiry(..)),
                _ => false,
            },
            (RequestKind::Control(body) | RequestKind::Direct { body, .. }, answer) => match body {
                RequestBody::View => matches!(answer, Answer::View(_)),
                RequestBody::Status => matches!(answer, Answer::Status(_)),
                RequestBody::Placement { .. } => matches!(answer, Answer::Placement(_)),
                RequestBody::Keyspaces => matches!(answer, Answer::Keyspaces(_)),
                RequestBody::Log(_) => matches!(answer, Answer::Log(_)),
                RequestBody::Books { .. } => matches!(answer, Answer::Books(_)),
                RequestBody::Diagnose => matches!(answer, Answer::Diagnosis(_)),
                RequestBody::Policies => matches!(answer, Answer::Policies(_)),
                RequestBody::Read { .. } => matches!(answer, Answer::Value(..)),
                RequestBody::Scan { .. } => matches!(answer, Answer::Page(..)),
                RequestBody::ChangePolicy(_)
                | RequestBody::Revoke(_)
                | RequestBody::ExpelNode(_) => {
                    matches!(answer, Answer::Done | Answer::NotEverywhere(_))
                }
                _ => matches!(answer, Answer::Done),
            },
            _ => false,
        }
    }
}

impl<W> Router<W> {
    /// Handles a node's reply that came over its connection of this generation.
    pub(crate) fn handle_reply(
        &mut self,
        now: Duration,
        node: NodeId,
        generation: u64,
        reply: Reply,
    ) {
        let current = self.peers.get_mut(&node).is_some_and(|peer| {
            let current = peer.connection == Some(generation);
            if current {
                peer.silent_since = now;
            }
            current
        });
        // It is common that the request has ended: another attempt was faster, or the caller has
        // dropped its future.
        let id = request_of(reply.id);
        let Some(pending) = self.requests.get_mut(&id) else { return };
        let sent_here = pending.attempts.iter().position(|&attempt| attempt == node);
        // The node was never asked.
        if (sent_here.is_none() && !pending.in_doubt) || pending.kind.attempt(id) != reply.id {
            return;
        }
        match reply.result {
            Ok(answer) if pending.matches_request(&answer) && !pending.is_regression(&answer) => {
                // An answer counts even over an old connection. A refusal does not: it would speak
                // of an attempt that is already in doubt.
                self.handle_answer(now, node, id, answer);
            }
            result => {
                let (true, Some(index)) = (current, sent_here) else { return };
                pending.attempts.swap_remove(index);
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.outstanding -= 1;
                }
                let refusal = match result {
                    Err(refusal) => refusal,
                    Ok(answer) if pending.is_regression(&answer) => {
                        let at = receipt(&answer).map_or(Revision(0), |receipt| receipt.revision);
                        let why = format!(
                            "its answer is of revision {at}, and this client has seen revision {}: \
                             it may serve an older copy of the data",
                            pending.revision_floor
                        );
                        match pending.kind.has_effect() {
                            true => Refusal::Unknown(why),
                            false => Refusal::Unavailable(why),
                        }
                    }
                    Ok(_) => Refusal::Unknown("unexpected answer".into()),
                };
                self.handle_refusal(now, node, id, refusal);
            }
        }
    }

    fn handle_answer(&mut self, now: Duration, node: NodeId, id: u64, answer: Answer) {
        let Some(pending) = self.requests.get(&id) else { return };
        let strong = matches!(pending.kind, RequestKind::Read { level: Level::Strong, .. });
        // The caller sees nothing of the page of a replica that is only looked for.
        let shows_keys = !matches!(pending.kind, RequestKind::Locate { .. });
        let alone = !strong && !matches!(pending.kind.target(), Target::Primary);
        if pending.stage == Stage::Sent(node)
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.measured(now.saturating_sub(pending.sent), alone);
        }
        let primary = pending.kind.target() == Target::Primary;
        if let (true, Some(group)) = (primary, pending.group.and_then(|g| self.groups.get_mut(&g)))
        {
            group.silent_since = now;
            group.redirects = 0;
            if group.primary == Some(node) {
                group.suspected = false;
                if !group.confirmed {
                    group.confirmed = true;
                    self.warm_up(now);
                }
            }
        }
        if let Some(receipt) = receipt(&answer).filter(|_| shows_keys) {
            self.note_receipt(&receipt);
        }
        if let Answer::TransactedOver { parts, .. } = &answer {
            self.note_parts(parts);
        }
        self.note_value_size(id, &answer);
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
            self.handle_node_view(now, node, *view);
        }
    }

    /// Records that a watch has shown everything in a shard through a revision.
    pub(crate) fn note_watched(&mut self, shard: GroupId, through: Revision) {
        if let Some(group) = self.groups.get_mut(&shard) {
            group.seen = group.seen.max(through);
        }
    }

    /// Records what an answer has shown, so that this session never falls behind it.
    pub(super) fn note_receipt(&mut self, receipt: &Receipt) {
        let Some(group) = self.groups.get_mut(&receipt.shard) else { return };
        group.seen = group.seen.max(receipt.revision);
        if let Some(number) = receipt.pending {
            let last = group.deposits.entry(receipt.node).or_default();
            *last = number.max(*last);
        }
        self.clock.observe(receipt.stamp, receipt.pending.is_some());
    }

    /// Records what a transaction will have shown in the other shards once they learn of it.
    fn note_parts(&mut self, parts: &[PartReceipt]) {
        for PartReceipt { shard, not_before } in parts {
            if let Some(group) = self.groups.get_mut(shard) {
                group.promised = group.promised.max(*not_before);
            }
        }
    }

    /// Remembers whether a key's value is large, so that its next read does not delay others.
    fn note_value_size(&mut self, id: u64, answer: &Answer) {
        let Some(pending) = self.requests.get(&id) else { return };
        let (Some(key), bytes) = (
            pending.kind.key(),
            match answer {
                Answer::Value(_, stored) | Answer::ValueEverywhere(_, stored, _) => {
                    stored.as_ref().map_or(0, |stored| stored.value.len())
                }
                // Those of the past say little about the next read.
                Answer::VersionAt(..) | Answer::Versions(..) => return,
                _ => pending.kind.bytes(),
            },
        ) else {
            return;
        };
        let hash = key_hash(key);
        let place = hash as usize % self.large_keys.len();
        if bytes > BULK_THRESHOLD_BYTES {
            self.large_keys[place] = hash;
        } else if self.large_keys[place] == hash {
            self.large_keys[place] = 0;
        }
    }
}

/// Returns the receipt of an answer that shows or changes keys.
fn receipt(answer: &Answer) -> Option<Receipt> {
    match answer {
        Answer::Value(receipt, _)
        | Answer::ValueEverywhere(receipt, ..)
        | Answer::Page(receipt, _)
        | Answer::Written { receipt, .. }
        | Answer::WrittenEverywhere { receipt, .. }
        | Answer::VersionAt(receipt, _)
        | Answer::Versions(receipt, _)
        | Answer::Cut(receipt, _)
        | Answer::Transacted { receipt, .. }
        | Answer::TransactedOver { receipt, .. }
        | Answer::Granted(receipt)
        | Answer::Revoked { receipt, .. }
        | Answer::KeptAlive { receipt, .. }
        | Answer::Leases { receipt, .. }
        | Answer::Lease { receipt, .. }
        | Answer::KeyExpiry(receipt, _)
        | Answer::Ranged(receipt, _)
        | Answer::Compacted { receipt, .. } => Some(*receipt),
        Answer::View(_)
        | Answer::Status(_)
        | Answer::Committed { .. }
        | Answer::Reached { .. }
        | Answer::Done
        | Answer::Departed { .. }
        | Answer::Placement(_)
        | Answer::Keyspaces(_)
        | Answer::Member(_)
        | Answer::Remainder(_)
        | Answer::Prepared(_)
        | Answer::Log(_)
        | Answer::Diagnosis(_)
        | Answer::Books(_)
        | Answer::Policies(_)
        | Answer::NotEverywhere(_)
        | Answer::Resolved(_) => None,
    }
}
