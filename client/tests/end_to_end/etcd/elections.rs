//! Elections and locks.

use dkv_etcd::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest,
};
use dkv_etcd::proto::v3electionpb::CampaignRequest;
use dkv_etcd::proto::v3electionpb::election_client::ElectionClient;
use dkv_etcd::proto::v3lockpb::LockRequest;
use dkv_etcd::proto::v3lockpb::lock_client::LockClient;
use dkv_test_support::eventually;

use super::{Face, prefix};
use crate::harness::Network;

/// Waits until there are so many candidates.
async fn candidates(face: &Face, name: &str, number: i64) {
    eventually("the candidates", async || {
        let request = RangeRequest { count_only: true, ..prefix(name) };
        let count = face.kv().range(request).await.unwrap().into_inner().count;
        if count == number { Ok(()) } else { Err(format!("{count} of {number}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_lease_while_it_waited_does_not_come_first() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let (channel, origin) = face.channel();
    let election = ElectionClient::with_origin(channel.clone(), origin.clone());
    let lock = LockClient::with_origin(channel, origin);
    for id in [1, 2] {
        face.lease().lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }
    let campaign = |lease| {
        let request = CampaignRequest { name: "e".into(), lease, value: "v".into() };
        let mut election = election.clone();
        async move { election.campaign(request).await }
    };
    let take = |lease| {
        let (request, mut lock) = (LockRequest { name: "l".into(), lease }, lock.clone());
        async move { lock.lock(request).await }
    };
    campaign(1).await.unwrap();
    take(1).await.unwrap();
    let (campaigning, taking) = (tokio::spawn(campaign(2)), tokio::spawn(take(2)));
    candidates(&face, "e/", 2).await;
    candidates(&face, "l/", 2).await;
    face.lease().lease_revoke(LeaseRevokeRequest { id: 2 }).await.unwrap();
    for key in ["e/1", "l/1"] {
        let delete = DeleteRangeRequest { key: key.into(), ..Default::default() };
        assert_eq!(face.kv().delete_range(delete).await.unwrap().into_inner().deleted, 1);
    }
    let refused = campaigning.await.unwrap().unwrap_err();
    assert_eq!(refused.message(), "election: session is expired");
    let refused = taking.await.unwrap().unwrap_err();
    assert_eq!(refused.message(), "mutex: session is expired");
}
