//! Watches while nodes fail: every change comes once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dkv_api::{
    Bytes, Client, Error, GroupId, KeyRange, Revision, Role, ScanOptions, Watch, WatchEvent,
    WatchOptions, WatchToken,
};
use dkv_test_support::{Process, eventually, output, within};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Opening, WatchFrame, WatchRequest};
use dkv_wire::tls::Expect;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::Network;
use crate::harness::direct::Direct;
use crate::harness::process::spawn;

/// Time in which a watch must show what was written, even if its node has just died.
const SOON: Duration = Duration::from_secs(30);

/// What a watch has shown.
#[derive(Default)]
struct Seen {
    values: BTreeMap<Bytes, (Revision, Bytes)>,
    last: BTreeMap<GroupId, Revision>,
    changes: usize,
}

impl Seen {
    /// Reads events until `changes` changes have come.
    async fn read(&mut self, watch: &mut Watch, changes: usize) {
        while self.changes < changes {
            let event = within(SOON, "the next change", watch.next()).await.unwrap();
            let WatchEvent::Change(change) = event else { continue };
            let last = self.last.insert(change.shard, change.revision);
            assert!(last < Some(change.revision), "{change:?} after {last:?}");
            assert!(watch.token().revision(change.shard) >= Some(change.revision));
            match change.value {
                Some(value) => self.values.insert(change.key, (change.revision, value)),
                None => self.values.remove(&change.key),
            };
            self.changes += 1;
        }
    }

    /// Compares what it leads to with what a scan finds.
    async fn check(&self, client: &Client, prefix: &'static str) {
        let mut scan = client.scan(ScanOptions::prefix(prefix));
        let mut found = BTreeMap::new();
        while let Some(pair) = scan.next().await.unwrap() {
            found.insert(pair.key, (pair.revision, pair.value.unwrap()));
        }
        assert!(self.values == found, "{} and {} keys", self.values.len(), found.len());
    }
}

