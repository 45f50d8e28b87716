//! A face whose own certificate is that of a user of dkv: its callers may do what the policies of
//! that user allow.

use bytes::Bytes;
use dkv_api::{PolicyRule, Role, TokenOptions};
use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use tonic::Code;

use super::sharing::wait_for;
use super::watches::Watching;
use super::{Face, prefix};
use crate::harness::Network;
use crate::harness::process::spawn;

#[tokio::test(flavor = "multi_thread")]
async fn a_face_of_a_user_is_limited_by_policies() {
    let network = Network::start(1).await;
    // It creates the keyspace.
    Face::start(&network).await.put("b", "v").await;
    let admin = network.admin().await;
    let user = "alice".parse().unwrap();
    let rule = PolicyRule {
        keyspace: Some(admin.keyspace("etcd").await.unwrap().keyspace_id()),
        prefix: Bytes::from("a/"),
        rights: "read,write,watch".parse().unwrap(),
    };
    admin.create_policy("p", vec![rule]).await.unwrap();
    admin.grant_policy("p", user).await.unwrap();
    let options = TokenOptions { user: Some(user), ..TokenOptions::default() };
    let token = admin.create_token_with(Role::Client, options).await.unwrap();
    let (file, home) = (network.path("alice.token"), network.path("alice"));
    std::fs::write(&file, token).unwrap();
    std::fs::create_dir_all(&home).unwrap();
    let (server, file) = (network.address.to_string(), file.to_str().unwrap());
    let arguments = ["gateway", &server, "--token-file", file, "--etcd", "127.0.0.1:0"];
    let mut process = spawn(&arguments, &home, &network.path("alice.log"));
    let address = process.ready().await.unwrap();
    let face = Face { process, address };

    face.put("a/k", "1").await;
    let put = PutRequest { key: "b".into(), value: "w".into(), ..PutRequest::default() };
    let denied = face.kv().put(put).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    let read = async |request: RangeRequest| face.kv().range(request).await;
    assert_eq!(read(prefix("a/")).await.unwrap().into_inner().count, 1);
    for outside in [prefix("a"), prefix("b")] {
        assert_eq!(read(outside).await.unwrap_err().code(), Code::PermissionDenied);
    }

    let mut watching = Watching::start(&face).await;
    let watch = |watch_id, key: &'static str, range_end: &'static str| {
        RequestUnion::CreateRequest(WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            watch_id,
            ..WatchCreateRequest::default()
        })
    };
    watching.ask(watch(1, "a/", "a0"));
    assert!(watching.next().await.created);
    // It may not watch all keys for all of its callers, so each watch is one of the network.
    wait_for(&face, [1, 1, 1]).await;
    for value in ["2", "3"] {
        face.put("a/k", value).await;
        let shown = watching.next().await;
        assert_eq!(&shown.events[0].kv.as_ref().unwrap().value[..], value.as_bytes());
    }
    watching.ask(watch(2, "b", ""));
    let refused = loop {
        let answer = watching.next().await;
        if answer.watch_id == 2 && answer.canceled {
            break answer;
        }
    };
    assert!(refused.cancel_reason.contains("permission denied"), "{refused:?}");
    admin.revoke_policy("p", user).await.unwrap();
    let ended = watching.next().await;
    assert!(ended.canceled && ended.watch_id == 1, "{ended:?}");
    assert!(ended.cancel_reason.contains("permission denied"), "{ended:?}");
}
