//! The audit log: the files of servers, nodes and gateways say who did what, and who was denied
//! what.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use dkv_api::{
    Client, Error, GroupId, KeyspaceId, PolicyRule, Revision, Rights, Role, TokenOptions, User,
    WriteOptions,
};
use dkv_test_support::{eventually, text, within};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Opening, Refusal, Reply, Request, RequestBody};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::http::Http;
use crate::harness::direct::{Direct, ask};
use crate::harness::{Network, PATIENCE};

/// Returns the lines of an audit file, each of which must be an object with a time and an outcome.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let parse = |line: &str| -> Value {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(line["outcome"].is_string() && line["at"].is_string(), "{line}");
        line
    };
    text.lines().map(parse).collect()
}

/// Waits for a line with these fields, and returns it.
async fn line(files: &[&Path], fields: Value) -> Value {
    let wanted = fields.as_object().unwrap();
    let is_wanted = |line: &Value| wanted.iter().all(|(name, value)| line[name] == *value);
    eventually("there is no such line", async || {
        let all: Vec<Value> = files.iter().flat_map(|file| lines(file)).collect();
        all.iter().find(|line| is_wanted(line)).cloned().ok_or_else(|| {
            let all: Vec<String> = all.iter().map(Value::to_string).collect();
            format!("{fields}: {}", all.join("\n"))
        })
    })
    .await
}

