//! Requests about the history of a shard.
//!
//! At a revision every replica gives the same answer, so any of them answers at once if it has
//! reached the revision. One that has not waits a moment for data on its way, and then goes as far
//! as the primary, as an eventual read with bounds does. If that does not help, nobody has reached
//! the revision yet. Such an answer counts as eventual, because there may be later writes.
//!
//! The versions of a key are read like a strong read, because the newest must be among them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_wire::limits;
use dkv_wire::message::{Answer, Level, Receipt, Refusal, RequestBody};

use crate::net::reply::ReplyTo;
use crate::raft::HistoryQuery;
use crate::replica::Replica;
use crate::replica::strong_reads::{PendingRead, ReadQuery};
use dkv_base::platform;

/// Time that a read waits for data on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(10);
/// Time that the way to the primary may take, among nearby members.
const AS_FAR_AS_THE_PRIMARY: Duration = Duration::from_millis(500);

/// Returns whether the answer to a request may be as large as a page. Those about the network have
/// as many parts as it has nodes and shards.
pub(crate) fn has_large_answer(body: &RequestBody) -> bool {
    matches!(
        body,
        RequestBody::Scan { .. }
            | RequestBody::ScanAt { .. }
            | RequestBody::History { .. }
            | RequestBody::Leases { .. }
            | RequestBody::LeaseInfo { .. }
            | RequestBody::Range { .. }
            | RequestBody::View
            | RequestBody::Status
            | RequestBody::Placement { .. }
            | RequestBody::Keyspaces
            | RequestBody::Policies
            | RequestBody::Diagnose
    )
}

/// Answers a request about the history of a shard, of which this node has a replica.
pub(crate) fn serve(group: &Arc<Replica>, body: RequestBody, deadline_ms: u32, reply: ReplyTo) {
    let query = match body {
        RequestBody::ReadAt { key, at, .. } => {
            check_key(&key).map(|()| HistoryQuery::Key { key, at })
        }
        RequestBody::ScanAt { span, at, .. } => {
            if span.prefix.len().max(span.after.len()) > limits::KEY_BYTES_MAX {
                return reply.refuse(Refusal::Invalid("a key has at most 4096 bytes".into()));
            }
            Ok(HistoryQuery::Page { span, at })
        }
        RequestBody::History { key, before, versions_max, .. } => check_key(&key)
            .map(|()| HistoryQuery::Versions { key, before, versions_max: versions_max as usize }),
        RequestBody::Compact { floor, .. } => return compact(group, floor, deadline_ms, reply),
        _ => Err(Refusal::Invalid("this is not about history".into())),
    };
    match query {
        Ok(query) => read(group, query, reply),
        Err(refusal) => reply.refuse(refusal),
    }
}

fn check_key(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return Err(Refusal::Invalid("a key has 1 to 4096 bytes".into()));
    }
    Ok(())
}

fn read(group: &Arc<Replica>, query: HistoryQuery, reply: ReplyTo) {
    match query.at() {
        None => group.read(PendingRead { query: ReadQuery::History(query), anywhere: true, reply }),
        Some(at) if group.revision() >= at => answer(group, query, at, reply),
        Some(at) => {
            let catching_up = Arc::clone(group);
            group.spawn(async move { later(&catching_up, query, at, reply).await });
        }
    }
}

/// Answers from the state here.
fn answer(group: &Arc<Replica>, query: HistoryQuery, at: Revision, reply: ReplyTo) {
    let receipt = receipt(group, at);
    let state_machine = group.state_machine();
    if let Some(answered) = state_machine.read_history_at_once(&query, receipt) {
        return reply.send(answered);
    }
    let state_machine = state_machine.clone();
    platform::spawn_blocking(move || reply.send(state_machine.read_history(&query, receipt)));
}

/// The receipt of an answer at a revision. The age of anything but the latest revision is unknown:
/// it ended with the next write.
fn receipt(group: &Replica, at: Revision) -> Receipt {
    let staleness_ms = group.staleness_ms().filter(|_| group.revision() == at);
    group.who().receipt(group.term(), Level::Eventual, staleness_ms)
}

/// Answers once this replica has reached the revision.
async fn later(group: &Arc<Replica>, query: HistoryQuery, at: Revision, reply: ReplyTo) {
    let mut applied = group.state_machine().applied();
    let arrived = applied.wait_for(|_| group.revision() >= at);
    if tokio::time::timeout(ON_ITS_WAY, arrived).await.is_ok() && group.revision() >= at {
        return answer(group, query, at, reply);
    }
    let (strong, answered) = ReplyTo::here();
    group.read(PendingRead { query: ReadQuery::History(query), anywhere: true, reply: strong });
    let patience = AS_FAR_AS_THE_PRIMARY.max(group.time_scale().round_trip() * 3);
    reply.send(match tokio::time::timeout(patience, answered).await {
        Ok(Ok(Ok(answer))) => Ok(eventual(answer, receipt(group, at))),
        Ok(Ok(Err(
            refusal @ (Refusal::Overloaded { .. }
            | Refusal::Compacted { .. }
            | Refusal::NotYet { .. }),
        ))) => Err(refusal),
        _ => {
            Err(Refusal::Behind { revision: group.revision(), staleness_ms: group.staleness_ms() })
        }
    });
}

/// The same answer at the level of `by`: the round that it waited for was for the revision only.
fn eventual(answer: Answer, by: Receipt) -> Answer {
    let relabel = |receipt| {
        let Receipt { level, staleness_ms, .. } = by;
        Receipt { level, staleness_ms, ..receipt }
    };
    match answer {
        Answer::VersionAt(receipt, version) => Answer::VersionAt(relabel(receipt), version),
        Answer::Page(receipt, page) => Answer::Page(relabel(receipt), page),
        other => other,
    }
}

/// Forgets the history before a revision.
fn compact(group: &Arc<Replica>, floor: Revision, deadline_ms: u32, reply: ReplyTo) {
    let proposing = Arc::clone(group);
    // The asker gets an answer before it gives up.
    let patience = Duration::from_millis(u64::from(deadline_ms)) / 4 * 3;
    group.spawn(async move {
        let compacted = tokio::time::timeout(patience, raise_floor(&proposing, floor)).await;
        reply.send(
            compacted.unwrap_or_else(|_| {
                Err(Refusal::Unknown("no answer from a quorum in time".into()))
            }),
        );
    });
}

async fn raise_floor(group: &Replica, floor: Revision) -> Result<Answer, Refusal> {
    // The latest revision is that of everything committed by now.
    group.confirm_leadership().await?;
    let state = group.state_machine().with_shard(|shard| (shard.floor(), shard.revision()));
    let (present, latest) = state.unwrap_or_default();
    if floor > latest {
        return Err(Refusal::NotYet { asked: floor, latest });
    }
    let receipt = group.who().receipt(group.term(), Level::Strong, Some(0));
    if floor <= present {
        let receipt = Receipt { revision: latest, ..receipt };
        return Ok(Answer::Compacted { receipt, before: present });
    }
    match group.compact(floor).await? {
        Some((revision, before)) => {
            Ok(Answer::Compacted { receipt: Receipt { revision, ..receipt }, before })
        }
        None => Err(Refusal::Unknown("the floor was raised without an answer".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_about_the_whole_network_take_room() {
        for body in [
            RequestBody::View,
            RequestBody::Status,
            RequestBody::Placement { forecast: false },
            RequestBody::Keyspaces,
            RequestBody::Policies,
            RequestBody::Diagnose,
        ] {
            assert!(has_large_answer(&body), "{body:?}");
        }
        assert!(!has_large_answer(&RequestBody::Rebalance));
    }
}
