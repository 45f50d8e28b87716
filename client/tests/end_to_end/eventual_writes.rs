//! Eventual writes: one node accepts them alone, and delivers each exactly once when it can.

use std::time::Duration;

use dkv_api::{Client, Error, KeyspaceId, Level, ReadOptions, Role, ScanOptions, WriteOptions};
use dkv_base::id::{Number, Revision, Stamp};
use dkv_test_support::output;
use dkv_wire::message::{Answer, ReadBounds, ReadMode, Refusal, RequestBody};

use crate::harness::direct::{Direct, ask};
use crate::harness::{Network, eventually};

/// Number of writes that a node accepts while it is alone.
const WRITES: u64 = 40;

fn eventual() -> WriteOptions {
    Level::Eventual.into()
}

/// Waits until strong reads return the value of every key.
async fn arrived(client: &Client, expected: &[(String, Option<String>)]) {
    for (key, value) in expected {
        eventually("an accepted write does not arrive", async || {
            let shown = match client.read(key).await {
                Ok(read) => Some(output(&read.value).to_owned()),
                Err(Error::NotFound { .. }) => None,
                Err(error) => return Err(error.to_string()),
            };
            if shown == *value { Ok(()) } else { Err(format!("{key} is {shown:?}")) }
        })
        .await;
    }
}

