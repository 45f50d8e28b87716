//! Acceptance of eventual writes.
//!
//! A write carries a stamp that its client keeps through all attempts, so it does not matter how
//! many nodes take it: a shard keeps one write of a key and moment. A client that has no clock yet
//! learns the time from a refusal; so does a client whose clock is clearly behind what this node
//! has for the key, so that a write accepted here shows here. A write is durable before it is
//! answered, and from then on the outbox is responsible for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, Revision, Stamp, Term};
use dkv_wire::message::{Answer, Level, Operation, Receipt, Refusal};

use crate::net::reply::ReplyTo;
use crate::node::Node;
use crate::outbox;

/// How far a stamp may be behind the latest one for the key. Any one of several writes in flight
/// together may be the latest; a client that is further behind has a clock that lags.
const BEHIND_THE_KEY: Duration = Duration::from_secs(1);

/// An eventual write, as a client sends it.
pub(crate) struct Deposit {
    pub(crate) shard: GroupId,
    /// The holder that sent it.
    pub(crate) holder: HolderId,
    pub(crate) stamp: Stamp,
    /// Whether it may have been taken before.
    pub(crate) again: bool,
    pub(crate) key: Bytes,
    /// The value; `None` for a delete.
    pub(crate) value: Option<Bytes>,
}

/// Takes a write to any shard of the network.
pub(crate) fn take(node: &Arc<Node>, deposit: Deposit, reply: ReplyTo) {
    if let Err(refusal) = check(node, &deposit) {
        return reply.refuse(refusal);
    }
    let Deposit { shard, holder, stamp, again, key, value } = deposit;
    let outbox = match node.outbox(shard) {
        Ok(outbox) => outbox,
        Err(error) => return reply.refuse(Refusal::Unavailable(error.to_string())),
    };
    let group = node.group(shard);
    let (ordered, existed) =
        group.as_ref().map(|group| group.state_machine().last_written(&key)).unwrap_or_default();
    let (latest, existed) = match outbox.find(&key) {
        Some(pending) if pending.stamp > ordered => (pending.stamp, pending.value.is_some()),
        _ => (ordered, existed),
    };
    // A retry may carry the stamp that is there already. A first attempt with that stamp has the
    // stamp of another client's write, and the shard would keep only one of them.
    let behind = latest.since_1970().saturating_sub(stamp.since_1970());
    if (behind >= BEHIND_THE_KEY || latest == stamp) && !again {
        return reply.refuse(Refusal::Clock { now: node.clock().stamp() });
    }
    if let (Some(group), Some(value), false) = (&group, &value, again)
        && let Err(refusal) = group.check_quota_of_put(&key, value.len(), outbox.bytes())
    {
        return reply.refuse(refusal);
    }
    let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
    let (owners, bytes_max) = node.outboxes().owners();
    if !owners.allow(holder, bytes, bytes_max) {
        return reply.refuse(Refusal::Unavailable(
            "this client has filled its half of the outbox of this node: its writes wait for primaries \
             that cannot be reached"
                .into(),
        ));
    }
    let owners = Arc::clone(owners);
    let term = group.map_or(Term(0), |group| group.term());
    let taking = Arc::clone(node);
    node.tasks().spawn(async move {
        let taken = outbox.deposit(stamp, key, value).await;
        if let Ok(number) = taken {
            owners.took(holder, shard, number, bytes);
        }
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

fn check(node: &Node, deposit: &Deposit) -> Result<(), Refusal> {
    let Deposit { shard, stamp, key, value, .. } = deposit;
    if !node.replicas().knows_shard(*shard) {
        return Err(node.replicas().no_such_shard(*shard));
    }
    dkv_state::check_key(key)?;
    let operation = value.as_deref().map_or(Operation::Delete, Operation::Put);
    dkv_state::check_value(operation, node.settings().value_bytes_max)?;
    if node.store().disk_full() {
        return Err(Refusal::Unavailable(
            "the disk of this node is full; it takes writes once there is room on it".into(),
        ));
    }
    // A write taken before is still recognised; see below for the rest.
    if node.is_going() && !deposit.again {
        return Err(outbox::draining());
    }
    node.clock().admit(*stamp).map_err(|now| Refusal::Clock { now })
}
