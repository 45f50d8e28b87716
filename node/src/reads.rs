//! The read path of a replica.
//!
//! A strong read is answered from the primary's memory after the primary has made sure, by one
//! round to a quorum, that it still is the primary and has applied everything that was committed
//! when the round began. All reads that wait share a round; those that come while it is under way
//! share the next. No clock is trusted. A primary that was just elected cannot finish its first
//! round before it has applied an entry of its own term.
//!
//! An eventual read is answered at once, from whatever the replica has. How old that may be counts
//! from the last time that a quorum confirmed the leader, here as at a replica that follows it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_wire::id::{GroupId, NodeId, Term};
use dkv_wire::message::{Answer, Level, Receipt, Refusal};
use tokio::sync::mpsc;

use crate::group::Proposer;
use crate::raft::Looked;
use crate::replies::ReplyTo;

/// Reads that wait for a round; more are refused as overload.
pub(crate) const QUEUE_MAX: usize = 16 * 1024;
/// Reads that share a round.
const TAKE_MAX: usize = 4096;
/// Time that a round may take before its reads are refused.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// A strong read that waits for its round.
pub(crate) struct PendingRead {
    pub(crate) key: Bytes,
    pub(crate) reply: ReplyTo,
}

/// Runs until the queue closes.
pub(crate) async fn run(
    group: GroupId,
    me: NodeId,
    proposer: Arc<Proposer>,
    mut queue: mpsc::Receiver<PendingRead>,
) {
    let mut taken = Vec::new();
    while queue.recv_many(&mut taken, TAKE_MAX).await > 0 {
        match tokio::time::timeout(ROUND_TIMEOUT, proposer.confirm_leadership()).await {
            Ok(Ok(term)) => {
                let receipt = receipt(group, me, term, Level::Strong, Some(0));
                proposer.machine().read_keys(taken.drain(..).map(|read| {
                    let PendingRead { key, reply } = read;
                    (key, move |looked| answer(reply, receipt, looked))
                }));
            }
            Ok(Err(error)) => {
                for read in taken.drain(..) {
                    read.reply.refuse(error.clone().into());
                }
            }
            Err(_) => {
                for read in taken.drain(..) {
                    read.reply.refuse(Refusal::Unavailable("no quorum answers".into()));
                }
            }
        }
    }
}

/// Answers an eventual read.
pub(crate) fn eventual(
    group: GroupId,
    me: NodeId,
    term: Term,
    proposer: &Proposer,
    key: Bytes,
    reply: ReplyTo,
) {
    let receipt = receipt(group, me, term, Level::Eventual, proposer.staleness_ms());
    let looked = move |looked| answer(reply, receipt, looked);
    proposer.machine().read_keys(std::iter::once((key, looked)));
}

fn answer(reply: ReplyTo, receipt: Receipt, looked: Looked) {
    match looked {
        Ok((revision, stored)) => {
            reply.send(Ok(Answer::Value(Receipt { revision, ..receipt }, stored)));
        }
        Err(why) => reply.refuse(Refusal::Unavailable(why)),
    }
}

fn receipt(
    shard: GroupId,
    node: NodeId,
    term: Term,
    level: Level,
    staleness_ms: Option<u64>,
) -> Receipt {
    Receipt { shard, revision: Default::default(), level, node, term, staleness_ms }
}
