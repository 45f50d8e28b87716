//! The read path of a replica.
//!
//! A strong read is answered from the primary's memory after the primary has made sure, by one
//! round to a quorum, that it still is the primary and has applied everything that was committed
//! when the round began. All reads that wait share a round; those that come while it is under way
//! share the next. No clock is trusted. A primary that was just elected cannot finish its first
//! round before it has applied an entry of its own term.
//!
//! A scan is a read of many keys: it shares the round, and then takes its page from the state at one
//! moment, on a thread of its own, since values may have to be read from the disk.
//!
//! An eventual read is answered at once, from whatever the replica has. How old that may be counts
//! from the last time that a quorum confirmed the leader, here as at a replica that follows it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_wire::id::{GroupId, NodeId, Term};
use dkv_wire::message::{Answer, Level, Receipt, Refusal, Span};
use dkv_wire::platform;
use tokio::sync::mpsc;

use crate::group::Proposer;
use crate::raft::{Looked, MachineHandle};
use crate::replies::ReplyTo;

/// Reads that wait for a round; more are refused as overload.
pub(crate) const QUEUE_MAX: usize = 16 * 1024;
/// Reads that share a round.
const TAKE_MAX: usize = 4096;
/// Time that a round may take before its reads are refused.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// A strong read that waits for its round.
pub(crate) struct PendingRead {
    pub(crate) wanted: Wanted,
    pub(crate) reply: ReplyTo,
}

/// What is read.
pub(crate) enum Wanted {
    /// The value of a key.
    Key(Bytes),
    /// A page of keys.
    Page(Span),
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
                serve(proposer.machine(), taken.drain(..), receipt);
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
    read: PendingRead,
) {
    let receipt = receipt(group, me, term, Level::Eventual, proposer.staleness_ms());
    serve(proposer.machine(), std::iter::once(read), receipt);
}

/// Answers reads from the state, with that receipt.
fn serve(machine: &MachineHandle, reads: impl Iterator<Item = PendingRead>, receipt: Receipt) {
    let mut scans = Vec::new();
    machine.read_keys(reads.filter_map(|PendingRead { wanted, reply }| match wanted {
        Wanted::Key(key) => Some((key, move |looked| answer(reply, receipt, looked))),
        Wanted::Page(span) => {
            scans.push((span, reply));
            None
        }
    }));
    if scans.is_empty() {
        return;
    }
    let machine = machine.clone();
    // One thread for the scans of a round, however many they are.
    platform::spawn_blocking(move || {
        for (span, reply) in scans {
            match machine.scan(&span) {
                Ok((revision, page)) => {
                    reply.send(Ok(Answer::Page(Receipt { revision, ..receipt }, page)));
                }
                Err(why) => reply.refuse(Refusal::Unavailable(why)),
            }
        }
    });
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
