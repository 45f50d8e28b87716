//! The exact output of `dkv` commands on a network, and what the library adds.

use std::time::{Duration, Instant};

use dkv_api::{Condition, Error, NodeState, Role};
use dkv_test_support::output;

use crate::harness::{Network, eventually};

/// Output and exit status of a command.
async fn run(network: &Network, arguments: &[&str]) -> (String, String, i32) {
    let ended = network.dkv(arguments).await;
    let (out, err) = (output(&ended.stdout).to_owned(), output(&ended.stderr).to_owned());
    (out, err, ended.status.code().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn write_read_and_delete() {
    let network = Network::with(serde_json::json!({ "shards": 1 }), 3).await;
    let said = run(&network, &["W,color,dark blue, or so", "R,color"]).await;
    let written = "written color at revision 1 (shard 1)\ndark blue, or so\n";
    assert_eq!(said, (written.into(), String::new(), 0));

    let said = run(&network, &["W,color,red", "D,color", "R,color", "W,k,v", "D,none"]).await;
    let out = "replaced color at revision 2 (shard 1)\n\
               deleted color at revision 3 (shard 1)\n\
               written k at revision 4 (shard 1)\n";
    let err = "error: key not found: color\nerror: key not found: none\n";
    assert_eq!(said, (out.into(), err.into(), 3), "commands after a failure still run");

    let said = run(&network, &["put", "a key", "a value", "if-absent"]).await;
    assert_eq!(said.2, 0, "{said:?}");
    let (out, err, status) = run(&network, &["put", "a key", "another", "if-absent"]).await;
    assert_eq!((out.as_str(), status), ("", 4));
    assert!(err.contains("was not written: it already exists (revision "), "{err}");
    let (out, _, _) = run(&network, &["get", "a key"]).await;
    assert_eq!(out, "a value\n");

    let (out, err, status) = run(&network, &["T,1", "--level", "eventual", "R,k"]).await;
    assert_eq!((out.as_str(), err.as_str(), status), ("waited 1 ms\nv\n", "", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_command_is_refused_before_anything_runs() {
    let network = Network::start(1).await;
    for wrong in [&["W,early,1", "X,early"][..], &["W,early,1", "W,k"], &["W,early,1", "r,early"]] {
        let (out, err, status) = run(&network, wrong).await;
        assert_eq!((out.as_str(), status), ("", 2), "{err}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    }
    let (_, err, status) = run(&network, &["R,early"]).await;
    assert_eq!((err.as_str(), status), ("error: key not found: early\n", 3));

    // Tokens come from a file or the environment, because anyone can read the arguments of a
    // process.
    let (_, err, status) = run(&network, &["--token", "dkv1.client.a.b.c", "R,early"]).await;
    assert_eq!(status, 2, "{err}");
    let token = network.token_file(Role::Node);
    let token = std::fs::read_to_string(token).unwrap();
    let home = network.path("stranger");
    let address = network.address.to_string();
    let ended = network.dkv_as(&["node", &address, "--token", token.trim()], &home).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_large_values() {
    let network = Network::start(3).await;
    let client = network.client().await;
    let one = client.write_with("k", "1", Condition::Absent.into()).await.unwrap();
    assert!(!one.existed);
    let absent = client.write_with("k", "2", Condition::Absent.into()).await.unwrap_err();
    let Error::Conflict { current, .. } = absent else { panic!("{absent}") };
    assert_eq!(current, Some(one.receipt.revision));

    let at_one = Condition::Revision(one.receipt.revision);
    let two = client.write_with("k", "2", at_one.into()).await.unwrap();
    assert!(two.existed && two.receipt.revision > one.receipt.revision);
    assert!(matches!(
        client.write_with("k", "3", at_one.into()).await,
        Err(Error::Conflict { current: Some(now), .. }) if now == two.receipt.revision
    ));
    let missing = client.write_with("other", "1", Condition::Present.into()).await;
    assert!(matches!(missing, Err(Error::Conflict { current: None, .. })), "{missing:?}");
    let stale = client.delete_with("k", at_one.into()).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");
    client.delete_with("k", Condition::Revision(two.receipt.revision).into()).await.unwrap();
    assert!(matches!(client.delete("k").await, Err(Error::NotFound { .. })));

    let large: Vec<u8> = (0..2 * 1024 * 1024).map(|byte| (byte % 251) as u8).collect();
    for key in ["large-1", "large-2", "large-3"] {
        client.write(key, large.clone()).await.unwrap();
        assert!(client.read(key).await.unwrap().value == large);
    }
    let longer = vec![0; large.len() + 1];
    let refused = client.write("longer", longer).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit: 2_097_152, .. })), "{refused:?}");
    assert!(matches!(client.write("k".repeat(4097), "").await, Err(Error::TooLarge { .. })));
    client.write("k".repeat(4096), "").await.unwrap();
    assert!(matches!(client.read("longer").await, Err(Error::NotFound { .. })));
    assert!(matches!(client.read("").await, Err(Error::Invalid(_))));
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_everything() {
    let network = Network::start(3).await;
    let (out, err, status) = run(&network, &["status"]).await;
    assert_eq!((err.as_str(), status), ("", 0));
    assert!(out.contains("coordinator"), "{out}");
    let (out, _, status) = run(&network, &["status", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 0);
    assert!(told.is_object(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_waits_only_briefly_for_a_dead_node() {
    let mut network = Network::start(3).await;
    // This client knows the network from before the death.
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    // The next client has never met the dead node.
    let coordinator = network.coordinator().await;
    let dead = network.nodes[coordinator].id();
    network.kill_node(coordinator);
    let other = network.client().await;
    eventually("the dead node is not reported", async || {
        let view = other.refresh().await.map_err(|error| error.to_string())?;
        let state = view.node(dead).map(|node| node.state);
        if state == Some(NodeState::Suspect) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    let begun = Instant::now();
    let status = client.status().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let (answered, silent): (Vec<_>, Vec<_>) =
        status.nodes.iter().partition(|(_, answer)| answer.is_ok());
    assert_eq!((answered.len(), silent.len()), (2, 1));
    let (node, why) = silent[0];
    assert_eq!(node.id, dead, "{why:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_right_after_a_death_takes_a_second() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    assert!(client.status().await.nodes.iter().all(|(_, answer)| answer.is_ok()));
    // A machine that is gone is silent, so no peer learns that its port is closed.
    let coordinator = network.coordinator().await;
    let other = (0..3).find(|index| *index != coordinator).unwrap();
    network.pause_node(other);
    let begun = Instant::now();
    let status = client.status().await;
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    let silent: Vec<_> = status.nodes.iter().filter(|(_, answer)| answer.is_err()).collect();
    assert_eq!(silent.len(), 1);
    assert_eq!(silent[0].0.id, network.nodes[other].id());
    network.resume_node(other);
}
