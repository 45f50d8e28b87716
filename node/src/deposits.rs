//! Taking eventual writes.
//!
//! A write comes with a stamp that its client keeps through all attempts. So it does not matter how many
//! nodes take it: of the same key and moment a shard keeps one. A client that has no clock yet is told the
//! time, by a refusal. What was taken is durable here before it is answered, and it is the outbox's then.

use std::sync::Arc;

use bytes::Bytes;
use dkv_wire::id::{GroupId, Revision, Stamp, Term};
use dkv_wire::message::{Answer, Level, Operation, Receipt, Refusal};

use crate::node::Node;
use crate::replies::ReplyTo;
use crate::state;

/// Takes a write of any shard of the network.
pub(crate) fn take(
    node: &Arc<Node>,
    shard: GroupId,
    stamp: Stamp,
    key: Bytes,
    value: Option<Bytes>,
    reply: ReplyTo,
) {
    if let Err(refusal) = check(node, shard, stamp, &key, value.as_deref()) {
        return reply.refuse(refusal);
    }
    let outbox = match node.outbox(shard) {
        Ok(outbox) => outbox,
        Err(why) => return reply.refuse(Refusal::Unavailable(why)),
    };
    let group = node.group(shard);
    let existed = match outbox.find(&key) {
        Some(pending) => pending.value.is_some(),
        None => group.as_ref().is_some_and(|group| group.machine().has(&key)),
    };
    let term = group.map_or(Term(0), |group| group.term());
    let taking = Arc::clone(node);
    node.spawn(async move {
        let taken = outbox.deposit(stamp, key, value).await;
        reply.send(taken.map(|number| {
            let receipt = Receipt {
                shard,
                revision: Revision(0),
                level: Level::Eventual,
                node: taking.id(),
                term,
                staleness_ms: None,
                stamp,
                pending: Some(number),
            };
            Answer::Written { receipt, existed }
        }));
    });
}

fn check(
    node: &Node,
    shard: GroupId,
    stamp: Stamp,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), Refusal> {
    if !node.knows_shard(shard) {
        return Err(Refusal::Invalid(format!("there is no shard {shard}")));
    }
    state::check_key(key)?;
    let operation = value.map_or(Operation::Delete, Operation::Put);
    state::check_value(operation, node.settings().value_bytes_max)?;
    if node.disk_full() {
        return Err(Refusal::Unavailable(
            "the disk of this node is full; it takes writes once there is room on it".into(),
        ));
    }
    node.clock().admit(stamp).map_err(|now| Refusal::Clock { now })
}
