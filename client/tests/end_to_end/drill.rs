//! `dkv drill`, on a temporary network and on an existing one.

use dkv_api::Error;
use dkv_test_support::{output, skip, text};
use serde_json::{Value, json};

use crate::contract::listed;
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_on_a_temporary_network_succeeds() {
    // For its home directory, and so that not too many networks run at once.
    let network = Network::server_only(serde_json::json!({})).await;
    let out = network.path("report");
    for fault in ["coordinator-kill", "disk-stall", "intruder"] {
        let arguments = ["drill", fault, "--time", "3s", "--out", text(&out)];
        let drill = network.dkv_at_work(&arguments).await;
        let (said, errors) = (output(&drill.stdout), output(&drill.stderr));
        if errors.contains("does not allow tracing a process") {
            skip(&format!("drill {fault}"), errors);
            continue;
        }
        assert!(drill.status.success(), "{said}{errors}");
        assert!(said.starts_with(&format!("{fault}: all promises held\n")), "{said}");
        assert!(said.contains("  of these lost         0\n"), "{said}");
        let is_done =
            errors.contains(", the coordinator\n") || errors.contains("the attack is over");
        assert!(is_done, "{errors}");
        let history = std::fs::File::open(out.join(format!("{fault}.jsonl"))).unwrap();
        let history = dkv_check::History::read(std::io::BufReader::new(history)).unwrap();
        assert!(history.operations.len() > 100);
        let page = std::fs::read_to_string(out.join("index.html")).unwrap();
        assert!(page.contains(&format!("id=\"{fault}\"")), "{page}");
        assert!(out.join(format!("{fault}.svg")).exists());
    }
}

/// Drills with copies of a data directory. What they print is for programs.
#[tokio::test(flavor = "multi_thread")]
async fn drills_with_copies_of_a_directory_succeed() {
    let network = Network::server_only(serde_json::json!({})).await;
    let out = network.path("report");
    for fault in ["clone", "old-copy"] {
        let arguments = ["drill", fault, "--time", "3s", "--out", text(&out), "--output", "json"];
        let drill = network.dkv_at_work(&arguments).await;
        assert!(drill.status.success(), "{}{}", output(&drill.stdout), output(&drill.stderr));
        let document: Value = serde_json::from_slice(&drill.stdout).unwrap();
        listed("drill", &document);
        assert_eq!((&document["fault"], &document["held"]), (&json!(fault), &json!(true)));
        assert_eq!((&document["writes_lost"], &document["problems"]), (&json!(0), &json!([])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_by_hand_removes_its_keys() {
    let network = Network::start(1).await;
    let out = network.path("report");
    let drill = network.dkv(&["drill", "by-hand", "--time", "3s", "--out", text(&out)]).await;
    assert!(drill.status.success(), "{}{}", output(&drill.stdout), output(&drill.stderr));
    let keys: u64 = network.status_of(0).await.groups.iter().map(|group| group.keys).sum();
    assert_eq!(keys, 0, "its keys are left");
    let client = network.client().await;
    assert!(matches!(client.read("k").await, Err(Error::NotFound { .. })));

    let refused = network.dkv(&["drill", "pause"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(output(&refused.stderr).contains("a client cannot inject this fault"));
}
