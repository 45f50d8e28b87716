//! The promises of each level of reads and writes, checked at each replica.

use std::time::Duration;

use dkv_api::{
    Client, Error, GroupId, KeyspaceId, Level, ReadOptions, Revision, Role, WriteOptions,
};
use dkv_test_support::output;
use dkv_wire::message::{Answer, ReadBounds, ReadMode, Refusal, RequestBody};

use crate::harness::direct::{Direct, ask};
use crate::harness::{Network, eventually, for_a_while};

/// Connections to every node of a network, for requests to a single one.
struct Replicas {
    _direct: Direct,
    connections: Vec<quinn::Connection>,
    shard: GroupId,
}

/// The key of all requests.
const KEY: &str = "k";

impl Replicas {
    async fn of(network: &Network, client: &Client) -> Self {
        let direct = Direct::join(network, Role::Client).await;
        let mut connections = Vec::new();
        for node in &network.nodes {
            connections.push(direct.to_node(node.address()).await.unwrap());
        }
        let view = client.refresh().await.unwrap();
        let shard = view.shard_of(KeyspaceId::DEFAULT, KEY.as_bytes()).unwrap().group;
        Self { _direct: direct, connections, shard }
    }

    /// Reads repeatedly until the node answers: on a busy machine a leader may be lost for a
    /// moment.
    async fn read_at_last(&self, index: usize, mode: ReadMode) -> String {
        eventually("a replica does not serve", async || {
            match self.read(index, mode.clone()).await {
                Ok(value) => Ok(value),
                Err(Refusal::Unavailable(why)) => Err(why),
                Err(Refusal::NotPrimary { .. }) => Err("it knows of no primary".into()),
                Err(other) => panic!("{other}"),
            }
        })
        .await
    }

    /// Returns the value of the key at one node.
    async fn read(&self, index: usize, mode: ReadMode) -> Result<String, Refusal> {
        let key = bytes::Bytes::from_static(KEY.as_bytes());
        let body = RequestBody::Read { shard: self.shard, key, mode };
        match ask(&self.connections[index], body).await.unwrap()? {
            Answer::Value(_, stored) => {
                Ok(stored.map_or("nothing".into(), |stored| output(&stored.value).to_owned()))
            }
            other => panic!("{other:?}"),
        }
    }
}

