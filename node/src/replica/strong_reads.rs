//! The strong reads of a replica.
//!
//! The primary answers a strong read from memory once one round to a quorum has confirmed that it
//! still is the primary and has applied everything that was committed when the round began. All
//! waiting reads share a round (see [`rounds`](crate::replica::quorum_rounds)). No clock is
//! trusted. A newly elected primary cannot finish its first round before it has applied an entry of
//! its own term.
//!
//! Any other replica can answer one as well, if the client allows it: it asks the primary how far
//! the shard was committed, waits until it has applied as much, and answers from its own memory.
//! The primary answers that question after a round, like any read, so a deposed primary that does
//! not know it yet gives no answer. If the asker is a voter, its own vote goes with the question:
//! with three voters, that vote and the primary's are a majority, and no round is needed. This is
//! the ReadIndex of section 6.4 of Ongaro's dissertation, "Consensus: Bridging Theory and
//! Practice", with its followers.
//!
//! A scan is a read of many keys: it shares the round, and then takes its page from the state at
//! one moment, on a separate thread, since values may have to be read from the disk.
//!
//! A key that a prepared transaction over several shards may write is not read before the
//! transaction has ended here, because it may be committed already. Its readers wait, and everybody
//! else goes on.
//!
//! Reads that are not strong are in `serve/eventual_reads.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Revision, Stamp, Term};
use dkv_base::mutants::{Mutant, planted};
use dkv_base::platform;
use dkv_wire::message::{Answer, Level, Receipt, Refusal, RequestBody, Span};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::peers::Lane;
use crate::net::quota::HOLDER_PARTS;
use crate::net::reply::ReplyTo;
use crate::net::rpc::ask;
use crate::raft::ProposeError;
use crate::raft::{
    self, HistoryQuery, LeaseQuery, Lookup, LookupError, LookupResult, StateMachineHandle,
};
use crate::replica::Proposer;
use crate::replica::quorum_rounds::QuorumRounds;
use dkv_state::{ShardState, Waiting};

/// Most reads that wait for a round; more are refused as overload. One holder fills at most half of
/// the queue.
pub(crate) const QUEUE_MAX: usize = 2 * HOLDER_PARTS;
/// Most questions from one replica to its primary in flight at once. A replica asks a distant
/// primary again before the last answer has arrived; otherwise a read would wait for two answers.
const ROUNDS_AWAY_MAX: usize = 16;

/// Time that a strong read waits for a transaction to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(8);

/// A strong read that waits for its round.
pub(crate) struct PendingRead {
    pub(crate) query: ReadQuery,
    /// Whether a replica that does not lead may answer.
    pub(crate) anywhere: bool,
    pub(crate) reply: ReplyTo,
}

/// The question that a read asks.
pub(crate) enum ReadQuery {
    /// The value of a key.
    Key(Bytes),
    /// A page of keys, including writes that wait in an outbox.
    Page(Span, Vec<Waiting>),
    /// Something of the shard's history.
    History(HistoryQuery),
    /// Something about leases or expiry. Only the primary answers this.
    Lease(LeaseQuery),
    /// How far the shard is committed. Only the primary answers this.
    Committed,
}

/// A replica and its shard, as a receipt names them.
#[derive(Clone, Copy)]
pub(crate) struct ReplicaName {
    pub(crate) shard: GroupId,
    pub(crate) node: NodeId,
}

/// Serves strong reads until the queue closes.
pub(crate) async fn run(
    who: ReplicaName,
    proposer: Arc<Proposer>,
    queue: mpsc::Receiver<PendingRead>,
) {
    let mut rounds = QuorumRounds::new(queue);
    let mut away = JoinSet::new();
    let confirm = || {
        let proposer = Arc::clone(&proposer);
        async move { proposer.confirm_leadership().await }
    };
    while let Some((mut reads, confirmed)) = rounds.next(confirm).await {
        while away.try_join_next().is_some() {}
        let now = Instant::now();
        reads.iter_mut().for_each(|read| read.reply.enter(Stage::Read, now));
        match confirmed {
            Ok(term) => {
                let receipt = who.receipt(term, Level::Strong, Some(0));
                serve(proposer.state_machine(), reads.into_iter(), receipt);
            }
            Err(ProposeError::NotLeader(Some(primary))) if primary != who.node => {
                let mut here: Vec<_> = reads.extract_if(.., |read| read.anywhere).collect();
                here.iter_mut().for_each(|read| read.reply.enter(Stage::Behind, now));
                refuse(reads.into_iter(), &Refusal::NotPrimary { primary: Some(primary) });
                if !here.is_empty() {
                    if away.len() >= ROUNDS_AWAY_MAX {
                        let _ = away.join_next().await;
                    }
                    away.spawn(serve_after(who, Arc::clone(&proposer), primary, here));
                }
            }
            Err(error) => refuse(reads.into_iter(), &error.into()),
        }
    }
}