async fn alice(network: &Network) -> Client {
    let user: User = "alice".parse().unwrap();
    let options = TokenOptions { user: Some(user), ..TokenOptions::default() };
    let token = network.admin().await.create_token_with(Role::Client, options).await.unwrap();
    let file = network.path("alice.token");
    std::fs::write(&file, token).unwrap();
    let client = Client::builder().server(network.address.to_string()).role(Role::Client);
    client.token_file(file).home(network.path("alice")).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_say_who_did_what_and_who_was_denied_what() {
    let mut network = Network::server_only(json!({"shards": 1, "audit": "audit-server"})).await;
    let server = network.path("audit-server");
    let node_files: Vec<_> = (1..=3).map(|n| network.path(&format!("audit-node-{n}"))).collect();
    for file in &node_files {
        let audit = ["--audit", text(file), "--audit-writes"];
        let index = network.spawn_node_with(&[&["--listen", "127.0.0.1:0"], &audit[..]].concat());
        network.nodes[index].running().ready().await.unwrap();
    }
    network.settled().await;
    let nodes: Vec<&Path> = node_files.iter().map(|file| &**file).collect();
    let admin = network.admin().await;
    let by_admin = admin.identity().holder.to_string();

    // Administrative acts, at nodes and at the server.
    let prefix = Bytes::from_static(b"a/");
    let rights = "read,write".parse().unwrap();
    let rule = PolicyRule { keyspace: Some(KeyspaceId::DEFAULT), prefix, rights };
    admin.create_policy("p", Vec::new()).await.unwrap();
    admin.set_policy("p", rule).await.unwrap();
    admin.grant_policy("p", "alice".parse().unwrap()).await.unwrap();
    let done = json!({
        "kind": "act", "at": "node", "role": "admin", "holder": by_admin, "act": "set policy",
        "target": "p: read,write", "keyspace": "default",
        "keys": "the keys with prefix \"a/\"", "outcome": "done",
    });
    let done = line(&nodes, done).await;
    assert!(done["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{done}");
    line(&nodes, json!({"act": "grant policy", "target": "p to alice", "outcome": "done"})).await;
    let failed = admin.grant_policy("no-such", "alice".parse().unwrap()).await.unwrap_err();
    let failed_line = json!({"act": "grant policy", "target": "no-such to alice"});
    let failed_line = line(&nodes, failed_line).await;
    assert_eq!(failed_line["outcome"], "failed", "{failed}");
    assert!(failed_line["why"].as_str().unwrap().contains("no-such"), "{failed_line}");

    // What a user writes, and what it is denied.
    let alice = alice(&network).await;
    let holder = alice.identity().holder;
    let by_alice = json!({"role": "client", "user": "alice", "holder": holder.to_string()});
    let of_alice = |fields: Value| {
        let mut all = by_alice.as_object().unwrap().clone();
        all.extend(fields.as_object().unwrap().clone());
        Value::Object(all)
    };
    let created = line(&[&server], json!({"act": "create token", "holder": by_admin})).await;
    assert!(created["target"].as_str().unwrap().contains("client of user alice"), "{created}");
    line(&[&server], of_alice(json!({"act": "join by token", "outcome": "done"}))).await;
    alice.write("a/k", "secret").await.unwrap();
    let written = json!({"kind": "write", "act": "put", "keys": "key \"a/k\"", "outcome": "done"});
    line(&nodes, of_alice(written)).await;
    assert!(matches!(alice.write("b", "secret").await, Err(Error::Denied(_))));
    let denied = json!({
        "kind": "denial", "act": "put", "keyspace": "default", "keys": "key \"b\"",
        "outcome": "denied",
    });
    let denied = line(&nodes, of_alice(denied)).await;
    assert!(denied["why"].as_str().unwrap().contains("user alice may not write"), "{denied}");
    assert!(matches!(alice.read("b").await, Err(Error::Denied(_))));
    line(&nodes, of_alice(json!({"kind": "denial", "act": "read", "outcome": "denied"}))).await;
    // Its role denies it more, at a node and at the server.
    assert!(matches!(alice.revoke(holder).await, Err(Error::Denied(_))));
    let role = json!({"kind": "denial", "act": "revoke", "target": holder.to_string()});
    line(&nodes, of_alice(role)).await;
    assert!(alice.create_bearer(Rights::Read, None).await.is_err());
    line(&[&server], of_alice(json!({"kind": "denial", "act": "create bearer token"}))).await;

    // A gateway tells what it refuses itself, and the nodes whom it asks for.
    let file = network.path("audit-gateway");
    let gateway = ["--with-authentication", "--audit", text(&file)];
    let gateway = Gateway::start_with(&network, &gateway).await;
    let (http, url) = (Http::new(false), gateway.url("/v1/kv/a%2Fk"));
    let (bearer, id) = admin.create_bearer(Rights::Read, None).await.unwrap();
    let field = format!("Bearer {bearer}");
    let fields = [("authorization", field.as_str())];
    assert_eq!(http.send("GET", &url, &fields, "").await.status, 200);
    assert_eq!(http.send("PUT", &url, &fields, "x").await.status, 403);
    let refused = json!({
        "at": "http", "kind": "denial", "role": "bearer", "holder": id.to_string(),
        "target": "PUT /v1/kv/a%2Fk", "why": "this token is read-only",
    });
    line(&[&file], refused).await;
    assert_eq!(http.send("GET", &url, &[], "").await.status, 401);
    let missing = line(&[&file], json!({"at": "http", "target": "GET /v1/kv/a%2Fk"})).await;
    assert!(missing["role"].is_null() && missing["address"].is_string(), "{missing}");
    admin.revoke(id).await.unwrap();
    eventually("the bearer goes on", async || {
        match http.send("GET", &url, &fields, "").await.status {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    line(&[&file], json!({"holder": id.to_string(), "target": "GET /v1/kv/a%2Fk"})).await;

    // A revoked holder: who did it, and that it was turned away.
    admin.revoke(holder).await.unwrap();
    line(&nodes, json!({"act": "revoke", "holder": by_admin, "target": holder.to_string()})).await;
    let _ = alice.write_with("a/k", "v", WriteOptions::default()).await.unwrap_err();
    line(&nodes, json!({"kind": "denial", "act": "connect", "holder": holder.to_string()})).await;
    for file in nodes.iter().chain([&&*server, &&*file]) {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains("secret") && !text.contains(&bearer), "{text}");
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_rotated_and_made_anew_once_it_was_moved() {
    let mut network = Network::server_only(json!({"shards": 1, "replication": 1})).await;
    let file = network.path("audit");
    let audit = ["--audit", text(&file), "--audit-writes", "--audit-size", "1"];
    let audit = [&audit[..], &["--audit-keep", "2", "--listen", "127.0.0.1:0"]].concat();
    network.spawn_node_with(&audit);
    network.nodes[0].running().ready().await.unwrap();
    network.settled().await;
    let client = network.client().await;
    let rotated = |number: u32| network.path(&format!("audit.{number}"));
    let mut written = 0;
    while !rotated(1).exists() {
        let next = (0..500).map(|number| client.write(format!("{number:0>200}"), "v"));
        for result in futures::future::join_all(next).await {
            result.unwrap();
        }
        written += 500;
        assert!(written < 20_000);
    }
    let writes = |files: &[&Path]| {
        let all = files.iter().flat_map(|file| lines(file));
        all.filter(|line| line["kind"] == "write").count()
    };
    let (first, second) = (rotated(1), rotated(2));
    eventually("writes are missing", async || match writes(&[&first, &file]) {
        found if found == written => Ok(()),
        found => Err(format!("{found} of {written}")),
    })
    .await;
    assert!(std::fs::metadata(&first).unwrap().len() <= 1 << 20 && !second.exists());
    // As logrotate does.
    let moved = network.path("moved");
    std::fs::rename(&file, &moved).unwrap();
    let process = Pid::from_raw(i32::try_from(network.nodes[0].running().id()).unwrap());
    kill(process, Signal::SIGHUP).unwrap();
    client.write("after", "v").await.unwrap();
    line(&[&file], json!({"kind": "write", "keys": "key \"after\""})).await;
    assert_eq!(writes(&[&first, &moved]), written);
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_its_file_does_not_start() {
    let mut network = Network::server_only(json!({"shards": 1})).await;
    let file = network.path("no/such/directory");
    network.spawn_node_with(&["--listen", "127.0.0.1:0", "--audit", text(&file)]);
    let said = network.nodes[0].running().ready().await.unwrap_err();
    assert!(said.contains("cannot write the audit log") && said.contains("no/such"), "{said}");
    network.spawn_node_with(&["--listen", "127.0.0.1:0", "--audit-writes"]);
    let said = network.nodes[1].running().ready().await.unwrap_err();
    assert!(said.contains("--audit-writes configures the audit log, but there is none"), "{said}");
    // Two would destroy each other's lines.
    let shared = network.path("shared");
    for _ in 0..2 {
        network.spawn_node_with(&["--listen", "127.0.0.1:0", "--audit", text(&shared)]);
        if network.nodes.len() == 3 {
            network.nodes[2].running().ready().await.unwrap();
        }
    }
    let said = network.nodes[3].running().ready().await.unwrap_err();
    assert!(said.contains("another process writes the audit log"), "{said}");
}

/// Has a shard compacted to its first revision over and over.
async fn compact(connection: &quinn::Connection, times: u64) {
    let (send, receive) = connection.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send);
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    writer.push(&Opening::Requests);
    for id in 0..times {
        let body = RequestBody::Compact { shard: GroupId(1), floor: Revision(1) };
        writer.push(&Request { id, deadline_ms: 60_000, forward: false, user: None, body });
    }
    writer.flush().await.unwrap();
    for _ in 0..times {
        let reply = within(PATIENCE, "an answer", reader.next()).await.unwrap().unwrap();
        decode::<Reply>(&reply).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_administrator_has_a_rate_and_the_end_of_a_process_loses_nothing() {
    const ACTS: u64 = 2000;
    const DENIALS: u64 = 40;
    let mut network = Network::server_only(json!({"shards": 1, "replication": 1})).await;
    let file = network.path("audit");
    network.spawn_node_with(&["--listen", "127.0.0.1:0", "--audit", text(&file)]);
    network.nodes[0].running().ready().await.unwrap();
    network.settled().await;
    let (admin, begun) = (network.admin().await, Instant::now());
    let client = Direct::join(&network, Role::Client).await;
    let holder = client.credentials.identity.holder;
    let connection = client.to_node(network.nodes[0].address()).await.unwrap();
    compact(&connection, ACTS).await;
    for _ in 0..DENIALS {
        let denied = ask(&connection, RequestBody::Revoke(holder)).await.unwrap();
        assert!(matches!(denied, Err(Refusal::Denied(_))), "{denied:?}");
    }
    admin.create_policy("last", Vec::new()).await.unwrap();
    network.stop_node(0).await;

    let lines = lines(&file);
    let of = |fields: Value| {
        let wanted = fields.as_object().unwrap().clone();
        let is_wanted =
            move |line: &&Value| wanted.iter().all(|(name, value)| line[name] == *value);
        lines.iter().filter(is_wanted).collect::<Vec<_>>()
    };
    assert_eq!(of(json!({"act": "create policy", "target": "last"})).len(), 1);
    let holder = holder.to_string();
    let suppressed = |lines: &[&Value]| -> u64 {
        lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum()
    };
    let later = begun.elapsed().as_secs() / 10 + 1;
    for (kind, act, rest, all) in [
        ("act", "compact shard", "further acts", ACTS),
        ("denial", "revoke", "further requests", DENIALS),
    ] {
        let told = of(json!({"kind": kind, "act": act, "holder": holder}));
        let rest = of(json!({"kind": kind, "act": rest, "holder": holder}));
        let count = told.len() as u64;
        assert!((30..=30 + later).contains(&count), "{count} lines about {act}");
        assert_eq!(count + suppressed(&told) + suppressed(&rest), all, "{act}: {rest:?}");
    }
    let log = network.nodes[0].log.clone();
    let log = std::fs::read_to_string(log).unwrap();
    assert!((30..=30 + later).contains(&(log.matches("act: compact shard").count() as u64)));
    assert!(!log.contains("administrative act: compact"));
}