const EVENTUAL: ReadMode = ReadMode::Eventual(ReadBounds {
    max_staleness_ms: None,
    at_least: Revision(0),
    deposits: Vec::new(),
});

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_strong_reads_and_none_is_stale() {
    let network = Network::start(3).await;
    let client = network.client().await;
    let replicas = Replicas::of(&network, &client).await;
    for round in 0..60 {
        let value = format!("round {round}");
        client.write(KEY, value.clone()).await.unwrap();
        for index in 0..3 {
            // Asked as soon as the write was answered, before all replicas know of it.
            assert_eq!(replicas.read_at_last(index, ReadMode::Replica).await, value);
        }
    }
    let asked = futures::future::join_all((0..3).map(|n| replicas.read(n, ReadMode::Primary)));
    let answered = asked.await.into_iter().filter(Result::is_ok).count();
    assert!(answered <= 1, "only the leader answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_is_within_its_bounds_or_fails() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let written = client.write(KEY, "1").await.unwrap().receipt;
    let replicas = Replicas::of(&network, &client).await;
    // What every replica has is available at once.
    for index in 0..3 {
        let bounds = ReadBounds { at_least: written.revision, ..ReadBounds::default() };
        assert_eq!(replicas.read(index, ReadMode::Eventual(bounds)).await, Ok("1".into()));
        let bounds = ReadBounds { max_staleness_ms: Some(0), ..ReadBounds::default() };
        assert_eq!(replicas.read(index, ReadMode::Eventual(bounds)).await, Ok("1".into()));
    }
    // A read waits until its deadline for a revision that does not exist yet.
    let next = Revision(written.revision.0 + 1);
    let options = ReadOptions::eventual().at_least(next);
    let late = client.read_with(KEY, options.timeout(Duration::from_millis(400))).await;
    let Err(Error::Unavailable(why)) = late else { panic!("{late:?}") };
    assert!(why.contains("is behind: it is at revision"), "{why}");
    let (read, second) = tokio::join!(client.read_with(KEY, options), async {
        for_a_while(100).await;
        client.write(KEY, "2").await
    });
    second.unwrap();
    assert_eq!(read.unwrap().value, "2");

    // A replica without contact to a quorum cannot claim to be fresh.
    let left = (network.coordinator().await + 1) % 3;
    for index in (0..3).filter(|index| *index != left) {
        network.pause_node(index);
    }
    for_a_while(300).await;
    assert_eq!(replicas.read(left, EVENTUAL).await, Ok("2".into()));
    let bounds = ReadBounds { max_staleness_ms: Some(200), ..ReadBounds::default() };
    let refused = replicas.read(left, ReadMode::Eventual(bounds)).await;
    assert!(matches!(refused, Err(Refusal::Behind { .. })), "{refused:?}");
    let refused = replicas.read(left, ReadMode::Replica).await;
    assert!(
        matches!(refused, Err(Refusal::Unavailable(_) | Refusal::NotPrimary { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_its_own_writes_and_never_goes_back() {
    let network = Network::start(3).await;
    let (writer, other) = (network.client().await, network.client().await);
    for round in 0..200 {
        let value = format!("round {round}");
        writer.write(KEY, value.clone()).await.unwrap();
        let read = writer.read_with(KEY, ReadOptions::session()).await.unwrap();
        assert_eq!(read.value, value, "its own write, at node {}", read.receipt.node);
    }
    let mut last = Revision(0);
    for round in 0..200 {
        writer.write(KEY, format!("again {round}")).await.unwrap();
        let read = other.read_with(KEY, ReadOptions::session()).await.unwrap();
        assert!(read.receipt.revision >= last, "{} after {last}", read.receipt.revision);
        last = read.receipt.revision;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_at_all_is_everywhere_or_names_the_missing_replicas() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let replicas = Replicas::of(&network, &client).await;
    let all = WriteOptions::from(Level::All);
    for round in 0..20 {
        let value = format!("round {round}");
        let written = client.write_with(KEY, value.clone(), all).await.unwrap();
        assert_eq!(written.receipt.level, Level::All);
        for index in 0..3 {
            assert_eq!(replicas.read(index, EVENTUAL).await.as_ref(), Ok(&value));
        }
    }

    let away = (network.coordinator().await + 1) % 3;
    network.kill_node(away);
    let within = all.timeout(Duration::from_secs(4));
    let incomplete = client.write_with(KEY, "without one", within).await;
    let Err(Error::Incomplete { missing, .. }) = &incomplete else { panic!("{incomplete:?}") };
    assert_eq!(missing, &[network.nodes[away].file()["name"].as_str().unwrap().to_owned()]);
    assert_eq!(client.read(KEY).await.unwrap().value, "without one", "the write was done");

    network.start_node(away).await;
    eventually("a read at all does not reach everybody", async || {
        let read = client.read_with(KEY, ReadOptions::all()).await.map_err(|e| e.to_string())?;
        assert_eq!(read.value, "without one");
        if read.reach.missing.is_empty() { Ok(()) } else { Err(format!("{:?}", read.reach)) }
    })
    .await;
    let replicas = Replicas::of(&network, &client).await;
    assert_eq!(replicas.read(away, EVENTUAL).await, Ok("without one".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_accepts_levels_for_all_and_for_single_commands() {
    let network = Network::start(3).await;
    let run = async |arguments: &[&str]| {
        let ran = network.dkv(arguments).await;
        (output(&ran.stdout).to_owned(), output(&ran.stderr).to_owned())
    };
    let (out, err) = run(&["--level", "session", "W,k,1", "R,k", "W,k,2", "R,k"]).await;
    assert_eq!(
        out,
        "written k at revision 1 (shard 3)\n1\nreplaced k at revision 2 (shard 3)\n2\n"
    );
    assert_eq!(err, "");
    assert_eq!(run(&["--consistency", "all", "W,k,3", "R,k"]).await.0.lines().last(), Some("3"));
    assert_eq!(run(&["get", "k", "eventual", "at-least", "3"]).await.0, "3\n");
    let (_, late) = run(&["--timeout", "300ms", "get", "k", "eventual", "at-least", "99"]).await;
    assert!(late.starts_with("error: cannot read k: "), "{late}");
    assert!(late.contains("is behind: it is at revision 3"), "{late}");
    assert!(run(&["--level", "loose", "R,k"]).await.1.contains("strong, session, eventual or all"));
}

#[tokio::test(flavor = "multi_thread")]
async fn search_and_show_all_inspect_replicas() {
    let mut network = Network::start(3).await;
    let run = async |network: &Network, arguments: &[&str]| {
        let ran = network.dkv(arguments).await;
        (output(&ran.stdout).to_owned(), output(&ran.stderr).to_owned())
    };
    run(&network, &["put", "k", "a value", "all"]).await;
    let (found, err) = run(&network, &["search", "k"]).await;
    let rows: Vec<Vec<&str>> =
        found.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NODE", "REVISION", "TIME", "VALUE"], "{found}{err}");
    let mut names: Vec<&str> = rows[1..4].iter().map(|row| row[0]).collect();
    names.sort_unstable();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert!(
        rows[1..4].iter().all(|row| row[1] == "1" && row.ends_with(&["a", "value"])),
        "{found}"
    );
    assert!(found.ends_with("\nall replicas that answer agree\n"), "{found}");
    for name in &names {
        assert_eq!(run(&network, &["show-all", name]).await.0, "k,a value\n");
    }
    let (_, err) = run(&network, &["show-all", "nobody"]).await;
    assert!(err.contains("there is no node nobody"), "{err}");

    let gone = network.nodes[2].file()["name"].as_str().unwrap().to_owned();
    network.kill_node(2);
    let (found, _) = run(&network, &["search", "k"]).await;
    assert!(found.ends_with(&format!("agree; no answer: {gone}\n")), "{found}");
}
