//! Leases.

use dkv_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest,
};
use dkv_test_support::eventually;
use futures::StreamExt;
use serde_json::json;
use tonic::Code;

use super::{Face, prefix};
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_granted_kept_and_revoked_with_its_keys() {
    let network = Network::start(3).await;
    let face = Face::start(&network).await;
    let mut lease = face.lease();
    let granted = lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 77 }).await.unwrap();
    assert_eq!((granted.get_ref().id, granted.get_ref().ttl), (77, 60));
    let twice = lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 77 }).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition);
    assert_eq!(twice.message(), "etcdserver: lease already exists");
    let chosen = lease.lease_grant(LeaseGrantRequest { ttl: 0, id: 0 }).await.unwrap();
    assert!(chosen.get_ref().id > 0 && chosen.get_ref().ttl >= 1, "{chosen:?}");
    let endless = LeaseGrantRequest { ttl: 9_000_000_001, id: 0 };
    let endless = lease.lease_grant(endless).await.unwrap_err();
    assert_eq!(endless.message(), "etcdserver: too large lease TTL");

    let put = |lease| PutRequest { key: "k".into(), lease, ..Default::default() };
    face.kv().put(put(77)).await.unwrap();
    let unknown = face.kv().put(put(78)).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let ask = |id| LeaseTimeToLiveRequest { id, keys: true };
    let shown = lease.lease_time_to_live(ask(77)).await.unwrap().into_inner();
    assert_eq!((shown.granted_ttl, &shown.keys[0][..]), (60, &b"k"[..]));
    assert!((50..=60).contains(&shown.ttl), "{shown:?}");
    let listed = lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert!(listed.leases.iter().any(|lease| lease.id == 77), "{listed:?}");

    let messages = [77, 78, 77].map(|id| LeaseKeepAliveRequest { id });
    let kept = lease.lease_keep_alive(futures::stream::iter(messages)).await.unwrap();
    let kept: Vec<_> = kept.into_inner().map(Result::unwrap).collect().await;
    let times: Vec<_> = kept.iter().map(|kept| (kept.id, kept.ttl)).collect();
    assert_eq!(times, [(77, 60), (78, 0), (77, 60)], "in order; none is left of an unknown lease");
    let (_, line) = face.post("/v3/lease/keepalive", json!({ "ID": "77" })).await;
    assert_eq!((&line["result"]["ID"], &line["result"]["TTL"]), (&json!("77"), &json!("60")));

    lease.lease_revoke(LeaseRevokeRequest { id: 77 }).await.unwrap();
    let gone = face.kv().range(prefix("k")).await.unwrap().into_inner();
    assert_eq!(gone.count, 0);
    let twice = lease.lease_revoke(LeaseRevokeRequest { id: 77 }).await.unwrap_err();
    assert_eq!(twice.code(), Code::NotFound);
    let shown = lease.lease_time_to_live(ask(77)).await.unwrap().into_inner();
    assert_eq!((shown.ttl, shown.granted_ttl), (-1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_with_a_lease_that_ends() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let granted = face.lease().lease_grant(LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap();
    let lease = granted.get_ref().id;
    for key in ["k1", "k2"] {
        let put = PutRequest { key: key.into(), lease, ..Default::default() };
        face.kv().put(put).await.unwrap();
    }
    let before = face.kv().range(prefix("k")).await.unwrap().into_inner();
    assert_eq!(before.count, 2);
    let revision = before.header.unwrap().revision;
    let after = eventually("the lease to end", async || {
        let now = face.kv().range(prefix("k")).await.unwrap().into_inner();
        if now.count == 0 { Ok(now) } else { Err(format!("{} keys", now.count)) }
    })
    .await;
    assert_eq!(after.header.unwrap().revision, revision + 1, "all keys go in one revision");
}
