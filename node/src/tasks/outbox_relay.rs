//! Carries eventual writes from an outbox to the primary.
//!
//! One window of writes is under way at a time, in order, on a stream of its own. The shard takes
//! the writes in order and each of them once, even if it arrives twice. Every failure therefore has
//! the same remedy: send the unacknowledged writes again, to the current leader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Number};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Refusal, Reply, Request, RequestBody};
use dkv_wire::rpc::RpcError;
use futures::future::join_all;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::net::peers::Lane;
use crate::net::reply::ReplyTo;
use crate::net::rpc::ExchangeError;
use crate::node::Node;
use crate::outbox::Outbox;
use crate::replica::backlog::Place;
use crate::replica::write_batches::{PendingWrite, key_locked, too_early};

/// Most writes that are under way at once.
const WINDOW_WRITES: usize = 1024;
/// Most bytes of writes that are under way at once.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Time that a window may take.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the first failed attempt; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Interval between checks whether the local replica has caught up with the primary.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Failed attempts after which the relay logs that writes wait, once.
const SAID_AFTER: u32 = 10;

/// Result of an attempt: the last number that the primary has now, and why it did not take the
/// rest.
struct Attempt {
    acknowledged: Option<Number>,
    refused: Option<Refusal>,
}

/// Runs for the life of the node, unless the shard is dropped.
pub(crate) async fn run(node: Arc<Node>, outbox: Arc<Outbox>) {
    let mut relay = Relay { node, outbox, primary: None, asked: 0, in_vain: 0 };
    while !relay.outbox.is_discarded() {
        relay.step().await;
    }
}

struct Relay {
    node: Arc<Node>,
    outbox: Arc<Outbox>,
    /// The primary that was named last, or that served last.
    primary: Option<NodeId>,
    /// Number of nodes tried when no primary was known.
    asked: usize,
    in_vain: u32,
}

impl Relay {
    async fn step(&mut self) {
        let group = self.node.group(self.outbox.shard());
        let taken = group.as_ref().map(|group| group.state_machine().taken(self.node.id()));
        let (empty, window, first) = {
            let mut ledger = self.outbox.ledger();
            if let Some(taken) = taken {
                ledger.sent(taken);
            }
            let window = ledger.window(WINDOW_WRITES, WINDOW_BYTES);
            let sent = window.first().map(|(number, _)| *number);
            (ledger.is_empty(), window, ledger.first_kept().filter(|first| sent == Some(*first)))
        };
        let settled = taken.unwrap_or_else(|| self.outbox.ledger().last_sent());
        self.outbox.settle(settled);
        if empty {
            return self.outbox.wait_for_news().await;
        }
        if window.is_empty() {
            // The primary has all of it; the local replica does not yet.
            if let Some(group) = group {
                let mut applied = group.state_machine().applied();
                let me = self.node.id();
                let news = applied.wait_for(|_| group.state_machine().taken(me) > settled);
                let _ = tokio::time::timeout(LOOK_EVERY, news).await;
            }
            return;
        }
        let Some(primary) = self.whom() else { return self.pause(None).await };
        let attempt = if primary == self.node.id() {
            self.here(window).await
        } else {
            self.there(primary, window).await
        };
        if let Some(number) = attempt.acknowledged {
            self.outbox.ledger().sent(number);
            self.in_vain = 0;
            self.primary = Some(primary);
        }
        if let Some(refused) = attempt.refused {
            self.primary = match &refused {
                Refusal::NotPrimary { primary: Some(named) } if *named != primary => Some(*named),
                _ => None,
            };
            if refused == too_early() || refused == key_locked() {
                let lost = first_lost(&refused, first, attempt.acknowledged);
                if self.outbox.start_over(lost) {
                    let shard = self.outbox.shard();
                    warn!(%shard, "the shard lost eventual writes that this node had delivered");
                }
            }
            self.pause(Some(refused)).await;
        }
    }

    /// Picks the node to ask now: the leader as far as this node knows, or else each node in turn
    /// that may be.
    fn whom(&mut self) -> Option<NodeId> {
        let shard = self.outbox.shard();
        let known = self.node.group(shard).and_then(|group| group.leader());
        let known = known.or_else(|| self.node.primary_of(shard));
        // Local knowledge may be old: every other attempt goes elsewhere.
        let known = known.filter(|_| self.in_vain.is_multiple_of(2));
        // A node that has no vote in the shard could make the writes vanish by acknowledging them.
        let voters = self.node.replicas().candidates(shard);
        let named = known.or_else(|| self.primary.take());
        named.filter(|primary| voters.contains(primary)).or_else(|| {
            self.asked = self.asked.wrapping_add(1);
            voters.iter().nth(self.asked % voters.len().max(1)).copied()
        })
    }

    async fn pause(&mut self, why: Option<Refusal>) {
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain == SAID_AFTER {
            let (shard, waiting) = (self.outbox.shard(), self.outbox.len());
            info!(%shard, waiting, ?why, "eventual writes wait for their primary");
        }
        let doubled = PAUSE_MIN * (1 << self.in_vain.saturating_sub(1).min(8));
        tokio::time::sleep(doubled.min(PAUSE_MAX)).await;
    }

