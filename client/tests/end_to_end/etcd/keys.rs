//! Ranges, over gRPC and JSON.

use std::cmp::Reverse;

use dkv_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use dkv_etcd::proto::etcdserverpb::{RangeRequest, RangeResponse};
use dkv_etcd::proto::mvccpb::KeyValue;
use serde_json::json;
use tonic::Code;

use super::{Face, keys, prefix};
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_a_message_mean_the_same() {
    let network = Network::start(3).await;
    let face = Face::start(&network).await;
    let empty = face.kv().range(prefix("a")).await.unwrap().into_inner();
    assert_eq!(empty.header.as_ref().unwrap().revision, 1, "an empty store is at revision 1");
    let first = face.put("a1", "one").await;
    assert_eq!(first.revision, 2);
    let (status, put) = face
        .post("/v3/kv/put", json!({ "key": "YTI=", "value": "dHdv", "something": "new" }))
        .await;
    assert_eq!((status, &put["header"]["revision"]), (200, &json!("3")));
    assert_eq!(put["header"]["cluster_id"], json!(first.cluster_id.to_string()));

    let found = face.kv().range(prefix("a")).await.unwrap().into_inner();
    assert_eq!((keys(&found), found.count, found.more), (vec!["a1", "a2"], 2, false));
    let expected = KeyValue {
        key: "a1".into(),
        value: "one".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        lease: 0,
    };
    assert_eq!(found.kvs[0], expected);
    let (_, found) = face.post("/v3beta/kv/range", json!({ "key": "YTE=" })).await;
    let expected = json!([{ "key": "YTE=", "value": "b25l", "create_revision": "2",
        "mod_revision": "2", "version": "1" }]);
    assert_eq!((&found["kvs"], &found["count"]), (&expected, &json!("1")));

    let (status, refused) = face.post("/v3/kv/range", json!({})).await;
    assert_eq!((status, &refused["code"]), (400, &json!(3)));
    assert_eq!(refused["message"], json!("etcdserver: key is not provided"));
    let future = RangeRequest { revision: 99, ..prefix("a") };
    let refused = face.kv().range(future).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let says = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(refused.message(), says);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_a_range_is_that_of_a_model() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    for (key, value) in
        [("k3", "c"), ("k1", "b"), ("k2", "a"), ("k1", "z"), ("x", "-"), ("k3", "d")]
    {
        face.put(key, value).await;
    }
    let all = face.kv().range(prefix("k")).await.unwrap().into_inner().kvs;
    assert_eq!(all.len(), 3);
    let (targets, orders) = (
        [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ],
        [SortOrder::None, SortOrder::Ascend, SortOrder::Descend],
    );
    let mut asked = 0;
    for (target, order) in targets.into_iter().flat_map(|it| orders.map(|order| (it, order))) {
        for limit in [0, 1, 2, 3] {
            for (least, most) in [(0, 0), (4, 0), (0, 5), (3, 5), (9, 0)] {
                let request = RangeRequest {
                    sort_target: target as i32,
                    sort_order: order as i32,
                    limit,
                    min_mod_revision: least,
                    max_mod_revision: most,
                    ..prefix("k")
                };
                let found = face.kv().range(request).await.unwrap().into_inner();
                let expected = model(&all, target, order, limit as usize, (least, most));
                let shown =
                    |answer: &RangeResponse| (answer.kvs.clone(), answer.more, answer.count);
                let what = (target, order, limit, least, most);
                assert_eq!(shown(&found), (expected.0, expected.1, 3), "{what:?}");
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 300);
    let counted = RangeRequest { count_only: true, limit: 1, ..prefix("k") };
    let counted = face.kv().range(counted).await.unwrap().into_inner();
    assert_eq!((counted.count, counted.kvs.len(), counted.more), (3, 0, false));
    let bare = RangeRequest { keys_only: true, ..prefix("k") };
    let bare = face.kv().range(bare).await.unwrap().into_inner();
    assert!(bare.kvs.iter().all(|pair| pair.value.is_empty() && pair.mod_revision > 0));
    let from = RangeRequest { key: "k3".into(), range_end: vec![0].into(), ..Default::default() };
    let from = face.kv().range(from).await.unwrap().into_inner();
    assert_eq!(keys(&from), ["k3", "x"]);
    let inverted = RangeRequest { key: "x".into(), range_end: "k".into(), ..Default::default() };
    let inverted = face.kv().range(inverted).await.unwrap().into_inner();
    assert_eq!((inverted.count, inverted.kvs.len()), (0, 0));
    let near = RangeRequest { serializable: true, ..prefix("k") };
    assert_eq!(face.kv().range(near).await.unwrap().into_inner().kvs.len(), 3);
    let early = RangeRequest { revision: 3, ..prefix("k") };
    let early = face.kv().range(early).await.unwrap().into_inner();
    assert_eq!((keys(&early), &early.kvs[0].value[..]), (vec!["k1", "k3"], &b"b"[..]));
    assert_eq!(early.header.unwrap().revision, 7, "the header has the latest revision");
}

fn model(
    all: &[KeyValue],
    target: SortTarget,
    order: SortOrder,
    limit: usize,
    (least, most): (i64, i64),
) -> (Vec<KeyValue>, bool) {
    let mut kept: Vec<KeyValue> = all.to_vec();
    kept.retain(|pair| least == 0 || pair.mod_revision >= least);
    kept.retain(|pair| most == 0 || pair.mod_revision <= most);
    let by = |pair: &KeyValue| match target {
        SortTarget::Key => pair.key.to_vec(),
        SortTarget::Value => pair.value.to_vec(),
        SortTarget::Version => pair.version.to_be_bytes().to_vec(),
        SortTarget::Create => pair.create_revision.to_be_bytes().to_vec(),
        SortTarget::Mod => pair.mod_revision.to_be_bytes().to_vec(),
    };
    match order {
        SortOrder::Descend => kept.sort_by_key(|pair| Reverse(by(pair))),
        SortOrder::None | SortOrder::Ascend => kept.sort_by_key(by),
    }
    let more = limit > 0 && kept.len() > limit;
    if limit > 0 {
        kept.truncate(limit);
    }
    (kept, more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_range_is_of_one_revision_and_merges_to_the_whole() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let value = "v".repeat(64 * 1024);
    for number in 0..40 {
        face.put(&format!("k{number:02}"), &value).await;
    }
    let whole = face.kv().range(prefix("k")).await.unwrap().into_inner();
    let mut stream = face.kv().range_stream(prefix("k")).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        if parts.is_empty() {
            face.put("k99", "later").await;
        }
        parts.push(part.range_response.unwrap());
    }
    let last = parts.last().unwrap();
    assert_eq!((last.count, last.more, last.header.as_ref().unwrap().revision), (40, false, 41));
    assert!(parts.len() > 1, "40 values of 64 KiB are more than a page");
    assert!(parts[..parts.len() - 1].iter().all(|part| part.header.is_none() && part.count == 0));
    let merged: Vec<KeyValue> = parts.into_iter().flat_map(|part| part.kvs).collect();
    assert_eq!(merged, whole.kvs);
    let sorted = RangeRequest { sort_order: SortOrder::Descend as i32, ..prefix("k") };
    let refused = face.kv().range_stream(sorted).await.unwrap().into_inner().message().await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_faces_serve_one_keyspace() {
    let network = Network::start(3).await;
    let (one, other) = (Face::start(&network).await, Face::start(&network).await);
    let written = one.put("shared", "1").await;
    let found = other.kv().range(prefix("shared")).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].mod_revision, written.revision);
    assert_eq!(found.header.unwrap().cluster_id, written.cluster_id);
    drop(one.process);
    let again = other.put("shared", "2").await;
    assert_eq!(again.revision, written.revision + 1);
    let named = Face::start_with(&network, &["--etcd-keyspace", "another"]).await;
    assert_eq!(named.put("shared", "3").await.revision, 2);
}
