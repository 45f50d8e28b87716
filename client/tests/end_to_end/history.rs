//! Earlier values: at a revision, as the history of a key, and after compaction.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkv_api::{Client, Error, GroupId, HistoryOptions, Revision, ScanOptions};
use dkv_test_support::{eventually, output};
use serde_json::{Value, json};

use crate::harness::Network;

/// Checks the exit status of a command, and returns what it printed.
fn ended(line: &[&str], ended: &Output, status: i32) -> String {
    let said = output(&ended.stderr);
    assert_eq!(ended.status.code(), Some(status), "{line:?}: {said}");
    if status != 0 {
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{line:?}: {said}");
        return said.to_owned();
    }
    output(&ended.stdout).to_owned()
}

/// Waits until no replica shows the color at a revision any more.
async fn forgotten(client: &Client, revision: Revision, floor: Revision) {
    // The nearest replica may apply the compaction a moment later than the primary.
    eventually("the revision is not forgotten", async || {
        match client.read_at("color", revision).await {
            Err(Error::Compacted { floor: said }) if said == floor => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_values_stay_until_they_are_compacted() {
    let mut network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let red = client.write("color", "red").await.unwrap().receipt.revision;
    client.write("shape", "round").await.unwrap();
    let blue = client.write("color", "blue").await.unwrap().receipt.revision;
    let gone = client.delete("color").await.unwrap().receipt.revision;
    let green = client.write("color", "green").await.unwrap().receipt.revision;

    // Any replica gives the same answer, also while one is down.
    for round in 0..2 {
        assert_eq!(client.read_at("color", red).await.unwrap().value, "red");
        let old = client.read_at("color", Revision(blue.0)).await.unwrap();
        assert_eq!((old.value, old.revision, old.created), ("blue".into(), blue, red));
        assert_eq!((old.version, client.read_at("color", green).await.unwrap().version), (2, 1));
        assert!(matches!(client.read_at("color", gone).await, Err(Error::NotFound { .. })));
        let before = Revision(red.0 - 1);
        assert!(matches!(client.read_at("color", before).await, Err(Error::NotFound { .. })));
        let far = Revision(1_000_000);
        match client.read_at("color", far).await {
            Err(Error::NotYet { asked, latest }) => {
                assert_eq!((asked, latest), (far, green));
            }
            other => panic!("{other:?}"),
        }
        let history = client.history("color", HistoryOptions::default()).await.unwrap();
        let revisions: Vec<Revision> =
            history.versions.iter().map(|version| version.revision).collect();
        assert_eq!((revisions, history.more), (vec![green, gone, blue, red], false));
        assert_eq!(history.versions[1].value, None);
        let two = HistoryOptions::default().before(gone).limit(1);
        let two = client.history("color", two).await.unwrap();
        assert_eq!((two.versions.len(), two.versions[0].revision, two.more), (1, blue, true));
        let mut scan = client.scan(ScanOptions::default().at(blue));
        let mut listed = Vec::new();
        while let Some(pair) = scan.next().await.unwrap() {
            listed.push((pair.key, pair.value.unwrap()));
        }
        assert_eq!(listed, [("color".into(), "blue".into()), ("shape".into(), "round".into())]);
        if round == 0 {
            let coordinator = network.coordinator().await;
            network.kill_node(coordinator);
        }
    }

    // The same by commands.
    let at = red.to_string();
    for (line, status, says) in [
        (&["get", "color", "--revision", &at][..], 0, "red\n"),
        (&["scan", "--revision", &at], 0, "color,red\n"),
        (&["history", "nothing"], 3, "key not found: nothing has no versions"),
        (&["get", "shape", "--revision", &at], 3, "shape did not exist at revision"),
        (&["get", "color", "--revision", "99999"], 1, "revision 99999 does not exist yet"),
        (&["scan", "--revision", "99999"], 1, "revision 99999 does not exist yet"),
        (&["get", "color", "eventual", "--revision", "1"], 2, "takes no level and no bounds"),
        (&["get", "color", "--revision", "x"], 2, "invalid value 'x'"),
        (&["history", "color", "--limit", "-1"], 2, "unexpected argument '-1'"),
        (&["compact", "--revision", "3"], 2, "repeat the command with --yes"),
        (&["compact", "--revision", "99999", "--yes"], 1, "revision 99999 does not exist yet"),
        (&["compact", "--revision", "3", "--shard", "7", "--yes"], 1, "there is no shard 7"),
    ] {
        let ran = network.dkv(line).await;
        if says.contains("value '") || says.contains("argument '") {
            assert_eq!(ran.status.code(), Some(status), "{line:?}");
            assert!(output(&ran.stderr).contains(says), "{line:?}: {}", output(&ran.stderr));
            continue;
        }
        let said = ended(line, &ran, status);
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let listed = network.dkv(&["history", "color"]).await;
    let listed = ended(&["history"], &listed, 0);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 5, "{listed}");
    assert!(lines[0].contains("REVISION") && lines[1].ends_with("put     green"), "{listed}");
    assert!(lines[2].ends_with("delete") && lines[4].ends_with("put     red"), "{listed}");
    let listed = network.dkv(&["history", "color", "--limit", "2", "--json"]).await;
    let listed = ended(&["history --json"], &listed, 0);
    let objects: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((objects.len(), &objects[0]["value"]), (2, &json!("green")));
    assert_eq!((&objects[1]["what"], &objects[1]["version"]), (&json!("delete"), &json!(0)));
    assert_eq!(objects[0]["revision"], green.0);

    // Who may write may forget history, and then it is gone everywhere.
    assert_eq!(client.read_at("color", red).await.unwrap().value, "red");
    let admin_token = network.token_file(dkv_api::Role::Admin);
    let admin_token = admin_token.to_str().unwrap();
    let revision = gone.to_string();
    let compact = ["compact", "--revision", &revision, "--yes", "--token-file", admin_token];
    let said = ended(&compact, &network.dkv(&compact).await, 0);
    assert!(said.contains("the history of shard 1 begins at revision"), "{said}");
    forgotten(&client, blue, gone).await;
    assert!(matches!(client.read_at("color", gone).await, Err(Error::NotFound { .. })));
    let history = client.history("color", HistoryOptions::default()).await.unwrap();
    assert_eq!((history.versions.len(), history.floor), (1, gone));
    let line = ["get", "color", "--revision", &at];
    eventually("the command shows what is forgotten", async || {
        let ran = network.dkv(&line).await;
        let said = output(&ran.stderr).to_owned();
        let expected = "error: compacted: the shard has forgotten what was before";
        let is_refused = ran.status.code() == Some(1) && said.starts_with(expected);
        if is_refused { Ok(()) } else { Err(said) }
    })
    .await;
    // Again, and backwards, changes nothing.
    let admin = network.admin().await;
    admin.compact(red).await.unwrap();
    let floor = client.history("color", HistoryOptions::default()).await.unwrap().floor;
    assert_eq!(floor, gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_shards_a_revision_needs_its_shard() {
    let network = Network::start(3).await;
    let client = network.client().await;
    let written = client.write("color", "red").await.unwrap().receipt;
    client.write("color", "blue").await.unwrap();
    assert_eq!(client.read_at("color", written.revision).await.unwrap().value, "red");
    let scanned = client.scan(ScanOptions::default().at(written.revision)).next().await;
    let why = scanned.unwrap_err().to_string();
    assert!(why.contains("the keyspace has 4 shards"), "{why}");
    let admin = network.admin().await;
    let why = admin.compact(Revision(1)).await.unwrap_err().to_string();
    assert!(why.contains("the keyspace has 4 shards") && why.contains("name the shard"), "{why}");
    admin.compact_shard(written.shard, Revision(written.revision.0 + 1)).await.unwrap();
    assert!(matches!(admin.compact_shard(GroupId(9), Revision(1)).await, Err(Error::Invalid(_))));
    forgotten(&client, written.revision, Revision(written.revision.0 + 1)).await;
    for (line, says) in [
        (&["scan", "--revision", "1"][..], "the keyspace has 4 shards"),
        (&["compact", "--revision", "1", "--yes"], "name one with --shard"),
    ] {
        let status = if line[0] == "scan" { 1 } else { 2 };
        let said = ended(line, &network.dkv(line).await, status);
        assert!(said.contains(says), "{line:?}: {said}");
    }
}

/// A writer puts the number of the round into every key, over and over: a snapshot has what was
/// complete when it began, and nothing that began after it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_all_shards_is_of_one_moment_and_stays_as_it_is() {
    const KEYS: usize = 40;
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let rounds = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, written, stopped) = (network.client().await, Arc::clone(&rounds), stop.clone());
    let writer = tokio::spawn(async move {
        let mut round = 0_u64;
        while !stopped.load(Ordering::SeqCst) {
            round += 1;
            for key in 0..KEYS {
                writing.write(format!("key-{key:02}"), round.to_string()).await.unwrap();
            }
            written.store(round, Ordering::SeqCst);
        }
    });
    let mut kept = Vec::new();
    while kept.len() < 20 {
        let before = rounds.load(Ordering::SeqCst);
        let snapshot = client.snapshot().await.unwrap();
        let after = rounds.load(Ordering::SeqCst);
        let listed = listed(&snapshot).await;
        assert!(before == 0 || listed.len() == KEYS, "{listed:?}");
        for (key, round) in &listed {
            let round: u64 = round.parse().unwrap();
            assert!(round >= before, "{key} is of round {round}, and {before} was complete");
            assert!(round <= after + 1, "{key} is of round {round}, and {after} was complete");
        }
        kept.push((snapshot, listed));
        if kept.len() == 10 {
            let coordinator = network.coordinator().await;
            network.kill_node(coordinator);
        }
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    // Each is what it was, to another client that has only its token too.
    let other = network.client().await;
    for (snapshot, before) in &kept {
        assert_eq!(listed(snapshot).await, *before);
        let token = snapshot.token().to_string().parse().unwrap();
        assert_eq!(listed(&other.snapshot_of(token)).await, *before);
        if let Some((key, value)) = before.first() {
            assert_eq!(snapshot.read(key).await.unwrap().value, *value);
        }
    }
    let ran = network.dkv(&["scan", "key-0", "--snapshot", "--keys"]).await;
    assert_eq!(output(&ran.stdout).lines().count(), 10, "{}", output(&ran.stderr));
    let both = ["scan", "--snapshot", "--revision", "3"];
    assert_eq!(network.dkv(&both).await.status.code(), Some(2));
}

async fn listed(snapshot: &dkv_api::Snapshot) -> Vec<(String, String)> {
    let mut scan = snapshot.scan(ScanOptions::default());
    let mut listed = Vec::new();
    while let Some(pair) = scan.next().await.unwrap() {
        listed.push((output(&pair.key).to_owned(), output(&pair.value.unwrap()).to_owned()));
    }
    listed
}
