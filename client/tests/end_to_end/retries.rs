//! Lost replies: what a client does if it gets no answer to a write.
//!
//! Clients reach the nodes through relays that can drop all replies to clients, while the nodes
//! hear each other.

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use dkv_api::{Client, Condition, Error, GroupId, KeyspaceId, Role, WriteOptions};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::harness::direct::{Direct, read};
use crate::harness::process::command;
use crate::harness::relay::Relay;
use crate::harness::{Network, eventually, for_a_while};

/// A network of three nodes behind relays.
pub(crate) struct Relayed {
    pub(crate) network: Network,
    relays: Vec<Relay>,
}

impl Relayed {
    pub(crate) async fn start() -> Self {
        let mut network = Network::server_only(json!({})).await;
        let mut relays = Vec::new();
        for _ in 0..3 {
            let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let relay = Relay::to(address).await;
            let (listen, advertise) = (address.to_string(), relay.address.to_string());
            let more = ["--listen", &listen, "--advertise", &advertise];
            let index = network.spawn_node_with(&more);
            assert_eq!(network.nodes[index].running().ready().await, Ok(relay.address));
            relays.push(relay);
        }
        let nodes: Vec<_> = network.nodes.iter().map(|node| node.address()).collect();
        relays.iter().for_each(|relay| relay.spare(&nodes));
        network.settled().await;
        Self { network, relays }
    }

    pub(crate) fn lose_replies(&self, lose: bool) {
        self.relays.iter().for_each(|relay| relay.lose_replies(lose));
    }

    /// Waits until a key has a value, and reads it without the relays.
    pub(crate) async fn wait_for(&self, direct: &Direct, shard: GroupId, key: &str, value: &str) {
        eventually("the write does not arrive", async || {
            for index in self.network.running() {
                let address = self.network.nodes[index].address();
                let connection = direct.to_node(address).await.map_err(|e| e.to_string())?;
                if read(&connection, shard, key).await == Ok(Some(value.to_owned())) {
                    return Ok(());
                }
            }
            Err("nobody has it".into())
        })
        .await;
    }
}

pub(crate) async fn shard_of(client: &Client, key: &str) -> GroupId {
    client.view().await.unwrap().shard_of(KeyspaceId::DEFAULT, key.as_bytes()).unwrap().group
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_is_lost_is_executed_once() {
    let relayed = Relayed::start().await;
    let network = &relayed.network;
    let client = network.client().await;
    let direct = Direct::join(network, Role::Client).await;
    let shard = shard_of(&client, "counter").await;
    let mut revision = client.write("counter", "0").await.unwrap().receipt.revision;
    for count in 1..3 {
        relayed.lose_replies(true);
        let condition = Condition::Revision(revision);
        let (writer, value) = (client.clone(), count.to_string());
        let write = tokio::spawn(async move {
            let options =
                WriteOptions::default().condition(condition).timeout(Duration::from_secs(30));
            writer.write_with("counter", value, options).await
        });
        relayed.wait_for(&direct, shard, "counter", &count.to_string()).await;
        // Long enough for the client to drop its connections and to repeat the write.
        for_a_while(3000).await;
        assert!(!write.is_finished(), "the client got a reply");
        relayed.lose_replies(false);
        // A second execution would conflict with the first.
        let written = write.await.unwrap().unwrap();
        assert!(written.receipt.revision > revision);
        revision = written.receipt.revision;
        let read = client.read("counter").await.unwrap();
        assert_eq!((read.value, read.receipt.revision), (count.to_string().into(), revision));
    }
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_reply_does_not_come_says_that_nobody_knows() {
    let relayed = Relayed::start().await;
    let network = &relayed.network;
    let client = network.client().await;
    let direct = Direct::join(network, Role::Client).await;
    let shard = shard_of(&client, "k").await;
    client.write("k", "1").await.unwrap();
    let address = network.address.to_string();
    let token = network.token_file(Role::Client);
    let line = ["--timeout", "3s", "--token-file", token.to_str().unwrap(), &address];
    std::fs::create_dir_all(network.home()).unwrap();
    let mut command = tokio::process::Command::from(command(&line, &network.home()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.kill_on_drop(true).spawn().unwrap();
    let mut lines = running.stdin.take().unwrap();
    let mut said = BufReader::new(running.stdout.take().unwrap()).lines();
    // With the first write, a session is opened.
    lines.write_all(b"put k 1\n").await.unwrap();
    assert!(said.next_line().await.unwrap().unwrap().starts_with("replaced k"));
    relayed.lose_replies(true);
    lines.write_all(b"put k 2\n").await.unwrap();
    drop(lines);
    relayed.wait_for(&direct, shard, "k", "2").await;
    let ended = running.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    assert!(said.contains("unknown"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_dies_with_the_primary_is_executed_once() {
    let mut relayed = Relayed::start().await;
    let client = relayed.network.client().await;
    let direct = Direct::join(&relayed.network, Role::Client).await;
    let shard = shard_of(&client, "k").await;
    let one = client.write("k", "1").await.unwrap().receipt.revision;
    let view = client.refresh().await.unwrap();
    let primary = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap().primary.unwrap();
    relayed.lose_replies(true);
    let writer = client.clone();
    let write = tokio::spawn(async move {
        let condition = Condition::Revision(one);
        let options = WriteOptions::default().condition(condition).timeout(Duration::from_secs(30));
        writer.write_with("k", "2", options).await
    });
    relayed.wait_for(&direct, shard, "k", "2").await;
    let index = relayed.network.index_of(primary);
    relayed.network.kill_node(index);
    relayed.lose_replies(false);
    let written = write.await.unwrap().unwrap();
    let read = client.read("k").await.unwrap();
    assert_eq!((&read.value[..], read.receipt.revision), (&b"2"[..], written.receipt.revision));
    assert_ne!(written.receipt.node, primary, "a dead node has answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_reported_as_unknown() {
    let relayed = Relayed::start().await;
    let network = &relayed.network;
    let client = network.client().await;
    let direct = Direct::join(network, Role::Client).await;
    client.write("k", "1").await.unwrap();
    relayed.lose_replies(true);
    let timeout = Duration::from_secs(1);
    let options = WriteOptions::default().timeout(timeout);
    let unknown = client.write_with("k", "2", options).await.unwrap_err();
    assert!(matches!(unknown, Error::Unknown(_)), "{unknown}");
    // The write was done, but no reply arrived.
    let shard = shard_of(&client, "k").await;
    relayed.wait_for(&direct, shard, "k", "2").await;
    let options = dkv_api::ReadOptions::default().timeout(timeout);
    let read = client.read_with("k", options).await.unwrap_err();
    assert!(matches!(read, Error::Unavailable(_)), "a read has no outcome to be unknown: {read}");
    relayed.lose_replies(false);
    assert_eq!(client.read("k").await.unwrap().value, "2");
    client.write("k", "3").await.unwrap();
    assert_eq!(client.read("k").await.unwrap().value, "3");
}
