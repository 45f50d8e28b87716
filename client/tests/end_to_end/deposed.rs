//! Nodes that are paused for a while and then resume.
//!
//! A paused process does not know that it was paused. A former leader assumes that it still leads
//! until it hears otherwise, and must not answer requests from its old state meanwhile. When it
//! resumes, it must not cause an election.

use std::time::Duration;

use dkv_api::{Client, GroupId, KeyspaceId, Role};
use dkv_wire::message::{Answer, ReadBounds, ReadMode, Refusal, RequestBody};
use serde_json::json;

use crate::harness::direct::{Direct, ask, read, read_as};
use crate::harness::{Network, eventually, for_a_while};

/// Number of keys, so that each shard has some.
const KEYS: usize = 24;

/// Timeouts long enough for a busy machine, so that only faults cause elections.
fn patient() -> serde_json::Value {
    json!({ "heartbeat_ms": 100, "election_min_ms": 1000, "election_max_ms": 1500 })
}

/// With one shard there are no transfers of primaries for balance, which would raise the term.
fn patient_with_one_shard() -> serde_json::Value {
    let mut config = patient();
    config["shards"] = 1.into();
    config
}

async fn write_all(client: &Client, value: &str) {
    for number in 0..KEYS {
        client.write(format!("key-{number}"), value.to_owned()).await.unwrap();
    }
}