/// Answers reads from what this replica has applied, with the given receipt.
pub(crate) fn serve(
    state_machine: &StateMachineHandle,
    reads: impl Iterator<Item = PendingRead>,
    receipt: Receipt,
) {
    let (mut keys, mut scans, mut asked_how_far) = (Vec::new(), Vec::new(), Vec::new());
    let mut queries = Vec::new();
    let is_strong = receipt.level == Level::Strong;
    let may_wait = is_strong && state_machine.with_shard(ShardState::locked_keys) > Some(0);
    for read in reads {
        if may_wait && is_locked(state_machine, &read.query) {
            tokio::spawn(locked(state_machine.clone(), read, receipt));
            continue;
        }
        let PendingRead { query, reply, .. } = read;
        match query {
            ReadQuery::Key(key) => {
                keys.push((key, move |looked| answer(reply, receipt, looked)));
            }
            ReadQuery::Page(span, waiting) => scans.push((span, waiting, reply)),
            ReadQuery::History(of) => queries.push((of, reply)),
            ReadQuery::Lease(about) => {
                reply.send(state_machine.answer_about_leases(&about, receipt));
            }
            ReadQuery::Committed => asked_how_far.push(reply),
        }
    }
    // The control group has no keys; nodes ask it only how far it is committed.
    if !keys.is_empty() {
        state_machine.read_keys(keys.into_iter());
    }
    let (index, term) = (state_machine.applied_index(), receipt.term);
    for reply in asked_how_far {
        reply.send(Ok(Answer::Committed { index, term }));
    }
    if scans.is_empty() && queries.is_empty() {
        return;
    }
    let state_machine = state_machine.clone();
    let handle = tokio::runtime::Handle::current();
    // One thread serves the scans of a round, however many there are.
    platform::spawn_blocking(move || {
        for (span, waiting, reply) in scans {
            match state_machine.scan(&span, &waiting, receipt) {
                Ok((receipt, page)) => reply.send(Ok(Answer::Page(receipt, page))),
                Err(LookupError::Locked) => {
                    let query = ReadQuery::Page(span, waiting);
                    let read = PendingRead { query, anywhere: true, reply };
                    handle.spawn(locked(state_machine.clone(), read, receipt));
                }
                Err(error) => reply.refuse(error.into()),
            }
        }
        for (query, reply) in queries {
            reply.send(state_machine.read_history(&query, receipt));
        }
    });
}

/// Returns whether a transaction may write the key of a query.
fn is_locked(state_machine: &StateMachineHandle, query: &ReadQuery) -> bool {
    match query {
        ReadQuery::Key(_) if planted(Mutant::ReadThroughLocks) => false,
        ReadQuery::Key(key) | ReadQuery::History(HistoryQuery::Versions { key, .. }) => {
            state_machine.write_locked_at(key).is_some()
        }
        ReadQuery::Page(span, _) => state_machine.is_page_locked(span),
        ReadQuery::Lease(LeaseQuery::Key(key)) => state_machine.write_locked_at(key).is_some(),
        ReadQuery::History(HistoryQuery::Range(range)) => {
            state_machine.is_range_locked(&raft::borrowed(&range.keys))
        }
        ReadQuery::Lease(_) | ReadQuery::History(_) | ReadQuery::Committed => false,
    }
}

/// Answers a strong read once the transactions in its way have ended.
///
/// What it finds then is not older than what its round has confirmed.
fn locked(
    state_machine: StateMachineHandle,
    mut read: PendingRead,
    receipt: Receipt,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        read.reply.enter(Stage::Lock, Instant::now());
        let mut released = state_machine.released();
        let free = async {
            while is_locked(&state_machine, &read.query) {
                if released.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(LOCK_PATIENCE, free).await.is_err() {
            return read.reply.refuse(LookupError::Locked.into());
        }
        read.reply.enter(Stage::Read, Instant::now());
        serve(&state_machine, std::iter::once(read), receipt);
    })
}

/// Answers reads once this replica has applied everything that the primary reports as committed.
async fn serve_after(
    who: ReplicaName,
    proposer: Arc<Proposer>,
    primary: NodeId,
    mut reads: Vec<PendingRead>,
) {
    let catch_up = async {
        let followed = proposer.followed(primary);
        let body = RequestBody::Committed { shard: who.shard, followed };
        let answer =
            ask(proposer.peers(), primary, Lane::Urgent, body, patience(&proposer)).await?;
        let Answer::Committed { index, term } = answer else {
            return Err(Refusal::Unavailable("unexpected answer of the primary".into()));
        };
        let mut applied = proposer.state_machine().applied();
        match applied.wait_for(|applied| *applied >= index).await {
            Ok(_) => Ok(term),
            Err(_) => Err(Refusal::Unavailable("the shard is leaving this node".into())),
        }
    };
    match tokio::time::timeout(patience(&proposer), catch_up).await {
        Ok(Ok(term)) => {
            let now = Instant::now();
            reads.iter_mut().for_each(|read| read.reply.enter(Stage::Read, now));
            let receipt = who.receipt(term, Level::Strong, Some(0));
            serve(proposer.state_machine(), reads.into_iter(), receipt);
        }
        Ok(Err(refusal)) => refuse(reads.into_iter(), &refusal),
        Err(_) => {
            let why = "this replica does not get what the primary has";
            refuse(reads.into_iter(), &Refusal::Unavailable(why.into()));
        }
    }
}

/// Time that a primary has to answer: as long as its own round may take.
fn patience(proposer: &Proposer) -> Duration {
    raft::patience(proposer.time_scale())
}

fn refuse(reads: impl Iterator<Item = PendingRead>, refusal: &Refusal) {
    for read in reads {
        read.reply.refuse(refusal.clone());
    }
}

fn answer(reply: ReplyTo, receipt: Receipt, looked: LookupResult) {
    match looked {
        Ok(Lookup { revision, stamp, stored }) => {
            reply.send(Ok(Answer::Value(Receipt { revision, stamp, ..receipt }, stored)));
        }
        Err(error) => reply.refuse(error.into()),
    }
}

impl ReplicaName {
    /// The receipt of an answer, except for its revision.
    pub(crate) fn receipt(self, term: Term, level: Level, staleness_ms: Option<u64>) -> Receipt {
        let Self { shard, node } = self;
        let (revision, stamp) = (Revision::default(), Stamp::default());
        Receipt { shard, revision, level, node, term, staleness_ms, stamp, pending: None }
    }
}