/// Writes keys, each once or more, and deletes some. Returns the number of changes.
async fn write(client: &Client, keys: std::ops::Range<usize>) -> usize {
    let mut changes = 0;
    for number in keys {
        let key = format!("w/{:04}", number % 700);
        client.write(&key, number.to_string()).await.unwrap();
        changes += 1;
        if number % 11 == 0 {
            client.delete(&key).await.unwrap();
            changes += 1;
        }
        if number % 5 == 0 {
            client.write(format!("other/{number}"), "").await.unwrap();
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_the_death_of_its_nodes() {
    let mut network = Network::with(json!({ "shards": 3 }), 3).await;
    let client = network.client().await;
    let prefix = || KeyRange::Prefix("w/".into());
    let begun = client.watch(prefix(), WatchOptions::default()).await.unwrap();
    let (start, mut watch) = (begun.token().clone(), begun);
    assert_eq!(start.iter().count(), 3);
    let writer = network.client().await;
    let writing = tokio::spawn(async move { write(&writer, 0..2000).await });
    let mut seen = Seen::default();
    seen.read(&mut watch, 300).await;
    // Each node dies once, so the one that serves the watch does too.
    for index in 0..3 {
        network.kill_node(index);
        seen.read(&mut watch, 300 + (index + 1) * 300).await;
        network.start_node(index).await;
        network.settled().await;
    }
    let changes = writing.await.unwrap();
    seen.read(&mut watch, changes).await;
    seen.check(&client, "w/").await;
    // Nothing more comes than was written.
    client.write("w/last", "last").await.unwrap();
    seen.read(&mut watch, changes + 1).await;
    assert!(seen.values.contains_key(&b"w/last"[..]));
    seen.check(&client, "w/").await;

    // Another one sees the same from the start, by the text of its token.
    let start: WatchToken = start.to_string().parse().unwrap();
    let options = WatchOptions::default().from(start).previous(true);
    let mut again = client.watch(prefix(), options).await.unwrap();
    let mut seen_again = Seen::default();
    seen_again.read(&mut again, changes + 1).await;
    assert!(seen_again.values == seen.values);
    // And a third one from where the first is.
    let options = WatchOptions::default().from(watch.token().clone());
    let mut third = client.watch(prefix(), options).await.unwrap();
    client.write("w/very last", "").await.unwrap();
    let mut seen_third = Seen::default();
    seen_third.read(&mut third, 1).await;
    assert_eq!(seen_third.values.keys().collect::<Vec<_>>(), ["w/very last"]);
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_across_ten_failovers() {
    let mut network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let prefix = KeyRange::Prefix("w/".into());
    let mut watch = client.watch(prefix, WatchOptions::default()).await.unwrap();
    let (mut seen, mut changes, mut terms) = (Seen::default(), 0, BTreeSet::new());
    for round in 0..10 {
        changes += write(&client, round * 40..round * 40 + 30).await;
        let view = client.refresh().await.unwrap();
        let primary = network.index_of(view.shards[0].primary.unwrap());
        network.kill_node(primary);
        changes += write(&client, round * 40 + 30..round * 40 + 40).await;
        terms.insert(client.write("term", "").await.unwrap().receipt.term);
        // Half of the time it has shown everything before the next failover.
        if round % 2 == 0 {
            seen.read(&mut watch, changes).await;
        }
        network.start_node(primary).await;
        network.settled().await;
    }
    seen.read(&mut watch, changes).await;
    seen.check(&client, "w/").await;
    assert!(terms.len() >= 10, "{terms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_of_one_key_see_each_change() {
    const CLIENTS: usize = 10;
    const EACH: usize = 100;
    const CHANGES: usize = 30;
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = network.client().await;
        for _ in 0..EACH {
            let options = WatchOptions::default();
            let mut watch = client.watch(KeyRange::Key("w/hot".into()), options).await.unwrap();
            watching.spawn(async move {
                let mut seen = Seen::default();
                seen.read(&mut watch, CHANGES).await;
                seen.values.into_values().next()
            });
        }
    }
    let client = network.client().await;
    let began = Instant::now();
    let mut last = None;
    for number in 0..CHANGES {
        let value = Bytes::from(number.to_string());
        let revision = client.write("w/hot", value.clone()).await.unwrap().receipt.revision;
        last = Some((revision, value));
    }
    // The watchers cost the writer next to nothing: nobody waits for them.
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let mut watchers = 0;
    while let Some(seen) = watching.join_next().await {
        assert_eq!(seen.unwrap(), last);
        watchers += 1;
    }
    assert_eq!(watchers, CLIENTS * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_do_not_read_hold_no_memory() {
    const WATCHERS: usize = 48;
    const MIB: u64 = 1024 * 1024;
    let mut network = Network::alone(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let value = vec![b'v'; MIB as usize];
    // The history is as long as it will be.
    let write = async |count: usize| {
        for number in 0..count {
            client.write(format!("w/{}", number % 4), value.clone()).await.unwrap();
        }
    };
    write(80).await;
    let before: Vec<u64> = network.nodes.iter_mut().map(|it| it.running().memory_bytes()).collect();
    let direct = Direct::join(&network, Role::Client).await;
    let mut streams = Vec::new();
    for number in 0..WATCHERS {
        let node = network.nodes[number % 3].address();
        let connecting = direct.endpoint.connect_to_watch(node, Expect::AnyNode);
        let connection = connecting.await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send);
        let (keys, shard) = (KeyRange::Prefix("w/".into()), GroupId(1));
        writer.push(&Opening::Watch);
        let after = None;
        writer
            .send(&WatchRequest { shard, keys, after, previous: true, user: None })
            .await
            .unwrap();
        streams.push((writer, receive, connection));
    }
    // Fewer than the history keeps, or those who do not read would miss some.
    write(48).await;
    for (index, before) in before.into_iter().enumerate() {
        let grown = network.nodes[index].running().memory_bytes().saturating_sub(before);
        // All of them together have 1,536 MiB to read at each node, with the versions before.
        assert!(grown < 400 * MIB, "node {index} has grown by {} MiB", grown / MIB);
    }
    // They are there: one that reads finds what it is owed.
    let (_, receive, _connection) = streams.pop().unwrap();
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let mut changes = 0;
    while changes < 48 {
        let frame = within(SOON, "the next frame", reader.next()).await.unwrap().unwrap();
        match decode(&frame).unwrap() {
            WatchFrame::Changes { changes: more, .. } => changes += more.len(),
            WatchFrame::Ended(refusal) => panic!("{refusal}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_leaves_a_node_that_is_silent() {
    let mut network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let mut watch =
        client.watch(KeyRange::Key("w/key".into()), WatchOptions::default()).await.unwrap();
    let mut seen = Seen::default();
    for round in 0..3 {
        network.pause_node(round);
        client.write("w/key", round.to_string()).await.unwrap();
        seen.read(&mut watch, round + 1).await;
        network.resume_node(round);
        network.settled().await;
    }
    seen.check(&client, "w/key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_read_loses_nothing() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let mut watch =
        client.watch(KeyRange::Prefix("w/".into()), WatchOptions::default()).await.unwrap();
    // More than the client and its connections hold.
    let value = vec![b'v'; 512 * 1024];
    for number in 0..100 {
        client.write(format!("w/{number:04}"), value.clone()).await.unwrap();
    }
    // Meanwhile requests are served.
    assert_eq!(client.read("w/0099").await.unwrap().value.len(), value.len());
    let mut seen = Seen::default();
    seen.read(&mut watch, 100).await;
    seen.check(&client, "w/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_where_history_does() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let (client, admin) = (network.client().await, network.admin().await);
    for number in 0..5 {
        client.write("key", number.to_string()).await.unwrap();
    }
    admin.compact(Revision(4)).await.unwrap();
    let watch = async |from: u64| {
        let options = WatchOptions::default().from(Revision(from));
        let mut watch = client.watch(KeyRange::Prefix(Bytes::new()), options).await.unwrap();
        within(SOON, "an event", watch.next()).await
    };
    assert_eq!(watch(2).await, Err(Error::Compacted { floor: Revision(4) }));
    match watch(4).await {
        Ok(WatchEvent::Change(change)) => assert_eq!(change.revision, Revision(5)),
        other => panic!("{other:?}"),
    }
    match watch(77).await {
        Err(Error::NotYet { asked, .. }) => assert_eq!(asked, Revision(77)),
        other => panic!("{other:?}"),
    }
}

/// A `dkv watch` process.
struct Command {
    process: Process,
}

impl Command {
    fn start(network: &Network, arguments: &[&str], log: &str) -> Self {
        let address = network.address.to_string();
        let arguments = [&[address.as_str(), "watch"], arguments].concat();
        Self { process: spawn(&arguments, &network.home(), &network.path(log)) }
    }

    /// Waits until it has printed a text, and returns everything that it has printed.
    async fn says(&self, wanted: &str) -> String {
        eventually("it does not print that", async || {
            let said = self.process.said();
            if said.contains(wanted) { Ok(said) } else { Err(format!("{wanted:?} in {said}")) }
        })
        .await
    }

    /// Presses Ctrl-C, and returns everything that it has printed.
    async fn interrupt(mut self) -> String {
        self.process.signal(Signal::SIGINT);
        let status = self.process.ended().await;
        assert!(status.success(), "{status}: {}", self.process.said());
        self.process.said()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_changes_until_it_is_interrupted() {
    let network = Network::with(json!({ "shards": 2 }), 1).await;
    let client = network.client().await;
    let text = Command::start(&network, &["user/", "--previous"], "text.log");
    let json = Command::start(&network, &["user/1", "--key", "--json"], "json.log");
    text.says("watching from 1:").await;
    json.says("\"what\":\"begin\"").await;
    client.write("user/1", "Ada").await.unwrap();
    client.write("user/11", "Bob").await.unwrap();
    client.write("other", "").await.unwrap();
    client.write("user/1", "Eve").await.unwrap();
    client.delete("user/1").await.unwrap();
    let said = text.says("delete  user/1").await;
    assert!(said.contains("put     user/1  Eve  (before: Ada, revision "), "{said}");
    assert!(said.contains("put     user/11  Bob") && !said.contains("other"), "{said}");
    json.says("\"delete\"").await;
    let said = json.interrupt().await;
    let objects: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<&Value> = objects.iter().filter(|it| it["key"] == "user/1").collect();
    assert_eq!(changes.len(), 3, "{said}");
    assert_eq!((&changes[0]["value"], &changes[0]["version"]), (&json!("Ada"), &json!(1)));
    assert_eq!(changes[2]["what"], "delete");
    assert_eq!(objects.last().unwrap()["what"], "end");

    // The position that it prints leads to what comes after.
    let said = text.interrupt().await;
    let (_, token) = said.rsplit_once("go on with: watch user/ --from ").unwrap();
    let token = token.split_whitespace().next().unwrap();
    client.write("user/2", "Zoe").await.unwrap();
    let rest = Command::start(&network, &["user/", "--from", token], "rest.log");
    let said = rest.says("Zoe").await;
    assert!(!said.contains("Eve"), "{said}");
    rest.interrupt().await;

    for (line, status, says) in [
        (&["watch", "--from", "now"][..], 2, "\"now\" is not a position of a watch"),
        (&["watch", "--from", "5"], 1, "the keyspace has 2 shards"),
        (&["watch", "--from", "1:5"], 1, "does not name shard 2"),
        (&["watch", "--from", "1:0,2:0,3:0"], 1, "there is no shard 3"),
        (&["watch", "--from", "1:0,2:99999"], 1, "revision 99999 does not exist yet"),
        (&["watch", "", "--key"], 2, "the key is empty"),
    ] {
        let ended = network.dkv(line).await;
        let said = output(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{line:?}: {said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(says), "{line:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_holds_a_thousand_watches() {
    let network = Network::with(json!({ "shards": 1, "replication": 1 }), 1).await;
    let client = network.client().await;
    let mut watches = Vec::new();
    for number in 0..1000 {
        let prefix = KeyRange::Prefix(format!("w/{}", number % 10).into());
        watches.push(client.watch(prefix, WatchOptions::default()).await.unwrap());
    }
    client.write("w/3", "all of its watches see this").await.unwrap();
    for watch in watches.iter_mut().skip(3).step_by(10) {
        Seen::default().read(watch, 1).await;
    }
    // They have room beside what else a holder may have.
    assert_eq!(client.read("w/3").await.unwrap().value, "all of its watches see this");
}
