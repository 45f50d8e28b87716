//! Ends transactions over several shards that others have left in doubt.
//!
//! Every primary looks at what is prepared in its shards. As a home it aborts what nobody drives
//! any more, in particular what its predecessor had not decided, and tells the other shards what
//! was committed. For a part of another home that is prepared for long, it asks the home. A lock
//! therefore stays only as long as the home or the shard itself has no primary.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, Term};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::codec::encode;
use dkv_wire::message::{Answer, AttemptId, Command, Commitment, Resolution};
use futures::future::join_all;
use tokio::time::Instant;
use tracing::debug;

use super::driver::{finish, resolve};
use super::proposals::propose_here;
use crate::node::Node;
use crate::replica::Replica;
use dkv_state::{HomeRecord, ShardState};

/// Interval between looks at what is prepared.
const TICK: Duration = Duration::from_millis(100);
/// Age from which on a part is in doubt, in milliseconds of the log's clock.
const DOUBT_MS: u64 = 1000;
/// Time that the resolution of one transaction may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most transactions of a shard that are resolved at once.
const TOGETHER_MAX: usize = 64;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        let busy = node.groups().iter().any(|group| is_busy(group));
        match busy {
            true => tokio::time::sleep(TICK).await,
            false => node.ticks().pause(TICK).await,
        }
        if planted(Mutant::KeepLocks) {
            continue;
        }
        if node.incarnations().held().is_some() || node.store().disk_full() {
            continue;
        }
        let led: Vec<_> = node.groups().into_iter().filter(|group| group.leads()).collect();
        let led = led.iter().filter(|group| is_busy(group));
        join_all(led.map(|group| end_doubts(&node, group))).await;
    }
}

/// Returns whether a transaction is prepared in a shard, or not finished elsewhere.
fn is_busy(group: &Replica) -> bool {
    let is_busy = |shard: &ShardState| {
        shard.prepared().next().is_some() || shard.home_records().next().is_some()
    };
    group.state_machine().with_shard(is_busy).unwrap_or(false)
}

/// What a primary has to do about a transaction.
enum Doubt {
    /// To abort it at home.
    Abandoned(AttemptId, Vec<GroupId>),
    /// To tell the other shards that it is committed.
    Unfinished(AttemptId, Commitment, Vec<GroupId>),
    /// To ask its home.
    Unknown(AttemptId),
}

async fn end_doubts(node: &Arc<Node>, group: &Arc<Replica>) {
    // What an earlier leader has committed is applied, and it decides nothing any more.
    let Ok(term) = group.confirm_leadership().await else { return };
    let now_ms = group.state_machine().clock_ms();
    let doubts = group.state_machine().with_shard(|shard| doubts(shard, group, term, now_ms));
    let mut doubts = doubts.unwrap_or_default();
    doubts.truncate(TOGETHER_MAX);
    join_all(doubts.into_iter().map(|doubt| end(node, group, doubt))).await;
}

fn doubts(shard: &ShardState, group: &Replica, term: Term, now_ms: u64) -> Vec<Doubt> {
    let is_driven = |id: &AttemptId| group.attempts().is_driven((id.session, id.serial));
    let at_home = shard.home_records().filter_map(|record| match record {
        HomeRecord::Undecided { id, deadline_ms, participants } => {
            let is_abandoned = id.attempt.term < term || deadline_ms <= now_ms && !is_driven(&id);
            is_abandoned.then_some(Doubt::Abandoned(id, participants))
        }
        HomeRecord::Unfinished { id, commitment, participants } => {
            let is_left = id.attempt.term < term || !group.attempts().is_finishing(id);
            is_left.then_some(Doubt::Unfinished(id, commitment, participants))
        }
    });
    let doubt_ms = if planted(Mutant::DecideTwice) { 0 } else { DOUBT_MS };
    let is_old = |since_ms: u64| since_ms + doubt_ms <= now_ms;
    let elsewhere =
        shard.prepared().filter(|(id, since_ms)| id.home != group.id() && is_old(*since_ms));
    at_home.chain(elsewhere.map(|(id, _)| Doubt::Unknown(id))).collect()
}

async fn end(node: &Arc<Node>, group: &Arc<Replica>, doubt: Doubt) {
    let deadline = Instant::now() + PATIENCE;
    match doubt {
        Doubt::Abandoned(id, participants) => {
            debug!(group = %group.id(), ?id, "aborting a transaction that no node drives");
            let command = encode(&Command::Resolve { id, abort: true });
            let aborted = propose_here(node.id(), group, command, deadline).await;
            if matches!(aborted, Ok(Answer::Resolved(Resolution::Aborted))) {
                finish(node, group, id, participants, None).await;
            }
        }
        Doubt::Unfinished(id, commitment, participants) => {
            finish(node, group, id, participants, Some(commitment)).await;
        }
        Doubt::Unknown(id) => {
            let committed = match resolve(node, id, deadline).await {
                Some(Resolution::Committed(commitment)) => Some(commitment),
                Some(Resolution::Aborted) => None,
                Some(Resolution::Pending) | None => return,
            };
            debug!(group = %group.id(), ?id, ?committed, "a transaction in doubt is resolved");
            let command = encode(&Command::Finish { id, committed });
            _ = propose_here(node.id(), group, command, deadline).await;
        }
    }
}
