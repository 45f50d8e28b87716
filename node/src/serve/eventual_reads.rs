//! The eventual reads of a replica: answered at once, from the data on this node.
//!
//! That is the state that its replica has applied, or an eventual write of the key that waits in
//! this node's outbox, whichever is later; a scan decides for each key. The staleness counts from
//! the last time that a quorum confirmed the leader, on the leader as on a replica that follows it.
//!
//! A read may set bounds: how old the answer may be, which revision it must have reached, and which
//! eventual writes must be there. A node that does not keep within them waits a moment for data on
//! its way, then goes as far as the primary by a strong read of its own, and if that does not help
//! either reports how far behind it is. It never answers from outside the bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Number, Revision, Term};
use dkv_wire::message::{
    Answer, Level, Page, Pair, ReadBounds, ReadMode, Receipt, Refusal, RequestBody, Span, Stored,
};
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::reply::ReplyTo;
use crate::node::Node;
use crate::outbox::{DurableWrite, Outbox};
use crate::replica::Replica;
use crate::replica::strong_reads::{self, PendingRead, ReadQuery, ReplicaName};
use dkv_state::{Listed, ListedKey, ShardState};

/// Time that a read waits for data on its way. A replica that follows is behind by a round trip and
/// an fsync.
const ON_ITS_WAY: Duration = Duration::from_millis(10);
/// Time that the way to the primary may take, among nearby members. A client takes a node for dead
/// that is silent for much longer.
const AS_FAR_AS_THE_PRIMARY: Duration = Duration::from_millis(500);

/// The parts of a shard on one node.
#[derive(Clone)]
struct Part {
    group: Arc<Replica>,
    outbox: Option<Arc<Outbox>>,
    /// The removed nodes among those whose eventual writes must be there: the shard will never get
    /// the writes of theirs that it lacks now.
    removed: Vec<NodeId>,
}

/// Answers an eventual read.
pub(crate) fn read(
    node: &Node,
    group: &Arc<Replica>,
    query: ReadQuery,
    bounds: ReadBounds,
    mut reply: ReplyTo,
) {
    // Without bounds an empty outbox does not matter.
    let outboxes = node.outboxes();
    let empty = bounds.is_empty();
    let outbox = if empty { outboxes.busy(group.id()) } else { outboxes.get(group.id()) };
    let removed = bounds.deposits.iter().map(|(other, _)| *other);
    let removed = removed.filter(|other| node.replicas().is_denied(*other)).collect();
    let part = Part { group: Arc::clone(group), outbox, removed };
    if empty || part.keeps_within(&bounds) && !part.is_locked(&query, &bounds) {
        return part.answer(query, reply);
    }
    reply.enter(Stage::Behind, Instant::now());
    group.spawn(async move { part.later(query, bounds, reply).await });
}

/// The answer that a node without a replica can give all the same: a write of the key that waits in
/// its outbox, or everything that it has if the request asks for that.
pub(crate) fn without_replica(node: &Node, body: &RequestBody) -> Option<Answer> {
    match body {
        RequestBody::Read { shard, key, mode: ReadMode::Eventual(bounds) } => {
            waiting_key(node, *shard, key, bounds)
        }
        RequestBody::Scan { shard, span, mode: ReadMode::Held }
            if node.replicas().knows_shard(*shard) && node.group(*shard).is_none() =>
        {
            Some(waiting_page(node, *shard, span))
        }
        _ => None,
    }
}

fn waiting_key(node: &Node, shard: GroupId, key: &[u8], bounds: &ReadBounds) -> Option<Answer> {
    let outbox = node.outboxes().busy(shard)?;
    let ReadBounds { max_staleness_ms, at_least, deposits } = bounds;
    let is_there = |(other, number): &(NodeId, Number)| {
        *other == node.id() && outbox.shows(*number, Number(0))
    };
    let keeps_within =
        max_staleness_ms.is_none() && *at_least == Revision(0) && deposits.iter().all(is_there);
    if !keeps_within || node.group(shard).is_some() {
        return None;
    }
    Some(answer_of(outbox.find(key)?, outside(node, shard)))
}

fn waiting_page(node: &Node, shard: GroupId, span: &Span) -> Answer {
    let waiting = node.outboxes().busy(shard).map(|outbox| outbox.list(span)).unwrap_or_default();
    let Listed { keys, more, stamp, pending } = ShardState::new().list(span, &waiting);
    let pairs = keys.into_iter().map(|ListedKey { key, revision, value, .. }| {
        let value = value.here().filter(|_| span.values);
        Pair::new(Bytes::from_owner(key), revision, value)
    });
    let receipt = Receipt { stamp, pending, ..outside(node, shard) };
    Answer::Page(receipt, Page { pairs: pairs.collect(), more })
}

/// The receipt of a node that has no replica.
fn outside(node: &Node, shard: GroupId) -> Receipt {
    ReplicaName { shard, node: node.id() }.receipt(Term(0), Level::Eventual, None)
}

/// The answer made from a waiting write.
fn answer_of(pending: DurableWrite, receipt: Receipt) -> Answer {
    let DurableWrite { number, stamp, value, .. } = pending;
    let revision = Revision(0);
    let receipt = Receipt { stamp, revision, pending: Some(number), ..receipt };
    Answer::Value(receipt, value.map(|value| Stored { value, revision }))
}

