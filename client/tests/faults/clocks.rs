//! Clocks that jump, by a different amount on each machine.

use std::path::{Path, PathBuf};

use dkv_test_support::text;
use serde_json::json;

use crate::lab::network::{Lab, on_network};
use crate::lab::{Under, for_a_while, tools};

/// A clock that reads its offset, in minutes, from a file. The monotonic clock stays correct: a
/// jump does not change the length of a second.
fn clock(file: &Path) -> Under {
    let library = tools::faketime().unwrap();
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", text(file)),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Under { variables, ..Under::default() }
}

fn set(file: &Path, minutes: i64) {
    // Replaced atomically, because it may be read at any moment.
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{:+}\n", minutes * 60)).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn files(lab: &Lab) -> Vec<PathBuf> {
    (0..3).map(|index| lab.path(&format!("clock-{index}"))).collect()
}

#[test]
fn clocks_jump_within_what_certificates_tolerate() {
    let test = "clocks_jump_within_what_certificates_tolerate";
    if !tools::has(test, &["namespaces", "faketime"]) {
        return;
    }
    on_network(json!({}), 0, async |lab| {
        let files = files(lab);
        for file in &files {
            set(file, 0);
            lab.add_node(clock(file)).await;
        }
        lab.settled().await;
        let work = lab.work().await;
        for minutes in [[45, -45, 0], [-45, 45, 20], [50, 50, -50], [0, 0, 0]] {
            for (file, minutes) in files.iter().zip(minutes) {
                set(file, minutes);
            }
            for_a_while(300).await;
            let leader = lab.coordinator().await;
            lab.kill_node(leader);
            work.more(100).await;
            lab.start_node_under(leader, clock(&files[leader])).await;
            lab.settled().await;
            work.more(100).await;
        }
        lab.judge(work).await;
    });
}

#[test]
fn clocks_jump_by_a_year_and_existing_connections_survive() {
    let test = "clocks_jump_by_a_year_and_existing_connections_survive";
    if !tools::has(test, &["namespaces", "faketime"]) {
        return;
    }
    on_network(json!({}), 0, async |lab| {
        let files = files(lab);
        for file in &files {
            set(file, 0);
            lab.add_node(clock(file)).await;
        }
        lab.settled().await;
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        let year = 365 * 24 * 60;
        // Sessions must not expire, and time must not go back under the next leader.
        set(&files[leader], year);
        for_a_while(1000).await;
        work.more(100).await;
        set(&files[leader], -year);
        for_a_while(1000).await;
        work.more(100).await;
        set(&files[leader], 0);
        lab.kill_node(leader);
        work.more(100).await;
        lab.start_node_under(leader, clock(&files[leader])).await;
        lab.judge(work).await;
    });
}
