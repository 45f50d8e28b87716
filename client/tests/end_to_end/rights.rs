//! Users and policies: each request is served to those who may, and to nobody else, at every node,
//! through every face, and a change is in force at once.

mod limits;
mod nothing;
mod requests;

use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{
    Client, Error, GroupId, KeyRange, KeyspaceId, KeyspaceSettings, Level, PolicyRule, Revision,
    Right, Role, ScanOptions, TokenOptions, User, WatchEvent, WatchOptions,
};
use dkv_test_support::{output, within};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, Command, Cut, Opening, RangeOptions, ReadBounds, ReadMode, Refusal, Reply, Request,
    RequestBody, Span,
};
use dkv_wire::quic::Endpoint;
use dkv_wire::rpc::call;
use dkv_wire::token::Token;
use serde_json::json;

use self::requests::{requests, requests_about_all};
use crate::gateway::Gateway;
use crate::gateway::http::Http;
use crate::harness::Network;
use crate::harness::direct::Direct;

const SOON: Duration = Duration::from_secs(30);
/// Time within which a change of a policy is in force everywhere.
const AT_ONCE: Duration = Duration::from_secs(5);
const SHARD: GroupId = GroupId(1);

fn user(name: &str) -> User {
    name.parse().unwrap()
}

fn rule(prefix: &str, rights: &str) -> PolicyRule {
    PolicyRule {
        keyspace: Some(KeyspaceId::DEFAULT),
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        rights: rights.parse().unwrap(),
    }
}

/// Returns the text of a token for a user.
async fn token(network: &Network, role: Role, name: &str) -> String {
    let options = TokenOptions { user: Some(user(name)), ..TokenOptions::default() };
    network.admin().await.create_token_with(role, options).await.unwrap()
}

/// Joins as a user, without the client library.
async fn direct(network: &Network, role: Role, name: &str) -> Direct {
    let token: Token = token(network, role, name).await.parse().unwrap();
    let joiner = Endpoint::dial_only(None).unwrap();
    let credentials = dkv_wire::join::join(&joiner, network.address, &token).await.unwrap();
    assert_eq!(credentials.identity.user, Some(user(name)));
    Direct::with(credentials)
}

/// Joins as a user.
async fn client(network: &Network, role: Role, name: &str) -> Client {
    let file = network.path(&format!("{name}-{role}.token"));
    std::fs::write(&file, token(network, role, name).await).unwrap();
    let home = network.path(&format!("{name}-{role}"));
    let client = Client::builder()
        .server(network.address.to_string())
        .role(role)
        .token_file(file)
        .home(home);
    within(SOON, "joining", client.connect()).await.unwrap()
}

