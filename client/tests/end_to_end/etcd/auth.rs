//! Users, roles and permissions, asked with etcd's own messages at two faces of one network.

use bytes::Bytes;
use dkv_etcd::proto::authpb::{Permission, UserAddOptions};
use dkv_etcd::proto::etcdserverpb::auth_client::AuthClient;
use dkv_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use dkv_etcd::proto::etcdserverpb::request_op::Request as Operation;
use dkv_etcd::proto::etcdserverpb::watch_client::WatchClient;
use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthStatusRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserListRequest, AuthenticateRequest, CompactionRequest, Compare, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchRequest,
};
use dkv_etcd::proto::v3electionpb::LeaderRequest;
use dkv_etcd::proto::v3electionpb::election_client::ElectionClient;
use dkv_test_support::eventually;
use serde_json::json;
use tonic::{Code, Request, Status};

use super::{Channel, Face, prefix};
use crate::harness::Network;

const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const NOBODY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const INVALID: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");

impl Face {
    fn auth(&self) -> AuthClient<Channel> {
        let (channel, origin) = self.channel();
        AuthClient::with_origin(channel, origin)
    }

    async fn token(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = AuthenticateRequest { name: name.into(), password: password.into() };
        Ok(self.auth().authenticate(request).await?.into_inner().token)
    }

    async fn put_as(&self, token: &str, key: &str) -> Result<(), Status> {
        let put =
            PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
        self.kv().put(by(token, put)).await.map(drop)
    }

    async fn get_as(&self, token: &str, range: RangeRequest) -> Result<i64, Status> {
        self.kv().range(by(token, range)).await.map(|answer| answer.into_inner().count)
    }

    /// Adds `root` and a user who may read the keys of `a`, and turns authentication on.
    async fn enable(&self) {
        let mut auth = self.auth();
        for name in ["root", "mars"] {
            auth.user_add(user(name, name)).await.unwrap();
        }
        auth.user_grant_role(grant("root", "root")).await.unwrap();
        auth.role_add(AuthRoleAddRequest { name: "reader".into() }).await.unwrap();
        auth.role_grant_permission(permission("reader", 0, "a", "b")).await.unwrap();
        auth.user_grant_role(grant("mars", "reader")).await.unwrap();
        auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    }
}

/// Returns a request of the user of a token; of nobody, if it is empty.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

fn user(name: &str, password: &str) -> AuthUserAddRequest {
    let (name, password) = (name.into(), password.into());
    AuthUserAddRequest { name, password, ..Default::default() }
}