impl Part {
    fn answer(&self, mut query: ReadQuery, mut reply: ReplyTo) {
        let Self { group, outbox, removed: _ } = self;
        // The outbox first, then the state: a write that leaves the outbox is in the state by then.
        match (outbox, &mut query) {
            (Some(outbox), ReadQuery::Key(key)) => {
                if let Some(pending) = outbox.find(key) {
                    reply = self.or_pending(pending, reply);
                }
            }
            (Some(outbox), ReadQuery::Page(span, waiting)) => *waiting = outbox.list(span),
            _ => {}
        }
        let receipt = group.who().receipt(group.term(), Level::Eventual, group.staleness_ms());
        reply.enter(Stage::Read, Instant::now());
        let read = PendingRead { query, anywhere: true, reply };
        strong_reads::serve(group.state_machine(), std::iter::once(read), receipt);
    }

    /// Has a waiting write answer, if it is later than the value in the state.
    fn or_pending(&self, pending: DurableWrite, mut reply: ReplyTo) -> ReplyTo {
        let (here, answered) = reply.part();
        self.group.spawn(async move {
            let answered = answered.await;
            reply.send(match answered {
                Ok(Ok(Answer::Value(receipt, _))) if pending.stamp > receipt.stamp => {
                    Ok(answer_of(pending, receipt))
                }
                Ok(answer) => answer,
                Err(_) => Err(Refusal::Unavailable("the node is stopping".into())),
            });
        });
        here
    }

    async fn later(self, query: ReadQuery, bounds: ReadBounds, reply: ReplyTo) {
        let group = &self.group;
        let mut applied = group.state_machine().applied();
        let arrived = applied.wait_for(|_| self.has(&bounds) && !self.is_locked(&query, &bounds));
        let arrived = tokio::time::timeout(ON_ITS_WAY, arrived).await.is_ok();
        if arrived && self.keeps_within(&bounds) {
            return self.answer(query, reply);
        }
        // The answer is labelled strong, which is more than the read asked for. It does not show
        // the writes that wait in the outbox here, so it is of no use to a client that was promised
        // those.
        let (strong, answered) = ReplyTo::here();
        group.read(PendingRead { query, anywhere: true, reply: strong });
        let patience = AS_FAR_AS_THE_PRIMARY.max(group.time_scale().round_trip() * 3);
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(Ok(answer))) if self.has_applied(&bounds) => reply.send(Ok(answer)),
            // Everything that was ever ordered is here.
            Ok(Ok(Ok(_))) if let Some((node, number)) = self.lost(&bounds) => {
                reply.refuse(Refusal::Lost { node, number });
            }
            // The primary has not reached the revision that was asked for either, or the shard no
            // longer keeps it.
            Ok(Ok(Err(
                refusal @ (Refusal::Overloaded { .. }
                | Refusal::NotYet { .. }
                | Refusal::Compacted { .. }),
            ))) => reply.refuse(refusal),
            _ => reply.refuse(Refusal::Behind {
                revision: group.revision(),
                staleness_ms: group.staleness_ms(),
            }),
        }
    }

    /// Returns whether a transaction over several shards that must be there may be prepared only: a
    /// client asks for a later revision than that at which its own was.
    fn is_locked(&self, query: &ReadQuery, bounds: &ReadBounds) -> bool {
        let state_machine = self.group.state_machine();
        match query {
            _ if bounds.at_least == Revision(0) => false,
            ReadQuery::Key(key) => {
                state_machine.write_locked_at(key).is_some_and(|at| at < bounds.at_least)
            }
            ReadQuery::Page(span, _) => state_machine.is_page_locked(span),
            _ => false,
        }
    }

    fn keeps_within(&self, bounds: &ReadBounds) -> bool {
        bounds.allow(self.group.revision(), self.group.staleness_ms()) && self.has(bounds)
    }

    /// Returns whether all writes that must be there are here, in the state or in the outbox.
    fn has(&self, bounds: &ReadBounds) -> bool {
        let (state_machine, me) = (self.group.state_machine(), self.group.who().node);
        let is_there = |node: NodeId, number: Number| {
            let taken = state_machine.taken(node);
            let outbox = self.outbox.as_ref().filter(|_| node == me);
            taken >= number || outbox.is_some_and(|outbox| outbox.shows(number, taken))
        };
        self.group.revision() >= bounds.at_least
            && bounds.deposits.iter().all(|(node, number)| is_there(*node, *number))
    }

    /// A write of a removed node that must be there and is not.
    fn lost(&self, bounds: &ReadBounds) -> Option<(NodeId, Number)> {
        let state_machine = self.group.state_machine();
        let missing = |(node, number): &&(NodeId, Number)| {
            self.removed.contains(node) && state_machine.taken(*node) < *number
        };
        bounds.deposits.iter().find(missing).copied()
    }

    /// Returns whether all writes that must be there are ordered and applied here.
    fn has_applied(&self, bounds: &ReadBounds) -> bool {
        let state_machine = self.group.state_machine();
        self.group.revision() >= bounds.at_least
            && bounds.deposits.iter().all(|(node, number)| state_machine.taken(*node) >= *number)
    }
}
