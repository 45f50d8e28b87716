//! What a stolen credential of each kind can and cannot do: the rows of docs/security.md.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Error, Rights, Role, Uuid};
use dkv_base::id::{HolderId, SessionId};
use dkv_test_support::{output, within};
use dkv_wire::codec::encode;
use dkv_wire::frame::FrameWriter;
use dkv_wire::limits::{
    ADDRESS_HANDSHAKES_MAX, FRAME_BYTES_MAX, HOLDER_CONNECTIONS_MAX, HOLDER_SESSIONS_MAX,
    REQUEST_TIMEOUT,
};
use dkv_wire::message::{
    Answer, Command, Opening, Refusal, RequestBody, ServerAnswer, ServerRefusal, ServerRequest,
};
use dkv_wire::quic::Endpoint;
use serde_json::{Value, json};

use crate::harness::direct::{Direct, ask, ask_server, denied};
use crate::harness::relay::Relay;
use crate::harness::{Network, eventually};

/// Time in which an administrator must get through during an attack.
const SOON: Duration = Duration::from_secs(10);

/// Opens connections to a node, and returns those that stay open.
async fn connect_many(
    direct: &Direct,
    address: std::net::SocketAddr,
    count: usize,
) -> Vec<quinn::Connection> {
    let mut open = Vec::new();
    while open.len() < count {
        let mut some = tokio::task::JoinSet::new();
        for _ in 0..50.min(count - open.len()) {
            let endpoint = direct.endpoint.clone();
            let expect = dkv_wire::tls::Expect::AnyNode;
            some.spawn(async move { endpoint.connect(address, expect).await });
        }
        let made: Vec<_> = some.join_all().await.into_iter().filter_map(Result::ok).collect();
        if made.is_empty() {
            break;
        }
        open.extend(made);
    }
    open
}

/// Returns whether a session was refused for lack of space.
fn is_refused(answer: Result<Answer, Refusal>) -> bool {
    match answer {
        Ok(Answer::Done) => false,
        Err(Refusal::Overloaded { .. }) => true,
        other => panic!("{other:?}"),
    }
}

/// Returns the list of holders as JSON.
async fn holders(network: &Network) -> Vec<Value> {
    let said = network.dkv(&["holders", "--json"]).await;
    assert!(said.status.success(), "{}", output(&said.stderr));
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    document["holders"].as_array().unwrap().clone()
}

fn entry<'a>(holders: &'a [Value], id: &str) -> &'a Value {
    holders
        .iter()
        .find(|holder| holder["id"] == id)
        .unwrap_or_else(|| panic!("{id} in {holders:?}"))
}

/// Checks that a log names who did something, and from where.
fn assert_act(log: &str, act: &str, author: &str) {
    let line =
        log.lines().find(|line| line.contains(act)).unwrap_or_else(|| panic!("{act}: {log}"));
    assert!(line.contains(&format!("by={author}")), "{line}");
    assert!(line.contains("address=127.0.0.1:"), "{line}");
}