fn grant(user: &str, role: &str) -> AuthUserGrantRoleRequest {
    AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn permission(role: &str, kind: i32, key: &str, end: &str) -> AuthRoleGrantPermissionRequest {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    let perm = Some(Permission { perm_type: kind, key, range_end });
    AuthRoleGrantPermissionRequest { name: role.into(), perm }
}

fn key(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn is_refused<T>(answer: Result<T, Status>) -> Result<(), String> {
    answer.err().map(drop).ok_or_else(|| "it was served".to_owned())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, (code, message): (Code, &str)) {
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.message()), (code, message));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_what_their_roles_say_at_every_face() {
    let network = Network::start(3).await;
    let (here, there) = (Face::start(&network).await, Face::start(&network).await);
    here.put("a1", "v").await;
    there.put("z1", "v").await;
    let mut auth = here.auth();
    let early = auth.auth_enable(AuthEnableRequest {}).await;
    refused(early, (Code::FailedPrecondition, "etcdserver: root user does not exist"));
    let early = here.token("root", "root").await;
    refused(early, (Code::FailedPrecondition, "etcdserver: authentication is not enabled"));
    here.enable().await;
    let status = there.auth().auth_status(AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(status.enabled && status.auth_revision > 1, "{status:?}");

    // A caller without a token may do nothing, at the other face after a second at the latest.
    refused(here.put_as("", "a1").await, NOBODY);
    eventually("the other face refuses nobody's requests", async || {
        is_refused(there.get_as("", key("a1")).await)
    })
    .await;
    let wrong = "etcdserver: authentication failed, invalid user ID or password";
    for (name, password) in [("root", "mars"), ("root", ""), ("venus", "venus")] {
        refused(here.token(name, password).await, (Code::InvalidArgument, wrong));
    }
    refused(here.put_as("forged", "a1").await, INVALID);

    // A token of one face is good at the other.
    let root = here.token("root", "root").await.unwrap();
    let mars = there.token("mars", "mars").await.unwrap();
    there.put_as(&root, "z2").await.unwrap();
    for face in [&here, &there] {
        assert_eq!(face.get_as(&mars, key("a1")).await.unwrap(), 1);
        assert_eq!(face.get_as(&mars, prefix("a")).await.unwrap(), 1);
        refused(face.get_as(&mars, prefix("z")).await, DENIED);
        refused(face.get_as(&mars, key("b")).await, DENIED);
        refused(face.put_as(&mars, "a1").await, DENIED);
    }

    // A transaction needs the permissions of both its branches, and for its compares.
    let put = PutRequest { key: "a1".into(), ..Default::default() };
    let put = RequestOp { request: Some(Operation::RequestPut(put)) };
    let hidden = TxnRequest { failure: vec![put], ..Default::default() };
    refused(here.kv().txn(by(&mars, hidden)).await, DENIED);
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: "z1".into(),
        target_union: Some(TargetUnion::Value("v".into())),
        ..Default::default()
    };
    let guess = TxnRequest { compare: vec![compare], ..Default::default() };
    refused(here.kv().txn(by(&mars, guess)).await, DENIED);

    // Users and roles are for root, but for one's own.
    let mut other = there.auth();
    refused(other.user_list(by(&mars, AuthUserListRequest {})).await, DENIED);
    refused(other.user_add(by(&mars, user("venus", "x"))).await, DENIED);
    let own = AuthUserGetRequest { name: "mars".into() };
    let roles = other.user_get(by(&mars, own)).await.unwrap().into_inner().roles;
    assert_eq!(roles, ["reader"]);
    refused(other.user_get(by(&mars, AuthUserGetRequest { name: "root".into() })).await, DENIED);
    refused(
        here.kv().compact(by(&mars, CompactionRequest { revision: 2, physical: false })).await,
        DENIED,
    );

    // A permission that is granted at one face counts at the other at once.
    auth.role_grant_permission(by(&root, permission("reader", 2, "w", ""))).await.unwrap();
    there.put_as(&mars, "w").await.unwrap();
    let revoke = AuthRoleRevokePermissionRequest {
        role: "reader".into(),
        key: "w".into(),
        range_end: Bytes::new(),
    };
    auth.role_revoke_permission(by(&root, revoke)).await.unwrap();
    refused(here.put_as(&mars, "w").await, DENIED);
    eventually("the other face knows that", async || is_refused(there.put_as(&mars, "w").await))
        .await;

    // Another password makes the tokens of the old one invalid.
    let change = AuthUserChangePasswordRequest {
        name: "mars".into(),
        password: "new".into(),
        ..Default::default()
    };
    auth.user_change_password(by(&root, change)).await.unwrap();
    refused(here.get_as(&mars, key("a1")).await, INVALID);
    assert!(here.token("mars", "mars").await.is_err());
    let mars = here.token("mars", "new").await.unwrap();
    assert_eq!(there.get_as(&mars, key("a1")).await.unwrap(), 1);

    // A face that has restarted takes the tokens of before.
    drop(there);
    let there = Face::start(&network).await;
    assert_eq!(there.get_as(&mars, key("a1")).await.unwrap(), 1);
    auth.auth_disable(by(&root, AuthDisableRequest {})).await.unwrap();
    here.put("open", "v").await;
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    refused(here.get_as(&root, key("a1")).await, INVALID);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_watches_follow_the_keys() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.enable().await;
    let root = face.token("root", "root").await.unwrap();
    let mars = face.token("mars", "mars").await.unwrap();
    let writer = permission("reader", 2, "m", "n");
    face.auth().role_grant_permission(by(&root, writer)).await.unwrap();
    let lease = |id| LeaseGrantRequest { ttl: 60, id };
    refused(face.lease().lease_grant(lease(7)).await, NOBODY);
    for id in [7, 8] {
        face.lease().lease_grant(by(&mars, lease(id))).await.unwrap();
    }
    let attached =
        |key: &str, lease| PutRequest { key: key.to_owned().into(), lease, ..Default::default() };
    face.kv().put(by(&mars, attached("m1", 7))).await.unwrap();
    face.kv().put(by(&root, attached("z", 8))).await.unwrap();
    // Who may not write a key of a lease may neither use nor end it.
    refused(face.kv().put(by(&mars, attached("m2", 8))).await, DENIED);
    refused(face.lease().lease_revoke(by(&mars, LeaseRevokeRequest { id: 8 })).await, DENIED);
    let (sender, messages) = futures::channel::mpsc::unbounded();
    sender.unbounded_send(dkv_etcd::proto::etcdserverpb::LeaseKeepAliveRequest { id: 8 }).unwrap();
    let kept = face.lease().lease_keep_alive(by(&mars, messages)).await.unwrap();
    refused(kept.into_inner().message().await, DENIED);
    face.lease().lease_revoke(by(&mars, LeaseRevokeRequest { id: 7 })).await.unwrap();

    let (channel, origin) = face.channel();
    let mut watch = WatchClient::with_origin(channel, origin);
    let (sender, messages) = futures::channel::mpsc::unbounded();
    let mut answers = watch.watch(by(&mars, messages)).await.unwrap().into_inner();
    let mut create = async |first: &str, end: &str| {
        let (key, range_end) = (first.to_owned().into(), end.to_owned().into());
        let create = WatchCreateRequest { key, range_end, ..Default::default() };
        let request_union = Some(RequestUnion::CreateRequest(create));
        sender.unbounded_send(WatchRequest { request_union }).unwrap();
        answers.message().await.unwrap().unwrap()
    };
    let all = create("a", "\0").await;
    assert!(all.created && all.canceled && all.watch_id == -1, "{all:?}");
    let why = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    assert_eq!(all.cancel_reason, why);
    let own = create("m", "n").await;
    assert!(own.created && !own.canceled, "{own:?}");
    let others = create("a", "b").await;

    // A watch ends when its caller may not begin it any more, and the others go on.
    let (key, range_end) = ("m".into(), "n".into());
    let role = "reader".to_owned();
    let withdrawn = AuthRoleRevokePermissionRequest { role, key, range_end };
    face.auth().role_revoke_permission(by(&root, withdrawn)).await.unwrap();
    let ended = answers.message().await.unwrap().unwrap();
    assert!(ended.canceled && ended.watch_id == own.watch_id, "{ended:?}");
    assert_eq!(ended.cancel_reason, why);
    face.put_as(&root, "a1").await.unwrap();
    let shown = answers.message().await.unwrap().unwrap();
    assert_eq!((shown.watch_id, shown.events.len()), (others.watch_id, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_user_gets_another_password() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.enable().await;
    let root = face.token("root", "root").await.unwrap();
    let mars = face.token("mars", "mars").await.unwrap();
    let (channel, origin) = face.channel();
    let mut election = ElectionClient::with_origin(channel, origin);
    let observed = LeaderRequest { name: "a".into() };
    let mut leaders = election.observe(by(&mars, observed)).await.unwrap().into_inner();
    let (name, password) = ("mars".to_owned(), "other".to_owned());
    let change = AuthUserChangePasswordRequest { name, password, ..Default::default() };
    face.auth().user_change_password(by(&root, change)).await.unwrap();
    refused(leaders.message().await, DENIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_takes_tokens_in_a_header() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.enable().await;
    let (status, answer) = face.post("/v3/kv/range", json!({ "key": "YQ==" })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("etcdserver: user name is empty")));
    let wrong = json!({ "name": "mars", "password": "no" });
    assert_eq!(face.post("/v3/auth/authenticate", wrong).await.0, 400);
    let right = json!({ "name": "mars", "password": "mars" });
    let (status, answer) = face.post("/v3/auth/authenticate", right).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["token"].as_str().unwrap();
    let http = crate::gateway::http::Http::new(false);
    for value in [token.to_owned(), format!("Bearer {token}")] {
        let header = [("authorization", value.as_str())];
        let range = async |key: &str| {
            let body = json!({ "key": key }).to_string();
            http.send("POST", &face.url("/v3/kv/range"), &header, body).await.status
        };
        assert_eq!((range("YQ==").await, range("eg==").await), (200, 403));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_without_passwords_are_for_certificates() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let mut auth = face.auth();
    let options = Some(UserAddOptions { no_password: true });
    auth.user_add(AuthUserAddRequest { options, ..user("by-certificate", "") }).await.unwrap();
    auth.user_add(user("empty", "")).await.unwrap();
    let long = auth.user_add(user("long", &"x".repeat(73))).await;
    refused(long, (Code::Unknown, "bcrypt: password length exceeds 72 bytes"));
    face.enable().await;
    let why = "auth: authentication failed, password was given for no password user";
    refused(face.token("by-certificate", "").await, (Code::Unknown, why));
    assert!(face.token("empty", "").await.is_err(), "nobody gets in without a password");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_face_does_not_open_when_its_users_are_gone() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.enable().await;
    refused(face.put_as("", "a").await, NOBODY);
    let http = crate::gateway::http::Http::new(false);
    let healths = async || {
        let health = async |path| {
            let answer = http.send("GET", &face.url(path), &[], String::new()).await;
            (answer.status, String::from_utf8(answer.body).unwrap())
        };
        [health("/health").await, health("/readyz").await]
    };
    assert!(healths().await.iter().all(|(status, _)| *status == 200));
    let name = "etcd-settings";
    let dropped = network.dkv(&["keyspace", "drop", name, "--yes", name]).await;
    assert!(dropped.status.success(), "{dropped:?}");
    // It refuses what it refused before, and everything once it has not read its users for long.
    eventually("the face says that its users are gone", async || {
        match face.put_as("", "a").await {
            Ok(()) => panic!("it wrote for a caller without a token"),
            Err(error) if error.code() == Code::Unavailable => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    for (status, said) in healths().await {
        assert!(
            status == 503 && said.contains("users and roles cannot be read"),
            "{status} {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_who_was_refused_and_what_administrators_did_in_lines_of_bounded_length() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let mut auth = face.auth();
    let options = Some(UserAddOptions { no_password: true });
    auth.user_add(AuthUserAddRequest { options, ..user("by-certificate", "") }).await.unwrap();
    face.enable().await;
    let long = format!("venus\n\" address=\"{}", "x".repeat(1 << 18));
    for name in [&long, "by-certificate"] {
        assert!(face.token(name, "no").await.is_err());
    }
    let root = face.token("root", "root").await.unwrap();
    auth.user_add(by(&root, user(&long, "x"))).await.unwrap();
    let mut log = String::new();
    eventually("the last act is in the log", async || {
        log = std::fs::read_to_string(network.path("etcd.log")).unwrap();
        if log.contains("by=root") { Ok(()) } else { Err(format!("{} bytes", log.len())) }
    })
    .await;
    let line = |parts: &[&str]| {
        let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        found.unwrap_or_else(|| panic!("{parts:?}: {}", &log[..log.len().min(5000)]))
    };
    let name = r#"venus\n\" address=\"xxx"#;
    let refused = format!("by={name}");
    let added = format!("administrative act: add the user {name}");
    for parts in [
        &["denied: log in", refused.as_str(), "xxx...", "address=127.0.0.1"][..],
        &["denied: log in", "by=by-certificate", "address=127.0.0.1"],
        &[added.as_str(), "xxx...", "by=root", "address=127.0.0.1"],
        &["administrative act: grant the role reader to the user mars", "by=anybody"],
        &["administrative act: turn authentication on"],
    ] {
        assert!(line(parts).len() < 500, "{parts:?}");
    }
}