/// Waits until all outboxes are empty.
async fn delivered(client: &Client) {
    eventually("an outbox is not emptied", async || {
        let status = client.status().await;
        let nodes = status.nodes.into_iter().map(|(_, status)| status);
        let pending: u64 = nodes.map(|status| status.map_or(1, |status| status.pending)).sum();
        if pending == 0 { Ok(()) } else { Err(format!("{pending} writes wait")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_accepted_without_a_quorum_survives_a_crash_and_is_delivered_once() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    for number in 0..WRITES {
        client.write(format!("k{number}"), "before").await.unwrap();
    }
    // One node alone with all shards, of which none has a majority.
    network.same_state().await;
    let alone = network.coordinator().await;
    for index in (0..3).filter(|index| *index != alone) {
        network.kill_node(index);
    }
    // It admits that it is behind, although no other node can help.
    let ahead = ReadOptions::eventual().at_least(Revision(1 << 40)).timeout(Duration::from_secs(5));
    let refused = client.read_with("k0", ahead).await;
    assert!(refused.as_ref().is_err_and(|e| e.to_string().contains("behind")), "{refused:?}");
    let mut expected = Vec::new();
    for number in 0..WRITES {
        let key = format!("k{number}");
        let value = (number % 4 != 0).then(|| format!("alone {number}"));
        let written = match &value {
            Some(value) => client.write_with(&key, value.clone(), eventual()).await,
            None => client.delete_with(&key, eventual()).await,
        };
        let receipt = written.unwrap().receipt;
        assert_eq!((receipt.level, receipt.revision), (Level::Eventual, Revision(0)));
        assert!(receipt.pending.is_some());
        // The write is visible here at once.
        let near = client.read_with(&key, ReadOptions::session()).await;
        match (&value, near) {
            (Some(value), Ok(read)) => {
                assert_eq!(read.value, *value);
                assert_eq!(read.receipt.pending, receipt.pending);
            }
            (None, Err(Error::NotFound { .. })) => {}
            (value, other) => panic!("{value:?}: {other:?}"),
        }
        expected.push((key, value));
    }
    // It is visible in scans, too.
    let mut listed = Vec::new();
    let mut scan = client.scan(ScanOptions::prefix("k").level(Level::Eventual));
    while let Some(pair) = scan.next().await.unwrap() {
        assert_eq!(pair.revision, Revision(0));
        listed.push((output(&pair.key).to_owned(), pair.value.map(|it| output(&it).to_owned())));
    }
    let mut there: Vec<_> = expected.iter().filter(|(_, it)| it.is_some()).cloned().collect();
    there.sort_unstable();
    assert_eq!(listed, there);
    network.kill_node(alone);
    network.start_node(alone).await;
    eventually("accepted writes are not visible after a restart", async || {
        let (key, value) = &expected[1];
        let read = client.read_with(key, ReadOptions::eventual()).await;
        let read = read.map_err(|error| error.to_string())?;
        if Some(output(&read.value)) == value.as_deref() { Ok(()) } else { Err("old".into()) }
    })
    .await;

    for index in (0..3).filter(|index| *index != alone) {
        network.start_node(index).await;
    }
    arrived(&client, &expected).await;
    delivered(&client).await;
    network.settled().await;
    let statuses = network.same_state().await;
    // Every write has exactly one revision, and so has a delete of an existing key.
    let mut shards: Vec<_> = statuses[0].groups.iter().filter(|it| it.group.is_shard()).collect();
    shards.dedup_by_key(|group| group.group);
    let revisions: u64 = shards.iter().map(|group| group.revision.0).sum();
    assert_eq!(revisions, 2 * WRITES, "each write was executed once");

    // The next write is ordered at once, and strong writes follow it.
    client.write_with("k1", "eventual", eventual()).await.unwrap();
    client.write("k1", "strong").await.unwrap();
    client.write_with("k2", "eventual", eventual()).await.unwrap();
    let last = [("k1", "strong"), ("k2", "eventual")];
    arrived(&client, &last.map(|(key, value)| (key.to_owned(), Some(value.to_owned())))).await;
    delivered(&client).await;
    assert_eq!(client.read("k1").await.unwrap().value, "strong");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_follow_their_eventual_writes_from_node_to_node() {
    let network = Network::start(3).await;
    let client = network.client().await;
    for round in 0..100 {
        let value = format!("round {round}");
        client.write_with("k", value.clone(), eventual()).await.unwrap();
        let read = client.read_with("k", ReadOptions::session()).await.unwrap();
        assert_eq!(read.value, value, "{:?}", read.receipt);
    }
    // Each node has the write, or says that it does not have it yet.
    let direct = Direct::join(&network, Role::Client).await;
    let written = client.write_with("k", "last", eventual()).await.unwrap().receipt;
    let number = written.pending.unwrap();
    for node in &network.nodes {
        let connection = direct.to_node(node.address()).await.unwrap();
        eventually("the write does not get there", async || {
            let deposits = vec![(written.node, number)];
            let bounds = ReadBounds { deposits, ..ReadBounds::default() };
            let (shard, mode) = (written.shard, ReadMode::Eventual(bounds));
            let body = RequestBody::Read { shard, key: "k".into(), mode };
            match ask(&connection, body).await.unwrap() {
                Ok(Answer::Value(_, Some(stored))) => {
                    assert_eq!(stored.value, "last", "it is in its bounds and has another value");
                    Ok(())
                }
                Err(Refusal::Behind { .. }) => Err("it is behind".into()),
                other => panic!("{other:?}"),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_shard_keeps_a_write_for_it_and_shows_it() {
    let settings = serde_json::json!({ "replication": 1, "shards": 1 });
    let mut network = Network::with(settings, 2).await;
    let client = network.client().await;
    client.write("k", "before").await.unwrap();
    let primary = client.read("k").await.unwrap().receipt.node;
    let holder = network.nodes.iter().position(|node| node.id() == primary).unwrap();
    let other = network.nodes[1 - holder].id();
    network.kill_node(holder);
    let written = client.write_with("k", "kept", eventual()).await.unwrap().receipt;
    assert_eq!(written.node, other);
    let read = client.read_with("k", ReadOptions::eventual()).await.unwrap();
    assert_eq!((output(&read.value), read.receipt.pending), ("kept", written.pending));
    let other = network.nodes[1 - holder].file()["name"].as_str().unwrap().to_owned();
    let shown = network.dkv(&["show-all", &other]).await;
    assert_eq!((output(&shown.stdout), output(&shown.stderr)), ("k,kept\n", ""));
    network.start_node(holder).await;
    arrived(&client, &[("k".into(), Some("kept".into()))]).await;
    delivered(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_one_writes_into_the_outbox_of_another_or_from_the_future() {
    let network = Network::start(1).await;
    let client = network.client().await;
    let shard = client.refresh().await.unwrap().shard_of(KeyspaceId::DEFAULT, b"k").unwrap().group;
    let direct = Direct::join(&network, Role::Client).await;
    let connection = direct.to_node(network.nodes[0].address()).await.unwrap();
    let deposited = dkv_wire::message::Deposited {
        node: network.nodes[0].id(),
        number: Number(1),
        after: Number(0),
        stamp: Stamp(u64::MAX),
        key: b"k",
        operation: dkv_wire::message::Operation::Put(b"forged"),
    };
    let command = dkv_wire::message::Command::Deposited(deposited);
    let command = dkv_wire::codec::encode(&command);
    let body = RequestBody::Propose { shard, everywhere: false, command };
    let refused = ask(&connection, body).await.unwrap();
    assert!(matches!(refused, Err(Refusal::Denied(_))), "{refused:?}");
    for stamp in [Stamp(0), Stamp(1), Stamp(u64::MAX)] {
        let (key, value) = ("k".into(), Some("from nowhere".into()));
        let refused =
            ask(&connection, RequestBody::Deposit { shard, stamp, again: false, key, value }).await;
        assert!(matches!(refused.unwrap(), Err(Refusal::Clock { .. })));
    }
    // A client with a slow clock gets an error, instead of losing against the existing value.
    let deposit = async |stamp, again, value: &'static str| {
        let (key, value) = ("other".into(), Some(value.into()));
        let shard =
            client.refresh().await.unwrap().shard_of(KeyspaceId::DEFAULT, b"other").unwrap().group;
        ask(&connection, RequestBody::Deposit { shard, stamp, again, key, value }).await.unwrap()
    };
    let Err(Refusal::Clock { now }) = deposit(Stamp(0), false, "one").await else { panic!() };
    let taken = deposit(now, false, "one").await;
    assert!(matches!(taken, Ok(Answer::Written { .. })), "{taken:?}");
    let lagging = Stamp::at(now.since_1970() - Duration::from_secs(2));
    let Err(Refusal::Clock { now: later }) = deposit(lagging, false, "two").await else { panic!() };
    assert!(later > now);
    // If the write was accepted before, it is done and changes nothing.
    let taken = deposit(now, true, "one").await;
    assert!(matches!(taken, Ok(Answer::Written { .. })), "{taken:?}");
    let taken = deposit(later, false, "two").await;
    assert!(matches!(taken, Ok(Answer::Written { .. })), "{taken:?}");
    arrived(&client, &[("other".into(), Some("two".into()))]).await;
    let conditional = eventual().condition(dkv_api::Condition::Absent);
    let refused = client.write_with("k", "v", conditional).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let patient = ReadOptions::default().timeout(Duration::from_secs(5));
    assert!(matches!(client.read_with("k", patient).await, Err(Error::NotFound { .. })));
}