/// A stolen client credential exhausts only its own share, and `revoke` ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_client_keeps_no_one_out() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    let address = network.nodes[0].address();
    let mallory = Direct::join(&network, Role::Client).await;
    let open = connect_many(&mallory, address, HOLDER_CONNECTIONS_MAX + 100).await;
    eventually("a holder exceeds its limit of connections", async || {
        let open = open.iter().filter(|open| open.close_reason().is_none()).count();
        if open == HOLDER_CONNECTIONS_MAX { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    let first = open.iter().find(|open| open.close_reason().is_none()).unwrap();

    // A holder may open sessions up to its limit.
    let view = network.client().await.view().await.unwrap();
    let shard = view.shards[0].group;
    let session = || encode(&Command::OpenSession(SessionId(Uuid::new_v4())));
    let propose = |command| RequestBody::Propose { shard, everywhere: false, command };
    let begun = tokio::time::Instant::now();
    let mut refused = 0;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..HOLDER_SESSIONS_MAX + 200 {
        let (connection, body) = (first.clone(), propose(session()));
        asking.spawn(async move { ask(&connection, body).await.unwrap() });
        if asking.len() >= 60 {
            refused += u32::from(is_refused(asking.join_next().await.unwrap().unwrap()));
        }
    }
    for answer in asking.join_all().await {
        refused += u32::from(is_refused(answer));
    }
    // After that time its own oldest sessions are evicted, but those of others are not.
    assert!(refused > 0 || begun.elapsed() > REQUEST_TIMEOUT);
    // It cannot open sessions in the name of another.
    let holder = HolderId(Uuid::new_v4());
    let of_other = encode(&Command::OpenSessionOf { session: SessionId(Uuid::new_v4()), holder });
    let answer = ask(first, propose(of_other)).await.unwrap();
    assert!(matches!(answer, Err(Refusal::Denied(_))), "{answer:?}");

    // Other clients are served, and the administrator gets through.
    let other = network.client_as(Role::Client, &network.path("other")).await;
    within(SOON, "a write of another", other.write("k", "v")).await.unwrap();
    let id = mallory.credentials.identity.holder.to_string();
    let said = within(SOON, "revoke", network.dkv(&["revoke", &id])).await;
    assert!(said.status.success(), "{}", output(&said.stderr));
    denied(first).await;
    // The log records each act with the id that revoke accepts.
    let log = network.nodes[0].process.as_ref().unwrap().said();
    let admin = network.admin().await.identity();
    assert_act(&log, &format!("administrative act: revoke {id}"), &admin.to_string());
    assert!(entry(&holders(&network).await, &id)["revoked"] == true);
}

/// Unanswered frames take only as much memory as their holder may use.
#[tokio::test(flavor = "multi_thread")]
async fn long_frames_wait_at_the_sender() {
    let mut network = Network::with(json!({"shards": 1}), 1).await;
    let address = network.nodes[0].address();
    let mallory = Direct::join(&network, Role::Client).await;
    let before = network.nodes[0].running().memory_bytes();
    let mut frame = Vec::new();
    FrameWriter::new(&mut frame).send(&Opening::Requests).await.unwrap();
    let long = FRAME_BYTES_MAX as u32 - 1000;
    frame.extend(long.to_le_bytes());
    // All but the last byte, so that the frame stays incomplete.
    frame.resize(frame.len() + long as usize - 1, 7);
    let frame = Bytes::from(frame);
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let connection = mallory.to_node(address).await.unwrap();
        for _ in 0..20 {
            let (connection, frame) = (connection.clone(), frame.clone());
            sending.spawn(async move {
                let (mut send, _receive) = connection.open_bi().await.unwrap();
                // Writing blocks once the node does not read.
                let _ = tokio::time::timeout(Duration::from_secs(8), send.write_all(&frame)).await;
            });
        }
    }
    sending.join_all().await;
    let grown = network.nodes[0].running().memory_bytes().saturating_sub(before);
    // The requests in flight of the holder, the unread data of its connections, and as much again
    // for buffers that grow by doubling. Without bounds it would be 1.9 GB.
    assert!(grown < 600 * 1024 * 1024, "grew by {grown} bytes");
    let client = network.client().await;
    within(SOON, "a write", client.write("k", "v")).await.unwrap();
}

/// A stolen reader credential only reads: it cannot write, open a session or administer.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_only_reads() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    network.client().await.write("k", "v").await.unwrap();
    let made = network.dkv(&["token", "create", "--role", "client", "--read-only"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let file = network.path("reader.token");
    std::fs::write(&file, &made.stdout).unwrap();
    let address = network.address.to_string();
    let home = network.path("reader");
    let file = file.to_str().unwrap();
    let read = network.dkv_as(&["--token-file", file, &address, "get", "k"], &home).await;
    assert_eq!(output(&read.stdout).trim(), "v", "{}", output(&read.stderr));
    for write in ["W,k,w", "D,k"] {
        let refused = network.dkv_as(&[&address, write], &home).await;
        assert_eq!(refused.status.code(), Some(7), "{write}");
        assert!(output(&refused.stderr).contains("denied"), "{}", output(&refused.stderr));
    }
    let reader = network.client_as(Role::Reader, &home).await;
    assert_eq!(reader.identity().role, Role::Reader);
    let eventual = dkv_api::Level::Eventual.into();
    assert!(matches!(reader.write_with("k", "w", eventual).await, Err(Error::Denied(_))));
    assert!(matches!(reader.compact(dkv_api::Revision(1)).await, Err(Error::Denied(_))));
    assert!(matches!(reader.list_holders().await, Err(Error::Denied(_))));
    let holder = reader.identity().holder;
    assert!(matches!(reader.revoke(holder).await, Err(Error::Denied(_))));
    assert_eq!(reader.read("k").await.unwrap().value, "v");
    // Options that do not apply are refused.
    let wrong = network.dkv(&["token", "create", "--role", "node", "--read-only"]).await;
    assert!(!wrong.status.success() && wrong.stdout.is_empty());
}

/// The holders that a token admitted remain listed without it, and can be revoked with it.
#[tokio::test(flavor = "multi_thread")]
async fn holders_outlive_the_token_that_admitted_them() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    let create = ["token", "create", "--role", "admin", "--name", "night-shift", "--uses", "2"];
    let made = network.dkv(&create).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let text = output(&made.stdout).trim().to_owned();
    let token: dkv_wire::token::Token = text.parse().unwrap();
    let joiner = Endpoint::dial_only(None).unwrap();
    let mut admins = Vec::new();
    for _ in 0..2 {
        let joined = dkv_wire::join::join(&joiner, network.address, &token).await.unwrap();
        admins.push(Direct::with(joined));
    }
    let ids: Vec<_> =
        admins.iter().map(|admin| admin.credentials.identity.holder.to_string()).collect();
    let token_id = token.id.to_string();
    let said = network.dkv(&["token", "revoke", &token_id[..8]]).await;
    assert!(said.status.success(), "{}", output(&said.stderr));
    let text = output(&said.stdout);
    assert!(text.contains("--with-holders") && ids.iter().all(|id| text.contains(id)), "{text}");
    let listed = holders(&network).await;
    for id in &ids {
        let holder = entry(&listed, id);
        assert_eq!((&holder["role"], &holder["name"]), (&json!("admin"), &json!("night-shift")));
        assert_eq!((&holder["token"], &holder["revoked"]), (&json!(token_id), &json!(false)));
        assert!(holder["ends_at_ms"].as_u64() > holder["since_at_ms"].as_u64());
    }
    // Ids are accepted as printed, in full or by their beginning.
    let said = network.dkv(&["token", "revoke", &token_id, "--with-holders"]).await;
    assert!(said.status.success(), "{}", output(&said.stderr));
    let listed = holders(&network).await;
    assert!(ids.iter().all(|id| entry(&listed, id)["revoked"] == true), "{listed:?}");
    for admin in &admins {
        eventually("a revoked administrator is served", async || {
            let Ok(connection) = admin.to_server(&network).await else { return Ok(()) };
            let asked = dkv_wire::rpc::call::<_, _, ServerAnswer>(
                &connection,
                None::<&()>,
                &ServerRequest::ListTokens,
                4096,
                SOON,
            );
            match asked.await {
                Ok(ServerAnswer::Tokens(_)) => Err("it is".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }
    // Nodes are listed by name, and the server logs each act with its author.
    assert!(listed.iter().any(|it| it["role"] == "node" && it["name"] == "n1"), "{listed:?}");
    let log = network.server.as_ref().unwrap().said();
    let admin = network.admin().await.identity();
    assert_act(&log, &format!("administrative act: revoke token {token_id}"), &admin.to_string());
}

/// A stolen bearer token expires, is listed with its last use, and allows no more than its rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_is_listed_with_its_end_and_is_for_http_alone() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    let admin = network.admin().await;
    let (_, usual) = admin.create_bearer(Rights::Read, None).await.unwrap();
    let made = network.dkv(&["token", "create", "--http", "--never-expires"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let listed = holders(&network).await;
    let holder = entry(&listed, &usual.to_string());
    let days = |ms: u64| ms / (24 * 3600 * 1000);
    let life = holder["ends_at_ms"].as_u64().unwrap() - holder["since_at_ms"].as_u64().unwrap();
    assert_eq!((days(life), &holder["seen_at_ms"]), (90, &Value::Null));
    assert_eq!(holder["made_by"], json!(admin.identity().holder.to_string()));
    let endless = listed.iter().filter(|it| it["kind"] == "bearer" && it["ends_at_ms"].is_null());
    assert_eq!(endless.count(), 1);
    let at = holder["since_at_ms"].as_u64().unwrap() + 1;
    admin.report_bearers_seen(vec![(usual, at)]).await.unwrap();
    assert_eq!(entry(&holders(&network).await, &usual.to_string())["seen_at_ms"], json!(at));

    // It is for HTTP alone: neither a server nor a node takes it in place of a join token.
    let stolen = network.path("stolen.token");
    std::fs::write(&stolen, &made.stdout).unwrap();
    let (stolen, home) = (stolen.to_str().unwrap(), network.path("thief"));
    for address in [network.address, network.nodes[0].address()] {
        let address = address.to_string();
        let refused = network.dkv_as(&["--token-file", stolen, &address, "get", "k"], &home).await;
        assert!(!refused.status.success(), "{}", output(&refused.stdout));
        let said = output(&refused.stderr);
        assert!(said.contains("token") && said.starts_with("error: "), "{said}");
    }
    let text = output(&made.stdout).trim().to_owned();
    assert!(text.starts_with("dkvb1.") && text.parse::<dkv_wire::token::Token>().is_err());
}

/// A stolen node certificate cannot administer, list holders or create tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_an_administrator() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    let node = Direct::join(&network, Role::Node).await;
    let to_server = node.to_server(&network).await.unwrap();
    let (rights, name) = (Rights::Write, None);
    let life = dkv_api::BearerLife::Endless;
    for request in [
        ServerRequest::ListHolders,
        ServerRequest::ListTokens,
        ServerRequest::CreateBearer { rights, life, name, user: None },
        ServerRequest::BearersSeen(vec![(HolderId(Uuid::nil()), 1)]),
    ] {
        let answer = ask_server(&to_server, &request).await;
        let refused = matches!(&answer, ServerAnswer::Refused(ServerRefusal::Denied(_)));
        assert!(refused, "{request:?} is answered {answer:?}");
    }
    // A name that could control a terminal is refused.
    let address = network.nodes[0].address();
    let names = ["\u{1b}[2Jn9", "n9\u{202e}", "n 9", ""];
    for name in names {
        let name = Some(name.to_owned());
        let request = ServerRequest::Register { name, address, region: None, control: None };
        let answer = ask_server(&to_server, &request).await;
        let ServerAnswer::Refused(ServerRefusal::Invalid(why)) = answer else {
            panic!("{answer:?}");
        };
        assert!(!why.contains(['\u{1b}', '\u{202e}']), "{why}");
    }
    let to_node = node.to_node(address).await.unwrap();
    for name in names {
        let body = RequestBody::Announce { name: name.into(), address, region: None };
        let answer = ask(&to_node, body).await.unwrap();
        assert!(matches!(answer, Err(Refusal::Invalid(_) | Refusal::Denied(_))), "{answer:?}");
    }
}

/// Without credentials: unfinished handshakes keep no one out, even from the same address.
#[tokio::test(flavor = "multi_thread")]
async fn an_attacker_without_credentials_keeps_no_one_out() {
    let network = Network::with(json!({"shards": 1}), 1).await;
    let joiner = Endpoint::dial_only(None).unwrap();
    let direct = Direct::join(&network, Role::Client).await;
    let (node, server) = (network.nodes[0].address(), network.address);
    let token = std::fs::read_to_string(network.token_file(Role::Client)).unwrap();
    let token: dkv_wire::token::Token = token.parse().unwrap();
    let mut attack = tokio::task::JoinSet::new();
    for address in [node, server] {
        let relay = Relay::to(address).await;
        relay.lose_replies(true);
        for _ in 0..3 * ADDRESS_HANDSHAKES_MAX {
            let (endpoint, address) = (direct.endpoint.clone(), relay.address);
            attack.spawn(async move {
                let expect = dkv_wire::tls::Expect::AnyNode;
                let _ = endpoint.connect(address, expect).await;
            });
        }
    }
    // Add joiners that send nothing.
    for _ in 0..300 {
        let (joiner, authority) = (joiner.clone(), token.authority);
        attack.spawn(async move {
            if let Ok(connection) = joiner.connect_to_join(server, authority).await {
                connection.closed().await;
            }
        });
    }
    let newcomer = async {
        // It may lose its place once, and comes again, as clients do.
        let other = loop {
            match Direct::try_to_join(&network, Role::Client).await {
                Ok(joined) => break joined,
                Err(error) => eprintln!("a newcomer did not get in yet: {error}"),
            }
        };
        other.to_node(node).await.unwrap();
    };
    within(SOON, "a newcomer", newcomer).await;
    let said = within(SOON, "the administrator", network.dkv(&["holders"])).await;
    assert!(said.status.success(), "{}", output(&said.stderr));
    attack.abort_all();
}
