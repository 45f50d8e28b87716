//! Samples of messages about history, watches and transactions.

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision, Stamp};

use crate::message::*;

pub(in crate::message::tests) fn transactions() -> Vec<Transaction<'static>> {
    let keys = [Keys::Key(b"k"), Keys::Prefix(b""), Keys::Range(b"a", b"b")];
    let tests = [
        Test::Exists(true),
        Test::Revision(Relation::Equal, Revision(7)),
        Test::Created(Relation::NotEqual, Revision(7)),
        Test::Version(Relation::Less, 3),
        Test::Value(Relation::Greater, b"value"),
        Test::Lease(Relation::Equal, 1 << 62),
    ];
    let compares = keys.iter().cycle().zip(tests);
    let compares = compares.map(|(keys, test)| Compare { keys: *keys, test }).collect();
    let then = vec![
        TransactionOperation::Get(b"k"),
        TransactionOperation::List { keys: Keys::Prefix(b"k"), keys_max: 100 },
        TransactionOperation::Put(b"a", b"value"),
        TransactionOperation::Delete(b"b"),
        TransactionOperation::DeleteAll(Keys::Range(b"c", b"d")),
        TransactionOperation::Increment { key: b"n", by: -1 },
        TransactionOperation::Append { key: b"l", bytes: b"more" },
        TransactionOperation::PutAttached {
            key: b"e",
            value: b"value",
            attach: Attach::Lease(LeaseId(1 << 62)),
        },
        TransactionOperation::PutWith {
            key: b"f",
            value: Some(b"value"),
            attach: PutAttach::To(Attach::Lease(LeaseId(1 << 62))),
            previous: true,
        },
        TransactionOperation::PutWith {
            key: b"g",
            value: None,
            attach: PutAttach::AsBefore,
            previous: false,
        },
        TransactionOperation::DeleteWith { keys: Keys::Range(b"h", b""), previous: true },
        TransactionOperation::Range { keys: Keys::Prefix(b"k"), options: range_options() },
        // A transaction that does nothing.
        TransactionOperation::Nested(&[0, 0, 0]),
    ];
    vec![Transaction::default(), Transaction { compares, then, otherwise: Vec::new() }]
}

pub(super) fn operation_results() -> Vec<OperationResult> {
    vec![
        OperationResult::Got(None),
        OperationResult::Listed { keys: vec![(Bytes::from("k"), version(true))], more: true },
        OperationResult::Put { created: Revision(4), version: 2 },
        OperationResult::Deleted(3),
        OperationResult::Changed(version(true)),
        OperationResult::Replaced { previous: Some(version(true)) },
        OperationResult::Removed {
            deleted: 1,
            previous: vec![(Bytes::from("k"), version(true))],
            revision: Revision(1000),
        },
        OperationResult::Ranged {
            keys: vec![(Bytes::from("k"), version(true))],
            more: true,
            count: 12,
            revision: Revision(1000),
        },
        OperationResult::Nested { succeeded: true, results: 2 },
    ]
}

pub(super) fn range_options() -> RangeOptions {
    RangeOptions {
        keys_max: 100,
        part: RangePart::Keys,
        at: Some(Revision(7)),
        written: (Revision(2), Revision(9)),
        created: (Revision(0), Revision(u64::MAX)),
    }
}

pub(super) fn version(exists: bool) -> Version {
    Version {
        revision: Revision(1000),
        created: Revision(if exists { 900 } else { 1000 }),
        version: if exists { 3 } else { 0 },
        stamp: Stamp(1 << 60),
        value: exists.then(|| Bytes::from("value")),
        lease: LeaseId(if exists { 1 << 62 } else { 0 }),
        expiry: exists.then_some(VersionExpiry { ttl_ms: 1000, remaining_ms: 10 }),
    }
}

pub(super) fn cut() -> Cut {
    Cut { revision: Revision(1000), base: Revision(998), moment: Stamp(1 << 60) }
}

pub(super) fn versions() -> Versions {
    Versions { versions: vec![version(false), version(true)], more: true, floor: Revision(5) }
}

fn key_ranges() -> Vec<KeyRange> {
    let (from, to) = (Bytes::from("a"), Bytes::from("b"));
    vec![KeyRange::Key(from.clone()), KeyRange::Prefix(Bytes::new()), KeyRange::Range(from, to)]
}

pub(in crate::message::tests) fn watch_requests() -> Vec<WatchRequest> {
    let user = Some("alice".parse().unwrap());
    let request =
        |(keys, after)| WatchRequest { shard: GroupId(1), keys, after, previous: true, user };
    key_ranges()
        .into_iter()
        .zip([None, Some(Revision(0)), Some(Revision(9))])
        .map(request)
        .collect()
}

pub(in crate::message::tests) fn watch_frames() -> Vec<WatchFrame> {
    let change = |previous: bool| Change {
        key: Bytes::from("key"),
        version: version(!previous),
        previous: previous.then(|| version(true)),
    };
    let changes = |changes| WatchFrame::Changes { changes, through: Revision(1000) };
    vec![
        changes(Vec::new()),
        changes(vec![change(false), change(true)]),
        WatchFrame::Ended(Refusal::Compacted { floor: Revision(3) }),
    ]
}