async fn terms(network: &Network, indices: &[usize]) -> Vec<u64> {
    let mut terms = Vec::new();
    for index in indices {
        terms.extend(network.status_of(*index).await.groups.iter().map(|group| group.term.0));
    }
    terms
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_coordinator_serves_no_stale_reads() {
    let mut network = Network::alone(patient_with_one_shard(), 3).await;
    let client = network.client().await;
    let direct = Direct::join(&network, Role::Client).await;
    for round in 0..3 {
        write_all(&client, &format!("old {round}")).await;
        let paused = network.coordinator().await;
        let others: Vec<_> = (0..3).filter(|index| *index != paused).collect();
        let view = client.refresh().await.unwrap();
        let shard_of = |key: &str| -> GroupId {
            view.shard_of(KeyspaceId::DEFAULT, key.as_bytes()).unwrap().group
        };
        let keys: Vec<_> = (0..KEYS).map(|number| format!("key-{number}")).collect();
        let connection = direct.to_node(network.nodes[paused].address()).await.unwrap();
        for key in &keys {
            // It still refuses requests for shards that it does not lead.
            let _ = read(&connection, shard_of(key), key).await;
        }

        network.pause_node(paused);
        write_all(&client, &format!("new {round}")).await;
        // Sent while it is paused, so that it sees the requests first.
        let mut questions = tokio::task::JoinSet::new();
        for key in keys.clone() {
            let (connection, shard) = (connection.clone(), shard_of(&key));
            questions.spawn(async move {
                // It may ask the new leader, but must not assume that it leads.
                let anywhere = read_as(&connection, shard, &key, ReadMode::Replica).await;
                if anywhere.is_ok() {
                    return anywhere;
                }
                read(&connection, shard, &key).await
            });
        }
        for_a_while(100).await;
        network.resume_node(paused);
        while let Some(answer) = questions.join_next().await {
            match answer.unwrap() {
                Ok(value) => assert_eq!(value, Some(format!("new {round}"))),
                Err(Refusal::NotPrimary { .. } | Refusal::Unavailable(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        network.settled().await;
        network.same_state().await;
        let settled = terms(&network, &others).await;
        for_a_while(2000).await;
        assert_eq!(
            terms(&network, &others).await,
            settled,
            "the resumed coordinator caused elections"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_replica_causes_no_election() {
    let mut network = Network::alone(patient_with_one_shard(), 3).await;
    let client = network.client().await;
    write_all(&client, "before").await;
    let coordinator = network.coordinator().await;
    let replica = (coordinator + 1) % 3;
    let others: Vec<_> = (0..3).filter(|index| *index != replica).collect();
    let before = terms(&network, &others).await;

    network.pause_node(replica);
    write_all(&client, "while it was paused").await;
    // Longer than any election timeout.
    for_a_while(3000).await;
    network.resume_node(replica);
    network.settled().await;
    assert_eq!(terms(&network, &others).await, before, "a paused replica caused elections");

    network.kill_node(replica);
    write_all(&client, "while it was dead").await;
    network.start_node(replica).await;
    network.settled().await;
    assert_eq!(terms(&network, &others).await, before, "a killed replica caused elections");
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_coordinator_accepts_no_write() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "1").await.unwrap();
    let coordinator = network.coordinator().await;
    for index in 0..3 {
        if index != coordinator {
            network.pause_node(index);
        }
    }
    let options = dkv_api::WriteOptions::default().timeout(Duration::from_secs(2));
    let written = client.write_with("k", "2", options).await;
    let error = written.unwrap_err();
    let mut expected = vec!["1"];
    if error.may_have_had_effect() {
        expected.push("2");
    } else {
        assert!(error.is_retryable(), "{error}");
    }
    let options = dkv_api::ReadOptions::default().timeout(Duration::from_secs(1));
    let read = client.read_with("k", options).await;
    assert!(matches!(read, Err(dkv_api::Error::Unavailable(_))), "{read:?}");
    let near = client.read_with("k", dkv_api::ReadOptions::eventual()).await.unwrap();
    assert_eq!(near.value, "1");
    for index in 0..3 {
        if index != coordinator {
            network.resume_node(index);
        }
    }
    let value = client.read("k").await.unwrap().value;
    assert!(expected.contains(&std::str::from_utf8(&value).unwrap()), "{value:?} after {error}");
    client.write("k", "3").await.unwrap();
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_a_leader_without_a_majority_reports_its_staleness() {
    let mut config = patient();
    config["replication"] = 4.into();
    let mut network = Network::alone(config, 4).await;
    let client = network.client().await;
    write_all(&client, "v").await;
    let shard =
        client.refresh().await.unwrap().shard_of(KeyspaceId::DEFAULT, b"key-0").unwrap().group;
    let status = network.status_of(0).await;
    let group = status.groups.iter().find(|group| group.group == shard).unwrap();
    let leader = group.leader.unwrap();
    let follower = *group.voters.iter().find(|voter| **voter != leader).unwrap();
    let direct = Direct::join(&network, Role::Client).await;
    let follower = network.index_of(follower);
    let connection = direct.to_node(network.nodes[follower].address()).await.unwrap();
    let staleness = async || {
        let key = bytes::Bytes::from_static(b"key-0");
        let body =
            RequestBody::Read { shard, key, mode: ReadMode::Eventual(ReadBounds::default()) };
        match ask(&connection, body).await.unwrap().unwrap() {
            Answer::Value(receipt, Some(stored)) if stored.value == "v" => receipt.staleness_ms,
            other => panic!("{other:?}"),
        }
    };
    eventually("the follower is not up to date", async || {
        let age = staleness().await.ok_or("it has heard of no leader")?;
        if age < 500 { Ok(()) } else { Err(format!("it is {age} ms behind")) }
    })
    .await;

    // Only those two are left; the leader keeps sending heartbeats.
    let isolated = std::time::Instant::now();
    for index in 0..4 {
        if index != follower && index != network.index_of(leader) {
            network.pause_node(index);
        }
    }
    eventually("the follower reports a fresh state", async || {
        let age = staleness().await.ok_or("it has heard of no leader")?;
        if age > 3000 { Ok(()) } else { Err(format!("it says {age} ms")) }
    })
    .await;
    // The staleness may be short by at most one heartbeat and its delivery.
    let (before, age) = (isolated.elapsed().as_millis() as u64, staleness().await.unwrap());
    assert!(age + 500 > before, "{age} ms after {before} ms");

    for index in 0..4 {
        if index != follower && index != network.index_of(leader) {
            network.resume_node(index);
        }
    }
    // The group was asked nothing that its leader answers, so it is quiescent: a heartbeat every
    // 500 ms, which says what was confirmed at the one before.
    eventually("it does not catch up", async || match staleness().await {
        Some(age) if age < 1500 => Ok(()),
        age => Err(format!("it is {age:?} ms behind")),
    })
    .await;
}
