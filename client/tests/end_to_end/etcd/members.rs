//! Members, the status, and what the network does by itself.

use std::collections::BTreeSet;

use dkv_etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use dkv_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use dkv_etcd::proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, DowngradeRequest, HashKvRequest, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest, PutRequest,
    StatusRequest,
};
use dkv_test_support::eventually;
use tonic::Code;

use super::{Channel, Face, prefix};
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_members_and_the_primary_leads() {
    let mut network = Network::start(3).await;
    let face = Face::start(&network).await;
    let listed = face.cluster().member_list(MemberListRequest { linearizable: true }).await;
    let listed = listed.unwrap().into_inner();
    let names: BTreeSet<_> = listed.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["n1", "n2", "n3"]));
    let urls: Vec<_> = listed.members.iter().flat_map(|member| &member.client_ur_ls).collect();
    assert_eq!(urls, [&face.url("")]);
    face.put("k", "v").await;
    let status = face.maintenance().status(StatusRequest {}).await.unwrap().into_inner();
    let leader = listed.members.iter().find(|member| member.id == status.leader).unwrap();
    let header = status.header.unwrap();
    assert_eq!((header.member_id, header.revision), (status.leader, 2));
    assert!(status.raft_index > 0 && status.db_size > 0 && status.errors.is_empty());
    assert!(status.version.starts_with("3.6."), "{}", status.version);

    let index = (0..3).find(|index| format!("n{}", index + 1) == leader.name).unwrap();
    network.kill_node(index);
    let after = eventually("another leader", async || {
        let status = face.maintenance().status(StatusRequest {}).await.unwrap().into_inner();
        let other = status.leader != 0 && status.leader != leader.id;
        if other { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert!(after.raft_term > status.raft_term, "{after:?}");
    assert!(face.put("k", "w").await.raft_term >= after.raft_term);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_network_does_by_itself_is_refused_by_name() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let (mut cluster, mut maintenance) = (face.cluster(), face.maintenance());
    let listed = cluster.member_list(MemberListRequest::default()).await.unwrap().into_inner();
    let id = listed.members[0].id;
    let add = |url: &str| MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: false };
    let says = |refused: tonic::Status| (refused.code(), refused.message().to_owned());
    let bad = says(cluster.member_add(add("here")).await.unwrap_err());
    assert_eq!(bad, (Code::InvalidArgument, "etcdserver: given member URLs are invalid".into()));
    let (code, text) = says(cluster.member_add(add("http://10.0.0.1:2380")).await.unwrap_err());
    assert!(code == Code::FailedPrecondition && text.contains("dkv-node"), "{text}");
    let unknown = cluster.member_remove(MemberRemoveRequest { id: 7 }).await.unwrap_err();
    assert_eq!(says(unknown), (Code::NotFound, "etcdserver: member not found".into()));
    let promoted = cluster.member_promote(MemberPromoteRequest { id }).await.unwrap_err();
    assert_eq!(promoted.message(), "etcdserver: can only promote a learner member");
    let moved = maintenance.move_leader(MoveLeaderRequest { target_id: 7 }).await.unwrap_err();
    assert_eq!(moved.message(), "etcdserver: bad leader transferee");
    maintenance.move_leader(MoveLeaderRequest { target_id: id }).await.unwrap();
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());
    let lower = DowngradeRequest { action: 1, version: "3.5.0".into() };
    assert_eq!(maintenance.downgrade(lower).await.unwrap_err().code(), Code::InvalidArgument);

    let second = Face::start(&network).await;
    let mut other = second.maintenance();
    face.put("k", "v").await;
    let hash = maintenance.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    let same = other.hash_kv(HashKvRequest { revision: 2 }).await.unwrap().into_inner();
    assert_eq!((hash.hash, hash.hash_revision), (same.hash, same.hash_revision));
    face.put("k", "w").await;
    let changed = other.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_ne!(hash.hash, changed.hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_moves_to_the_member_that_is_asked_for() {
    let network = Network::start(3).await;
    let face = Face::start(&network).await;
    face.put("a", "1").await;
    let mut maintenance = face.maintenance();
    let leader = async |maintenance: &mut MaintenanceClient<Channel>| {
        maintenance.status(StatusRequest {}).await.unwrap().into_inner().leader
    };
    let before = leader(&mut maintenance).await;
    let listed = face.cluster().member_list(MemberListRequest::default()).await.unwrap();
    let others = listed.into_inner().members.into_iter().map(|member| member.id);
    let target_id = others.into_iter().find(|id| *id != before).unwrap();
    eventually("the member has a vote and takes over", async || {
        let moved = face.maintenance().move_leader(MoveLeaderRequest { target_id }).await;
        moved.map(drop).map_err(|error| error.to_string())
    })
    .await;
    eventually("the member leads", async || {
        let leads = leader(&mut face.maintenance()).await;
        if leads == target_id { Ok(()) } else { Err(format!("{leads} leads")) }
    })
    .await;
    face.put("a", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_stop_writes_at_every_face_until_they_are_disarmed() {
    let network = Network::start(1).await;
    let (here, there) = (Face::start(&network).await, Face::start(&network).await);
    here.put("a", "1").await;
    there.put("a", "2").await;
    let alarm = |action: AlarmAction, alarm: AlarmType| AlarmRequest {
        action: action.into(),
        alarm: alarm.into(),
        member_id: 7,
    };
    let raised = here.maintenance().alarm(alarm(AlarmAction::Activate, AlarmType::Nospace)).await;
    assert_eq!(raised.unwrap().into_inner().alarms.len(), 1);
    let put = || PutRequest { key: "a".into(), ..Default::default() };
    assert_eq!(here.kv().put(put()).await.unwrap_err().code(), Code::ResourceExhausted);
    eventually("the other face knows of it", async || {
        let refused = there.kv().put(put()).await.err();
        refused.map(drop).ok_or_else(|| "it wrote".to_owned())
    })
    .await;
    assert_eq!(there.kv().range(prefix("a")).await.unwrap().into_inner().count, 1);
    let all = there.maintenance().alarm(AlarmRequest::default()).await.unwrap().into_inner();
    assert_eq!((all.alarms.len(), all.alarms[0].member_id), (1, 7));
    let disarm = alarm(AlarmAction::Deactivate, AlarmType::Nospace);
    assert_eq!(there.maintenance().alarm(disarm).await.unwrap().into_inner().alarms.len(), 1);
    here.kv().put(put()).await.unwrap();
}
