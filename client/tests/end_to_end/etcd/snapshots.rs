//! Snapshots: files of etcd, read as a user of etcd reads them.

use std::collections::BTreeSet;
use std::io::Cursor;

use dkv_bolt::{BoltError, Checksum, SnapshotFile};
use dkv_etcd::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, SnapshotRequest,
    TxnRequest, request_op,
};
use prost::Message;

use super::Face;
use crate::harness::Network;

/// Receives a snapshot and checks how it is cut.
pub(super) async fn snapshot(face: &Face) -> (i64, Vec<u8>) {
    let answers = face.maintenance().snapshot(SnapshotRequest {}).await.unwrap();
    let (mut answers, mut file, mut revision) = (answers.into_inner(), Vec::new(), 0);
    let mut remaining = None;
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(header) = answer.header {
            revision = header.revision;
        }
        let blob = answer.blob.len() as u64;
        match remaining {
            Some(0) => assert_eq!((blob, answer.remaining_bytes), (32, 0)),
            Some(before) => assert_eq!(before, blob + answer.remaining_bytes),
            None => assert!(blob > 0),
        }
        remaining = Some(answer.remaining_bytes);
        file.extend_from_slice(&answer.blob);
    }
    (revision, file)
}

fn put(key: String, value: Vec<u8>, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_what_a_range_has() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let (revision, empty) = snapshot(&face).await;
    let empty = SnapshotFile::open(Cursor::new(&empty), Checksum::Check).unwrap();
    assert_eq!((empty.revision(), empty.count(), revision), (1, 0, 1));

    let grant = LeaseGrantRequest { ttl: 600, id: 77 };
    face.lease().lease_grant(grant).await.unwrap();
    for batch in 0..5 {
        let puts = (0..100).map(|at| {
            let put = put(format!("k{batch}/{at}"), vec![b'v'; 300], if at == 0 { 77 } else { 0 });
            RequestOp { request: Some(request_op::Request::RequestPut(put)) }
        });
        let request = TxnRequest { success: puts.collect(), ..Default::default() };
        face.kv().txn(request).await.unwrap();
    }
    face.kv().put(put("large".into(), vec![7; 1 << 20], 0)).await.unwrap();
    for value in [b"1", b"2"] {
        face.kv().put(put("twice".into(), value.to_vec(), 0)).await.unwrap();
    }
    let delete = DeleteRangeRequest { key: "k0/7".into(), ..Default::default() };
    face.kv().delete_range(delete).await.unwrap();

    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let all = face.kv().range(all).await.unwrap().into_inner();
    let (revision, file) = snapshot(&face).await;
    assert_eq!(revision, all.header.unwrap().revision);
    let mut file = SnapshotFile::open(Cursor::new(&file), Checksum::Check).unwrap();
    // The last revision is that of a deletion, and no key has it.
    assert_eq!((file.revision(), file.count()), (revision, 501));
    let (mut keys, mut last) = (BTreeSet::new(), 0);
    let read = file.keys(|key| {
        assert!(key.mod_revision >= last);
        last = key.mod_revision;
        keys.insert(key.encode_to_vec());
        Ok::<_, BoltError>(())
    });
    read.unwrap();
    assert_eq!(keys, all.kvs.iter().map(Message::encode_to_vec).collect());
    let mut leases = Vec::new();
    let read = file.leases(|lease| {
        leases.push((lease.id, lease.ttl));
        Ok::<_, BoltError>(())
    });
    read.unwrap();
    assert_eq!(leases, [(77, 600)]);
}