    /// Hands writes to the primary on this node.
    async fn here(&self, window: Vec<(Number, Bytes)>) -> Attempt {
        let Some(group) = self.node.group(self.outbox.shard()) else {
            return Attempt { acknowledged: None, refused: Some(elsewhere()) };
        };
        // The node would not take them from another node either.
        if let Some(why) = self.node.incarnations().doubted() {
            let refused = Some(Refusal::Unavailable(why.to_string()));
            return Attempt { acknowledged: None, refused };
        }
        let expires = Instant::now() + WINDOW_TIMEOUT;
        let mut numbers = Vec::with_capacity(window.len());
        let answers = window.into_iter().map(|(number, command)| {
            let (reply, answer) = ReplyTo::here();
            numbers.push(number);
            let (holder, place) = (self.node.id().into(), Place::default());
            group.write(PendingWrite { command, holder, expires, reply, place });
            answer
        });
        let answers: Vec<_> = answers.collect();
        let answers = join_all(answers).await.into_iter();
        let results = answers.map(|answer| answer.unwrap_or_else(|_| Err(elsewhere())));
        judge(numbers.into_iter().zip(results))
    }

    /// Sends writes to the primary.
    async fn there(&self, primary: NodeId, window: Vec<(Number, Bytes)>) -> Attempt {
        let peers = self.node.peers();
        let asked = Instant::now();
        let sent = send(&self.node, primary, self.outbox.shard(), window);
        match tokio::time::timeout(WINDOW_TIMEOUT, sent).await {
            Ok(Ok(attempt)) => {
                peers.answered(primary, Lane::Bulk);
                attempt
            }
            Ok(Err(error)) => {
                peers.failed(primary, Lane::Bulk, asked);
                debug!(?primary, %error, "an outbox was not emptied");
                let refused = Some(Refusal::Unavailable(error.to_string()));
                Attempt { acknowledged: None, refused }
            }
            Err(_) => {
                peers.failed(primary, Lane::Bulk, asked);
                let why = "no answer in time".to_owned();
                Attempt { acknowledged: None, refused: Some(Refusal::Unavailable(why)) }
            }
        }
    }
}

async fn send(
    node: &Node,
    primary: NodeId,
    shard: GroupId,
    window: Vec<(Number, Bytes)>,
) -> Result<Attempt, ExchangeError> {
    let connection = node.peers().connection(primary, Lane::Bulk).await?;
    Ok(send_over(&connection, shard, window).await?)
}

async fn send_over(
    connection: &quinn::Connection,
    shard: GroupId,
    window: Vec<(Number, Bytes)>,
) -> Result<Attempt, RpcError> {
    let (send, receive) = connection.open_bi().await?;
    let mut writer = FrameWriter::new(send);
    writer.push(&Opening::Requests);
    let deadline_ms = WINDOW_TIMEOUT.as_millis() as u32;
    let mut numbers = Vec::with_capacity(window.len());
    for (number, command) in window {
        numbers.push(number);
        let body = RequestBody::Propose { shard, everywhere: false, command };
        writer.push(&Request { id: number.0, deadline_ms, forward: false, user: None, body });
    }
    writer.flush().await?;
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let mut results = std::collections::BTreeMap::new();
    while results.len() < numbers.len() {
        let frame = reader.next().await?.ok_or(RpcError::NoAnswer)?;
        let reply: Reply = decode(&frame)?;
        results.insert(Number(reply.id), reply.result);
    }
    let _ = writer.into_inner().finish();
    let results = numbers.into_iter().map(|number| {
        let result = results.remove(&number).unwrap_or_else(|| Err(elsewhere()));
        (number, result)
    });
    Ok(judge(results))
}

/// Returns the oldest write, `first`, if a refusal shows that the shard has lost those before it:
/// all of them have been taken once. A shard loses some if it is recovered without a majority.
fn first_lost(
    refused: &Refusal,
    first: Option<Number>,
    acknowledged: Option<Number>,
) -> Option<Number> {
    first.filter(|_| acknowledged.is_none() && *refused == too_early())
}

/// How far the primary has taken a window: up to the first write that it refused.
fn judge(results: impl Iterator<Item = (Number, Result<Answer, Refusal>)>) -> Attempt {
    let mut attempt = Attempt { acknowledged: None, refused: None };
    for (number, result) in results {
        match result {
            Ok(_) => attempt.acknowledged = Some(number),
            Err(refusal) => {
                attempt.refused = Some(refusal);
                break;
            }
        }
    }
    attempt
}

fn elsewhere() -> Refusal {
    Refusal::NotPrimary { primary: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gap_before_the_oldest_write_shows_a_loss() {
        let first = Some(Number(4));
        assert_eq!(first_lost(&too_early(), first, None), first);
        // A transaction that has locked its key has lost nothing.
        assert_eq!(first_lost(&key_locked(), first, None), None);
        assert_eq!(first_lost(&elsewhere(), first, None), None);
        // The writes before the refused one have been taken now.
        assert_eq!(first_lost(&too_early(), first, first), None);
        // The window began later.
        assert_eq!(first_lost(&too_early(), None, None), None);
    }
}
