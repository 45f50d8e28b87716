//! Level `all`: an answer that waits for every replica of the shard.
//!
//! The primary serves the request as usual, with a quorum, and then asks every other member of the
//! group, learners too, since they answer eventual reads, to report when it has applied as much.
//! The answer names the members that do not report in time. Nothing is taken back then: a write
//! that a quorum has stands.
//!
//! Three quarters of the request's time, counted from its arrival, are for the quorum and the
//! replicas together: once the quorum has a write, its client learns so before it gives up.
//!
//! A replica that follows its primary gets everything anyway, so this level repairs nothing that
//! would not repair itself; it waits for that, and reports which replicas were behind.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::message::{Answer, Level, Reach, Receipt, Refusal, RequestBody};
use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::peers::Lane;
use crate::net::reply::ReplyTo;
use crate::net::rpc::ask;
use crate::replica::Replica;

/// Longest time that the replicas have to report.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// Passes the answer of `done` on to `reply` once every replica has the state that it is about. A
/// quarter of the time that the asker waits, from now on, is left for the answer's way back.
pub(crate) fn answer(
    group: &Arc<Replica>,
    done: oneshot::Receiver<Result<Answer, Refusal>>,
    deadline_ms: u32,
    mut reply: ReplyTo,
) {
    let until = end(Instant::now(), deadline_ms);
    let asking = Arc::clone(group);
    group.spawn(async move {
        let answer = match done.await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unknown("the node is stopping".into())),
        };
        reply.enter(Stage::Replicas, Instant::now());
        let all = |receipt| Receipt { level: Level::All, ..receipt };
        reply.send(match answer {
            Ok(Answer::Value(receipt, stored)) => {
                let reach = reach(&asking, until).await;
                Ok(Answer::ValueEverywhere(all(receipt), stored, reach))
            }
            Ok(Answer::Written { receipt, existed }) => {
                let reach = reach(&asking, until).await;
                Ok(Answer::WrittenEverywhere { receipt: all(receipt), existed, reach })
            }
            Ok(Answer::Page(receipt, page)) => {
                // A page has no room for names: its receipt gives the level that was reached.
                let reach = reach(&asking, until).await;
                let receipt = if reach.missing.is_empty() { all(receipt) } else { receipt };
                Ok(Answer::Page(receipt, page))
            }
            Ok(Answer::Ranged(receipt, page)) => {
                let reach = reach(&asking, until).await;
                let receipt = if reach.missing.is_empty() { all(receipt) } else { receipt };
                Ok(Answer::Ranged(receipt, page))
            }
            Ok(Answer::Transacted { receipt, succeeded, changed, results, path }) => {
                let reach = reach(&asking, until).await;
                let receipt = if reach.missing.is_empty() { all(receipt) } else { receipt };
                Ok(Answer::Transacted { receipt, succeeded, changed, results, path })
            }
            other => other,
        });
    });
}

/// The moment by which quorum and replicas must be done, for a request that arrived at `came`.
fn end(came: Instant, deadline_ms: u32) -> Instant {
    came + Duration::from_millis(u64::from(deadline_ms)) / 4 * 3
}

/// Time that the replicas have once the quorum is done.
fn left(until: Instant, now: Instant) -> Duration {
    until.saturating_duration_since(now).min(PATIENCE_MAX)
}

/// Waits until every member has applied what this replica has.
pub(super) async fn reach(group: &Replica, until: Instant) -> Reach {
    let others = group.members().into_iter().filter(|node| *node != group.who().node);
    reach_of(group, others, until).await
}

/// Waits until these nodes have applied what this replica has.
pub(super) async fn reach_of(
    group: &Replica,
    others: impl Iterator<Item = NodeId>,
    until: Instant,
) -> Reach {
    let patience = left(until, Instant::now());
    let index = group.state_machine().applied_index();
    let asked = join_all(others.map(|node| has(group, node, index, patience))).await;
    let mut reach = Reach::default();
    for (node, has) in asked {
        match has {
            Some(true) => reach.mended.push(node),
            Some(false) => {}
            None => reach.missing.push(node),
        }
    }
    reach
}

/// Returns whether a member had to wait until it had applied that entry, or `None` if it is not
/// known to have applied it.
async fn has(
    group: &Replica,
    node: NodeId,
    index: u64,
    patience: Duration,
) -> (NodeId, Option<bool>) {
    let body = RequestBody::Reach { shard: group.id(), index };
    let asked = async {
        loop {
            match ask(group.peers(), node, Lane::Urgent, body.clone(), patience).await {
                Ok(Answer::Reached { was_behind }) => return Some(was_behind),
                Ok(_) => return None,
                // It is starting, or its connection is being re-established.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    (node, tokio::time::timeout(patience, asked).await.unwrap_or_default())
}

/// Answers the primary once this replica has applied entry `index`.
pub(crate) fn report(group: &Arc<Replica>, index: u64, deadline_ms: u32, reply: ReplyTo) {
    let was_behind = group.state_machine().applied_index() < index;
    if !was_behind {
        return reply.send(Ok(Answer::Reached { was_behind }));
    }
    let mut applied = group.state_machine().applied();
    let patience = Duration::from_millis(u64::from(deadline_ms));
    group.spawn(async move {
        let reached = applied.wait_for(|applied| *applied >= index);
        reply.send(match tokio::time::timeout(patience, reached).await {
            Ok(Ok(_)) => Ok(Answer::Reached { was_behind }),
            _ => Err(Refusal::Unavailable("this replica is behind".into())),
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_quorum_takes_is_taken_from_the_replicas() {
        let (came, ms) = (Instant::now(), Duration::from_millis);
        let until = end(came, 2000);
        assert_eq!(left(until, came), ms(1500));
        assert_eq!(left(until, came + ms(1200)), ms(300));
        // The client waits for 200 ms more, and learns who is missing.
        assert_eq!(left(until, came + ms(1800)), Duration::ZERO);
        assert_eq!(left(end(came, 60_000), came), PATIENCE_MAX);
    }
}
