//! Samples of messages about leases and the expiry of keys.

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Serial, SessionId, Stamp};

use super::{receipt, uuid};
use crate::message::*;

const LEASE: LeaseId = LeaseId(1 << 62);

pub(super) fn request_bodies() -> Vec<RequestBody> {
    let (shard, lease) = (GroupId(1), LEASE);
    vec![
        RequestBody::KeepAlive { shard, lease },
        RequestBody::Leases { shard, after: LeaseId(0), leases_max: 100 },
        RequestBody::LeaseInfo { shard, lease, after: Bytes::from("key"), keys_max: 100 },
        RequestBody::KeyTtl { shard, key: Bytes::from("key") },
    ]
}

pub(super) fn commands() -> Vec<Command<'static>> {
    let (session, serial, settled) = (SessionId(uuid('s')), Serial(7), Serial(5));
    let attached = |attach| {
        Command::WriteAttached(WriteAttached {
            write: Write {
                session,
                serial,
                settled,
                after: Stamp(1 << 60),
                condition: Condition::Absent,
                key: b"key",
                operation: Operation::Put(b"value"),
            },
            attach,
        })
    };
    let change =
        |action| Command::Lease(LeaseCommand { session, serial, settled, lease: LEASE, action });
    vec![
        attached(Attach::Lease(LEASE)),
        attached(Attach::Ttl(60_000)),
        change(LeaseAction::Grant { ttl_ms: 10_000 }),
        change(LeaseAction::GrantTo { ttl_ms: 10_000, user: "alice".parse().unwrap() }),
        change(LeaseAction::Revoke),
        Command::Expire(Expire::Keys),
        Command::Expire(Expire::Lease { lease: LEASE, grant: 1 << 60 }),
    ]
}

fn status() -> LeaseStatus {
    LeaseStatus { lease: LEASE, ttl_ms: 10_000, remaining_ms: 7_300, keys: 2 }
}

pub(super) fn answers() -> Vec<Answer> {
    let receipt = receipt(Level::Strong, Some(0));
    let keys = vec![Bytes::from("a"), Bytes::from("b")];
    vec![
        Answer::Granted(receipt),
        Answer::Revoked { receipt, deleted: 1024, left: 5 },
        Answer::KeptAlive { receipt, ttl_ms: 10_000 },
        Answer::Leases { receipt, leases: vec![status()], more: true },
        Answer::Lease { receipt, status: status(), keys, more: false },
        Answer::KeyExpiry(receipt, KeyExpiry::Absent),
        Answer::KeyExpiry(receipt, KeyExpiry::Never),
        Answer::KeyExpiry(receipt, KeyExpiry::Ttl { ttl_ms: 500, remaining_ms: 20 }),
        Answer::KeyExpiry(receipt, KeyExpiry::Lease(status())),
    ]
}

pub(super) fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NoLease { lease: LEASE },
        Refusal::LeaseExists { lease: LEASE },
        Refusal::TooManyLeases { own: true, limit: 10_000 },
    ]
}
