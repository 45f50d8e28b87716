//! Each request of a client about keys, and the right that it needs.

use bytes::Bytes;
use dkv_api::{Condition, KeyRange, Revision, Right, Stamp};
use dkv_wire::codec::encode;
use dkv_wire::message::{
    Command, Cut, LeaseAction, LeaseCommand, Operation, RangeOptions, ReadBounds, ReadMode,
    RequestBody, Span, Transact, Transaction, TransactionOperation, Write,
};

use super::SHARD;

/// Every request about keys of a shard that a client sends, all of them about `a/k`, and what it
/// needs for that.
pub(super) fn requests() -> Vec<(RequestBody, Right)> {
    let (shard, key) = (SHARD, Bytes::from_static(b"a/k"));
    let mode = || ReadMode::Primary;
    let eventual = || ReadMode::Eventual(ReadBounds::default());
    let prefix = Bytes::from_static(b"a/");
    let span = || Span {
        prefix: prefix.clone(),
        after: Bytes::new(),
        keys_max: 10,
        bytes_max: 1000,
        values: true,
    };
    let at = Cut::at(Revision(1));
    let session = dkv_base::id::SessionId::random();
    let (serial, settled) = (dkv_base::id::Serial(1), dkv_base::id::Serial(1));
    let (after, condition) = (Stamp::default(), Condition::Always);
    let operation = Operation::Put(b"v");
    let write = Write { session, serial, settled, after, condition, key: b"a/k", operation };
    let body = |operation| encode(&Transaction { then: vec![operation], ..Transaction::default() });
    let (get, put) =
        (body(TransactionOperation::Get(b"a/k")), body(TransactionOperation::Put(b"a/k", b"v")));
    let transact = |body| Command::Transact(Transact { session, serial, settled, after, body });
    let lease = dkv_api::LeaseId(7);
    let grant = LeaseAction::Grant { ttl_ms: 60_000 };
    let grant = Command::Lease(LeaseCommand { session, serial, settled, lease, action: grant });
    let propose = |command: &Command<'_>| RequestBody::Propose {
        shard,
        everywhere: false,
        command: encode(command),
    };
    let keys = KeyRange::Prefix(prefix.clone());
    let options = RangeOptions::default();
    let stamp = Stamp::default();
    vec![
        (RequestBody::Read { shard, key: key.clone(), mode: mode() }, Right::Read),
        (RequestBody::Read { shard, key: key.clone(), mode: eventual() }, Right::Read),
        (RequestBody::Read { shard, key: key.clone(), mode: ReadMode::Replica }, Right::Read),
        (RequestBody::Scan { shard, span: span(), mode: mode() }, Right::Read),
        (RequestBody::Scan { shard, span: span(), mode: ReadMode::Held }, Right::Read),
        (
            RequestBody::Range {
                shard,
                keys,
                after: Bytes::new(),
                options,
                bytes_max: 1000,
                count: true,
                mode: mode(),
            },
            Right::Read,
        ),
        (RequestBody::ReadAt { shard, key: key.clone(), at }, Right::Read),
        (RequestBody::ScanAt { shard, span: span(), at }, Right::Read),
        (
            RequestBody::History { shard, key: key.clone(), before: Revision(0), versions_max: 10 },
            Right::Read,
        ),
        (RequestBody::KeyTtl { shard, key: key.clone() }, Right::Read),
        (RequestBody::Cut { shard, moment: stamp }, Right::Read),
        (propose(&Command::Write(write)), Right::Write),
        (propose(&transact(&get)), Right::Read),
        (propose(&transact(&put)), Right::Write),
        (propose(&grant), Right::Write),
        (RequestBody::KeepAlive { shard, lease }, Right::Write),
        (RequestBody::Deposit { shard, stamp, again: false, key, value: None }, Right::Write),
    ]
}

/// Requests that need a right to all keys of the keyspace.
pub(super) fn requests_about_all() -> Vec<(RequestBody, Right)> {
    let (shard, lease) = (SHARD, dkv_api::LeaseId(7));
    let none = dkv_api::LeaseId(0);
    let after = Bytes::new();
    vec![
        (RequestBody::Leases { shard, after: none, leases_max: 1 }, Right::Read),
        (RequestBody::LeaseInfo { shard, lease, after, keys_max: 1 }, Right::Read),
        (RequestBody::Compact { shard, floor: Revision(1) }, Right::Administer),
    ]
}