async fn ask(
    connection: &quinn::Connection,
    body: RequestBody,
    forward: bool,
) -> Result<Answer, Refusal> {
    let request = Request { id: 7, deadline_ms: 10_000, forward, user: None, body };
    let opening = Some(&Opening::Requests);
    let until = Instant::now() + SOON;
    loop {
        let reply: Result<Reply, _> =
            call(connection, opening, &request, FRAME_BYTES_MAX, SOON).await;
        match reply.unwrap().result {
            // A node whose policies are seconds old denies nothing.
            Err(Refusal::Unavailable(why))
                if why.contains("does not know yet") && Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}

fn is_denied(result: &Result<Answer, Refusal>) -> bool {
    matches!(result, Err(Refusal::Denied(why)) if why.contains("user alice may not"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_refused_at_each_node_to_those_who_may_not() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let admin = network.admin().await;
    admin.write("a/k", "v").await.unwrap();
    admin.create_policy("p", Vec::new()).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    let alice = direct(&network, Role::Client, "alice").await;
    let mut connections = Vec::new();
    for node in &network.nodes {
        connections.push(alice.to_node(node.address()).await.unwrap());
    }
    let all = || requests().into_iter().chain(requests_about_all());
    let settle = async |rules: &[PolicyRule]| {
        let known = admin.policies().await.unwrap().policies;
        for old in known.iter().find(|policy| policy.name == "p").unwrap().rules.clone() {
            let rights = "none".parse().unwrap();
            admin.set_policy("p", PolicyRule { rights, ..old }).await.unwrap();
        }
        // Each change is answered once it is in force at all nodes.
        for rule in rules {
            admin.set_policy("p", rule.clone()).await.unwrap();
        }
    };
    let (elsewhere, longer) = (rule("b", "read,write,watch"), rule("a/k/", "read,write,watch"));
    for rules in [vec![], vec![elsewhere, longer]] {
        settle(&rules).await;
        for (body, _) in all() {
            let some = matches!(body, RequestBody::Cut { .. } | RequestBody::KeepAlive { .. })
                || matches!(&body, RequestBody::Propose { command, .. }
                if matches!(dkv_wire::codec::decode(command), Ok(Command::Lease(_))));
            for connection in &connections {
                for forward in [false, true] {
                    let result = ask(connection, body.clone(), forward).await;
                    // A right to some keys is enough for what concerns none in particular.
                    let denied = is_denied(&result);
                    assert_eq!(denied, rules.is_empty() || !some, "{body:?}: {result:?}");
                }
            }
        }
    }
    for right in [Right::Read, Right::Write] {
        settle(&[rule("a/", right.as_str())]).await;
        for (body, needed) in requests() {
            for connection in &connections {
                for forward in [false, true] {
                    let result = ask(connection, body.clone(), forward).await;
                    assert_eq!(is_denied(&result), needed != right, "{body:?}: {result:?}");
                }
            }
        }
        for (body, _) in requests_about_all() {
            assert!(is_denied(&ask(&connections[0], body.clone(), true).await), "{body:?}");
        }
    }
    settle(&[rule("", "read,administer")]).await;
    for (body, _) in requests_about_all() {
        for connection in &connections {
            let result = ask(connection, body.clone(), true).await;
            assert!(!is_denied(&result), "{body:?}: {result:?}");
        }
    }
    // A page of no keys, as a search for a replica asks for, tells nothing of keys elsewhere.
    settle(&[rule("b/", "watch")]).await;
    let page = |prefix: &'static str| {
        let (prefix, after) = (Bytes::from(prefix), Bytes::new());
        let span = Span { prefix, after, keys_max: 0, bytes_max: 1, values: false };
        RequestBody::Scan { shard: SHARD, span, mode: ReadMode::Replica }
    };
    for connection in &connections {
        let result = ask(connection, page(""), true).await;
        let Ok(Answer::Page(_, found)) = &result else { panic!("{result:?}") };
        assert!(found.pairs.is_empty() && !found.more, "{found:?}");
        for prefix in ["a/", "b/"] {
            let result = ask(connection, page(prefix), true).await;
            assert!(is_denied(&result), "{prefix}: {result:?}");
        }
    }
    // Each node has told the operator.
    for node in &network.nodes {
        let log = std::fs::read_to_string(&node.log).unwrap();
        let line = log.lines().find(|line| line.contains("denied: "));
        assert!(line.is_some_and(|line| line.contains("(alice)") && line.contains("a/k")), "{log}");
    }
    // The role bounds the user, and what nodes ask is for nodes.
    let reader = direct(&network, Role::Reader, "alice").await;
    settle(&[rule("", "read,write,watch,administer")]).await;
    let reader = reader.to_node(network.nodes[0].address()).await.unwrap();
    for (body, right) in all() {
        let result = ask(&reader, body.clone(), true).await;
        let denied = matches!(result, Err(Refusal::Denied(_)));
        let proposes = matches!(body, RequestBody::Propose { .. });
        assert_eq!(denied, right != Right::Read || proposes, "{body:?}: {result:?}");
    }
    let committed = RequestBody::Committed { shard: SHARD, followed: None };
    let result = ask(&connections[0], committed, false).await;
    assert!(matches!(result, Err(Refusal::Denied(_))), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_at_once_on_open_connections_and_watches() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let admin = network.admin().await;
    admin.create_policy("p", vec![rule("a/", "read,write,watch")]).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    let alice = client(&network, Role::Client, "alice").await;
    assert_eq!(alice.identity().user, Some(user("alice")));
    alice.write("a/k", "v").await.unwrap();
    assert!(matches!(alice.write("b", "v").await, Err(Error::Denied(_))));
    let eventual = || Level::Eventual.into();
    assert!(matches!(alice.write_with("b", "v", eventual()).await, Err(Error::Denied(_))));
    let all = alice.watch(KeyRange::Prefix("".into()), WatchOptions::default()).await;
    let denied = match all {
        Ok(mut watch) => within(SOON, "a refusal", watch.next()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    let keys = KeyRange::Prefix("a/".into());
    let mut watch = alice.watch(keys, WatchOptions::default()).await.unwrap();
    alice.write("a/k", "w").await.unwrap();
    loop {
        let event = within(SOON, "a change", watch.next()).await.unwrap();
        if matches!(event, WatchEvent::Change(_)) {
            break;
        }
    }
    admin.revoke_policy("p", user("alice")).await.unwrap();
    let revoked = Instant::now();
    let ended = loop {
        match within(SOON, "the end of the watch", watch.next()).await {
            Ok(WatchEvent::Change(change)) => panic!("{change:?}"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::Denied(_)), "{ended}");
    assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
    for level in [Level::Strong, Level::Eventual] {
        let read = alice.read_with("a/k", level.into()).await;
        assert!(matches!(&read, Err(Error::Denied(why)) if why.contains("may not read")));
    }
    // It tells nothing about what exists.
    let there = alice.read("a/k").await.unwrap_err().to_string();
    let gone = alice.read("a/x").await.unwrap_err().to_string();
    assert_eq!(there.replace("a/k", "a/x"), gone);
    admin.grant_policy("p", user("alice")).await.unwrap();
    dkv_test_support::eventually("the right is not back", async || {
        alice.read("a/k").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_until_after_its_right_is_gone() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let admin = network.admin().await;
    admin.write("a/k", "v").await.unwrap();
    admin.create_policy("p", vec![rule("a/", "read")]).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    let alice = direct(&network, Role::Client, "alice").await;
    let node = alice.to_node(network.nodes[0].address()).await.unwrap();
    // They wait for a revision that comes later.
    let (key, at) = (Bytes::from_static(b"a/k"), Revision(1000));
    let options = || RangeOptions { at: Some(at), ..RangeOptions::default() };
    let bounds = ReadBounds { at_least: at, ..ReadBounds::default() };
    let range = RequestBody::Range {
        shard: SHARD,
        keys: KeyRange::Prefix("a/".into()),
        after: Bytes::new(),
        options: options(),
        bytes_max: 1000,
        count: true,
        mode: ReadMode::Eventual(ReadBounds::default()),
    };
    let bodies = [
        RequestBody::Read { shard: SHARD, key: key.clone(), mode: ReadMode::Eventual(bounds) },
        RequestBody::ReadAt { shard: SHARD, key, at: Cut::at(at) },
        range,
    ];
    let asked = bodies.map(async |body| {
        let begun = Instant::now();
        let request = Request { id: 7, deadline_ms: 60_000, forward: false, user: None, body };
        let opening = Some(&Opening::Requests);
        let reply: Result<Reply, _> =
            call(&node, opening, &request, FRAME_BYTES_MAX, 2 * SOON).await;
        let result = reply.unwrap().result;
        assert!(result.is_err(), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    });
    futures::future::join_all(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_denies_nothing_for_good() {
    let mut network = Network::with(json!({ "shards": 1 }), 3).await;
    let admin = network.admin().await;
    admin.create_policy("p", vec![rule("a/", "read")]).await.unwrap();
    let alice = direct(&network, Role::Client, "alice").await;
    let index = (network.coordinator().await + 1) % 3;
    let node = alice.to_node(network.nodes[index].address()).await.unwrap();
    let key = Bytes::from_static(b"a/k");
    let read = || RequestBody::Read { shard: SHARD, key: key.clone(), mode: ReadMode::Held };
    assert!(is_denied(&ask(&node, read(), false).await));
    network.pause_node(index);
    let begun = Instant::now();
    let granted = admin.grant_policy("p", user("alice")).await;
    assert!(matches!(granted, Err(Error::NotEverywhere { .. })), "{granted:?}");
    assert!(begun.elapsed() < SOON);
    network.resume_node(index);
    // It has not applied what was granted, or just has, and knows that it may not have.
    dkv_test_support::eventually("the right does not arrive", async || {
        let result = ask(&node, read(), false).await;
        assert!(!is_denied(&result), "{result:?}");
        result.map(|_| ()).map_err(|refusal| refusal.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_cannot_be_gone_round() {
    let network = Network::with(json!({ "shards": 4 }), 3).await;
    let admin = network.admin().await;
    let settings = KeyspaceSettings { shards: 1, ..KeyspaceSettings::default() };
    admin.create_keyspace("other", settings).await.unwrap();
    admin.create_policy("p", vec![rule("a/", "read,write,watch")]).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    let alice = client(&network, Role::Client, "alice").await;
    // Several shards: the driver asks other nodes in its own name.
    let put = |key: &str| dkv_api::TransactionOperation::put(key, "v");
    let pair =
        |other| dkv_api::Transaction::new().then(put("a/1")).then(put("a/2")).then(put(other));
    alice.transact(pair("a/3")).await.unwrap();
    assert!(matches!(alice.transact(pair("b")).await, Err(Error::Denied(_))));
    assert!(matches!(admin.read("b").await, Err(Error::NotFound { .. })));
    let other = alice.keyspace("other").await.unwrap();
    assert!(matches!(other.write("a/1", "v").await, Err(Error::Denied(_))));
    // A lease whose keys are another's.
    let lease = admin.grant_lease(Duration::from_secs(60)).await.unwrap();
    let attached = dkv_api::WriteOptions::default().lease(lease);
    admin.write_with("b", "v", attached).await.unwrap();
    assert!(matches!(alice.revoke_lease(lease).await, Err(Error::Denied(_))));
    assert!(matches!(alice.leases().await, Err(Error::Denied(_))));
    assert_eq!(admin.read("b").await.unwrap().value, "v");
    // She may know its number, from a key that she may read, and neither keeps it alive nor has it
    // hold keys of her own.
    let attached = || dkv_api::WriteOptions::default().lease(lease);
    for (connected, key) in [(&alice, "a/1"), (&admin.acting_for(user("alice")), "a/2")] {
        let kept = connected.refresh_lease(lease).await;
        assert!(matches!(kept, Err(Error::Denied(_))), "{kept:?}");
        // Nor in a shard where it has no keys.
        for number in 0..8 {
            let written = connected.write_with(format!("{key}{number}"), "x", attached()).await;
            assert!(matches!(written, Err(Error::Denied(why)) if why.contains("lease")));
        }
        assert!(matches!(connected.revoke_lease(lease).await, Err(Error::Denied(_))));
    }
    let own = alice.grant_lease(Duration::from_secs(60)).await.unwrap();
    let attached = dkv_api::WriteOptions::default().lease(own);
    alice.write_with("a/1", "w", attached).await.unwrap();
    alice.refresh_lease(own).await.unwrap();
    // It is the user's, whichever holder she is, and those who may write all keys use any.
    let other = client(&network, Role::Admin, "alice").await;
    other.refresh_lease(own).await.unwrap();
    admin.acting_for(user("alice")).refresh_lease(own).await.unwrap();
    admin.refresh_lease(own).await.unwrap();
    let bob = client(&network, Role::Client, "bob").await;
    admin.grant_policy("p", user("bob")).await.unwrap();
    assert!(matches!(bob.refresh_lease(own).await, Err(Error::Denied(_))));
    let attached = dkv_api::WriteOptions::default().lease(own);
    assert!(matches!(bob.write_with("a/2", "w", attached).await, Err(Error::Denied(_))));
    assert!(matches!(bob.revoke_lease(own).await, Err(Error::Denied(_))));
    assert_eq!(alice.revoke_lease(own).await.unwrap(), 1);
    // A scan outside is refused as a whole, not filtered.
    let scanned = alice.scan(ScanOptions::prefix("")).next().await;
    assert!(matches!(scanned, Err(Error::Denied(_))));
    assert!(alice.scan(ScanOptions::prefix("a/")).next().await.unwrap().is_some());
    // To ask for somebody else gives nothing.
    admin
        .create_policy("all", vec![PolicyRule { keyspace: None, ..rule("", "read,write") }])
        .await
        .unwrap();
    admin.grant_policy("all", user("root")).await.unwrap();
    let pretending = alice.acting_for(user("root"));
    assert!(matches!(pretending.read("b").await, Err(Error::Denied(_))));
    assert!(matches!(pretending.policies().await, Err(Error::Denied(_))));
    assert_eq!(alice.policies().await.unwrap().policies.len(), 1);
    assert!(matches!(
        admin.acting_for(user("root")).drop_policy("all").await,
        Err(Error::Denied(_))
    ));
    // A renewed certificate is the same user's, and a node's token is nobody's.
    let options = TokenOptions { user: Some(user("alice")), ..TokenOptions::default() };
    let node = admin.create_token_with(Role::Node, options).await;
    assert!(matches!(node, Err(Error::Invalid(_))), "{node:?}");
    // Without a user the role decides, as before.
    network.client().await.write("b", "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_managed_at_the_command_line() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let run = async |arguments: &[&str], code: i32| {
        let done = network.dkv(arguments).await;
        let said = format!("{}{}", output(&done.stdout), output(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        said
    };
    run(&["policy", "create", "p", "--rights", "read,watch", "--prefix", "a/"], 0).await;
    run(&["policy", "create", "p", "--rights", "read"], 1).await;
    run(&["policy", "set", "p", "--rights", "write", "--prefix", "w/"], 0).await;
    run(&["policy", "set", "p", "--rights", "sing"], 2).await;
    run(&["policy", "set", "p", "--rights", "administer", "--prefix", "w/"], 1).await;
    run(&["policy", "grant", "p", "alice"], 0).await;
    run(&["policy", "grant", "q", "alice"], 1).await;
    let listed = run(&["policy", "list"], 0).await;
    assert!(listed.contains("read,watch") && listed.contains("a/*"), "{listed}");
    let shown = run(&["policy", "show", "p", "--output", "json"], 0).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["users"], json!(["alice"]));
    let first = json!({ "keyspace": "default", "prefix": "a/", "rights": ["read", "watch"] });
    assert_eq!(shown["rules"][0], first);
    assert!(run(&["can", "alice", "read", "a/x"], 0).await.starts_with("yes"));
    assert!(run(&["can", "alice", "read", "w/x"], 7).await.starts_with("no"));
    run(&["can", "alice", "read", "a/", "--prefix"], 0).await;
    run(&["can", "alice", "read", "", "--prefix"], 7).await;
    run(&["can", "bob", "read", "a/x"], 7).await;
    assert!(run(&["whoami"], 0).await.contains("none"));

    let made = network.dkv(&["token", "create", "--role", "client", "--user", "alice"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let (file, home) = (network.path("alice.token"), network.path("alice"));
    std::fs::write(&file, &made.stdout).unwrap();
    let address = network.address.to_string();
    let as_alice = async |arguments: &[&str], code: i32| {
        let all = [&["--token-file", file.to_str().unwrap(), &address], arguments].concat();
        let done = network.dkv_as(&all, &home).await;
        let said = format!("{}{}", output(&done.stdout), output(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        said
    };
    let said = as_alice(&["whoami"], 0).await;
    assert!(said.contains("alice") && said.contains("w/*"), "{said}");
    as_alice(&["put", "w/k", "v"], 0).await;
    let said = as_alice(&["get", "w/k"], 7).await;
    assert!(said.contains("user alice may not read key") && said.contains("whoami"), "{said}");
    for denied in [
        &["put", "a/k", "v"][..],
        &["scan"],
        &["scan", "w/"],
        &["history", "w/k"],
        &["export"],
        &["increment", "w/k"],
        &["ttl", "w/k"],
        &["policy", "list"],
        &["token", "list"],
    ] {
        as_alice(denied, 7).await;
    }
    let destination = network.path("backup");
    as_alice(&["backup", "create", destination.to_str().unwrap()], 7).await;
    as_alice(&["scan", "a/"], 0).await;
    run(&["policy", "drop", "p"], 0).await;
    as_alice(&["put", "w/k", "v"], 7).await;
    // An administrator cannot lock itself out of administration.
    let root = client(&network, Role::Admin, "root").await;
    assert!(matches!(root.read("w/k").await, Err(Error::Denied(_))));
    root.create_policy("mine", vec![rule("", "read")]).await.unwrap();
    root.grant_policy("mine", user("root")).await.unwrap();
    assert_eq!(root.read("w/k").await.unwrap().value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_asks_for_the_user_of_a_token() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let admin = network.admin().await;
    admin.write("a/k", "v").await.unwrap();
    admin.write("b", "v").await.unwrap();
    admin.create_policy("p", vec![rule("a/", "read,write,watch")]).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    let gateway = Gateway::start_with(&network, &["--with-authentication"]).await;
    let made = network.dkv(&["token", "create", "--http", "--user", "alice"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let token = format!("Bearer {}", output(&made.stdout).trim());
    let with = [("authorization", token.as_str())];
    let http = Http::new(false);
    let txn = |key: &str| format!(r#"{{"then":[{{"op":"get","key":"{key}"}}]}}"#);
    let batch = |key: &str| format!(r#"{{"operations":[{{"op":"get","key":"{key}"}}]}}"#);
    let ask = async |method: &str, path: &str, body: &str| {
        let answer = http.send(method, &gateway.url(path), &with, body.to_owned()).await;
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    for (key, may) in [("a/k", true), ("b", false)] {
        let path = |start: &str| format!("{start}{}", key.replace('/', "%2F"));
        let requests = [
            ("GET", path("/v1/kv/"), String::new()),
            ("GET", path("/v1/kv/") + "?consistency=eventual", String::new()),
            ("PUT", path("/v1/kv/"), "7".to_owned()),
            ("POST", path("/v1/increment/"), String::new()),
            ("GET", path("/v1/kv?prefix="), String::new()),
            ("GET", path("/v1/history?key="), String::new()),
            ("POST", "/v1/txn".to_owned(), txn(key)),
            ("DELETE", path("/v1/kv/"), String::new()),
        ];
        for (method, path, body) in requests {
            let (status, said) = ask(method, &path, &body).await;
            assert_eq!(status == 403, !may, "{method} {path}: {status} {said}");
            assert!(may == (status < 300), "{method} {path}: {status} {said}");
        }
        let (status, said) = ask("POST", "/v1/batch", &batch(key)).await;
        assert!(status != 403 || !may, "{said}");
        assert_eq!(said.contains("may not read"), !may, "{status} {said}");
    }
    for path in ["/v1/kv", "/v1/leases", "/page/events", "/metrics"] {
        assert_eq!(ask("GET", path, "").await.0, 403, "{path}");
    }
    // How many keys a shard has tells of those of others.
    let (status, said) = ask("GET", "/v1/status", "").await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &report["groups"][1]["keys"]), (200, &json!(0)), "{said}");
    assert_eq!(report["groups"][1]["data_bytes"], 0, "{said}");
    admin.revoke_policy("p", user("alice")).await.unwrap();
    let revoked = Instant::now();
    while ask("GET", "/v1/kv/a%2Fk", "").await.0 != 403 {
        assert!(revoked.elapsed() < AT_ONCE);
    }
}
