//! What programs rely on: the members of JSON documents, which docs/cli.md lists, and exit
//! statuses.

use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use dkv_test_support::{PATIENCE, output, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::Network;
use crate::harness::process::command;

/// Returns the documents in an output, one a line.
fn documents(bytes: &[u8]) -> Vec<Value> {
    output(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the words in backquotes; of a member with its value, the member.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split('`').skip(1).step_by(2);
    words.map(|word| word.trim_start_matches('"').split('"').next().unwrap_or_default())
}

/// Returns the members that the table in docs/cli.md lists for a command.
fn members(command: &str) -> Vec<&'static str> {
    let page = include_str!("../../../docs/cli.md");
    let (_, table) = page.split_once("| command | members |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let rows: Vec<(&str, &str)> =
        rows.map(|row| row[2..].split_once(" | ").expect("two cells")).collect();
    let at = rows.iter().position(|(about, _)| quoted(about).any(|word| word == command));
    let at = at.unwrap_or_else(|| panic!("docs/cli.md has no row of {command}"));
    let row = rows[at].1;
    let mut members: Vec<&str> = quoted(row).collect();
    if row.contains("the receipt") {
        let receipt = rows.iter().find(|(about, _)| *about == "the receipt").unwrap();
        members.extend(quoted(receipt.1));
    }
    if row.contains("the same") {
        members.extend(quoted(rows[at - 1].1));
    }
    for (_, other) in row.match_indices("as in `").map(|(place, _)| row.split_at(place + 7)) {
        members.extend(self::members(other.split('`').next().unwrap()));
    }
    members
}

/// Checks that the table in docs/cli.md lists the members of a document, and of the objects in it.
pub(crate) fn listed(command: &str, document: &Value) {
    let members = members(command);
    let mut objects = vec![document];
    while let Some(object) = objects.pop() {
        for (name, value) in object.as_object().unwrap() {
            let is_listed = members.contains(&name.as_str());
            assert!(is_listed, "{command}: {name} is not in docs/cli.md: {document}");
            objects.extend(value.as_array().into_iter().flatten().filter(|it| it.is_object()));
        }
    }
}

/// Runs a command that succeeds with JSON, and compares its documents with the page.
async fn check(network: &Network, row: &str, arguments: &[&str]) -> Vec<Value> {
    let ended = network.dkv(&[arguments, &["--output", "json"]].concat()).await;
    // That of `doctor` is about what it finds.
    let is_fine = ended.status.success() || row == "doctor";
    assert!(is_fine && ended.stderr.is_empty(), "{arguments:?}: {}", output(&ended.stderr));
    let documents = documents(&ended.stdout);
    assert!(!documents.is_empty(), "{arguments:?} prints nothing");
    documents.iter().for_each(|document| listed(row, document));
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_have_the_members_that_the_page_lists() {
    let mut network = Network::start(4).await;
    let file = network.path("records.json");
    let file = text(&file);
    std::fs::write(file, "{\"key\":\"a\",\"value\":\"1\"}\n").unwrap();
    let bytes = network.path("bundle");
    for (row, arguments) in [
        ("put", &["put", "k", "v"][..]),
        ("put", &["update", "k", "w"]),
        ("put", &["put", "e", "v", "eventual"]),
        ("get", &["get", "k"]),
        ("get", &["get", "k", "all"]),
        ("increment", &["increment", "n"]),
        ("append", &["append", "l", "x"]),
        ("put", &["put", "t", "v", "--ttl", "1h"]),
        ("scan", &["scan"]),
        ("show-all", &["show-all", "n1"]),
        ("export", &["export"]),
        ("search", &["search", "k"]),
        ("history", &["history", "k"]),
        ("explain", &["explain", "k"]),
        ("ttl", &["ttl", "t"]),
        ("delete", &["delete", "k"]),
        ("wait", &["wait", "1"]),
        ("load", &["load", file]),
        ("verify", &["verify", file]),
        ("doctor", &["doctor"]),
        ("log", &["log"]),
        ("debug bundle", &["debug", "bundle", text(&bytes)]),
        ("keyspace create", &["keyspace", "create", "more"]),
        ("keyspace set", &["keyspace", "set", "more", "--quota", "1GiB"]),
        ("keyspace show", &["keyspace", "show", "more"]),
        ("keyspace list", &["keyspace", "list"]),
        ("keyspace drop", &["keyspace", "drop", "more", "--yes", "more"]),
        ("policy create", &["policy", "create", "p", "--rights", "read"]),
        ("policy set", &["policy", "set", "p", "--rights", "read,write"]),
        ("policy grant", &["policy", "grant", "p", "alice"]),
        ("policy limit", &["policy", "limit", "p", "--requests", "1000000"]),
        ("policy list", &["policy", "list"]),
        ("policy show", &["policy", "show", "p"]),
        ("whoami", &["whoami"]),
        ("can", &["can", "alice", "read", "k"]),
        ("policy revoke", &["policy", "revoke", "p", "alice"]),
        ("policy drop", &["policy", "drop", "p"]),
        ("token create", &["token", "create", "--http"]),
        ("token list", &["token", "list"]),
        ("holders", &["holders"]),
        ("rebalance", &["rebalance", "--dry-run"]),
        ("rebalance", &["rebalance"]),
        ("drain", &["drain", "n3", "--no-wait"]),
        ("drain", &["drain", "n3", "--undo"]),
    ] {
        check(&network, row, arguments).await;
    }
    let made = check(&network, "token create", &["token", "create", "--life", "1h"]).await;
    let id = made[0]["id"].as_str().unwrap().to_owned();
    check(&network, "token revoke", &["token", "revoke", &id]).await;
    let holder = network.client().await.identity().holder.to_string();
    let said = check(&network, "revoke", &["revoke", &holder]).await;
    assert_eq!(said[0], json!({ "command": "revoke", "holder": holder }));

    let (kept, address) = (network.nodes[1].id().to_string(), network.nodes[1].address());
    let said = check(&network, "keep", &["keep", "n2", &address.to_string()]).await;
    assert_eq!((&said[0]["node"], &said[0]["name"]), (&json!(kept), &json!("n2")), "{said:?}");
    let removed = network.nodes[3].id().to_string();
    let said = check(&network, "remove", &["remove", "n4"]).await;
    let expected = json!({
        "command": "remove", "node": removed, "name": "n4", "at_once": false
    });
    assert_eq!(said[0], expected);
    let status = network.nodes[3].running().ended().await;
    assert_eq!(status.code(), Some(1), "a removed node ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_network_answers_in_json() {
    let network = Network::server_only(json!({})).await;
    let local = ["local", "--nodes", "3", "--port", "0", "--output", "json", "--"];
    let steps = ["kill n1", "start n1", "put k v", "nodes"];
    let ended = network.dkv_at_work(&[&local[..], &steps].concat()).await;
    assert!(ended.status.success(), "{}", output(&ended.stderr));
    let documents = documents(&ended.stdout);
    // Others say who leads now.
    let messages = documents.iter().filter(|document| document["command"].is_null());
    let messages: Vec<&str> = messages
        .map(|document| {
            listed("kill", document);
            document["message"].as_str().unwrap()
        })
        .collect();
    for begin in ["killed n1", "started n1"] {
        assert!(messages.iter().any(|message| message.starts_with(begin)), "{messages:?}");
    }
    let put = documents.iter().find(|document| document["command"] == "put").unwrap();
    listed("put", put);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_answers_in_json() {
    let network = Network::server_only(json!({})).await;
    let near = ["rehearse", "--regions", "a,b", "--delays", "0,5/5,0", "--samples", "1"];
    let ended = network.dkv_at_work(&[&near[..], &["--output", "json"]].concat()).await;
    assert!(ended.status.success(), "{}", output(&ended.stderr));
    let documents = documents(&ended.stdout);
    let document = documents.last().unwrap();
    listed("rehearse", document);
    assert_eq!((&document["command"], &document["samples"]), (&json!("rehearse"), &json!(1)));
    let latencies = document["latencies"].as_array().unwrap();
    for from in ["a", "b"] {
        assert!(latencies.iter().any(|it| it["from"] == from), "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_replica_misses_has_its_status() {
    let mut network = Network::with(json!({"shards": 1}), 3).await;
    network.client().await.write("k", "1").await.unwrap();
    let view = network.client().await.refresh().await.unwrap();
    let primary = network.index_of(view.shards[0].primary.unwrap());
    let missing = (primary + 1) % 3;

    // A replica that is missing: the write is done, and not everywhere.
    network.pause_node(missing);
    let options = ["--timeout", "2s", "--output", "json"];
    let run = async |network: &Network, command: &[&str]| {
        let ended = network.dkv(&[&options[..], command].concat()).await;
        let errors = documents(&ended.stderr);
        assert_eq!(errors.len(), 1, "{errors:?}");
        listed_error(&errors[0]);
        (ended.status.code(), errors[0]["kind"].clone(), errors[0]["effect"].clone())
    };
    let incomplete = run(&network, &["put", "k", "2", "all"]).await;
    assert_eq!(incomplete, (Some(8), json!("incomplete"), json!("done")));
    assert_eq!(network.client().await.read("k").await.unwrap().value, "2");
    network.resume_node(missing);
}

/// Checks the members of an error.
fn listed_error(error: &Value) {
    let page = include_str!("../../../docs/cli.md");
    let row = page.lines().find(|line| line.starts_with("| every error")).unwrap();
    for name in error.as_object().unwrap().keys() {
        assert!(quoted(row).any(|word| word == name), "{name} is not in docs/cli.md: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_a_signal_ends_has_the_status_of_the_signal() {
    let network = Network::server_only(json!({})).await;
    let home = network.path("nobody");
    std::fs::create_dir_all(&home).unwrap();
    let token = network.token_file(dkv_api::Role::Client);
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        // A server that never answers: the command waits for it.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let arguments = ["--timeout", "60s", "--token-file", text(&token), &address, "get", "k"];
        let mut command = command(&arguments, &home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        silent.recv_from(&mut [0; 2048]).expect("the command asks the server");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        // As a shell shows it: before the command takes signals over, the signal itself ends it.
        let shown = ended.status.signal().map(|signal| 128 + signal);
        assert_eq!(ended.status.code().or(shown), Some(status), "{ended:?}");
        assert!(ended.stdout.is_empty());
    }
}
