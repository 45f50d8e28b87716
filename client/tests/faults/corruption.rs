//! A corrupted byte in each file of a node.
//!
//! On such a directory, a node may refuse to start, with an error that names the damaged file. Or
//! it may start, if the damage is irrelevant or at the end of a log that other nodes have too; then
//! it must reach the same state as the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dkv_test_support::text;
use serde_json::{Value, json};

use crate::lab::network::{Lab, on_network};
use crate::lab::{Under, tools};

/// Timeouts long enough that a busy machine causes no election: a new leader would append an entry,
/// which the copy for the next damage would lack.
fn settings() -> Value {
    json!({
        "log_bytes_max": 16 * 1024 * 1024,
        "shards": 1,
        "heartbeat_ms": 500,
        "election_min_ms": 20_000,
        "election_max_ms": 30_000,
    })
}

/// Time without a new entry after which none comes: longer than the leases of the workload last.
const REST: Duration = Duration::from_secs(4);

/// A damage of a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit of the byte at this offset is flipped.
    Flip(u64),
    /// The file is cut off at this offset.
    Cut(u64),
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Returns damages of a file at that many offsets, all of them where it is not zero.
fn damages(file: &Path, places: usize) -> Vec<Damage> {
    let content = fs::read(file).unwrap();
    let Some(end) = content.iter().rposition(|byte| *byte != 0) else { return Vec::new() };
    let mut damages = Vec::new();
    for place in 0..places {
        // A single damage is in the middle.
        let wanted = (end * place).checked_div(places - 1).unwrap_or(end / 2);
        let at = (wanted..=end).find(|at| content[*at] != 0).unwrap_or(end);
        damages.push(Damage::Flip(at as u64));
    }
    damages.push(Damage::Cut(end as u64 / 2));
    damages
}

fn apply(file: &Path, damage: Damage) {
    let mut content = fs::read(file).unwrap();
    match damage {
        Damage::Flip(at) => content[at as usize] ^= 1 << (at % 8),
        Damage::Cut(at) => content.truncate(at as usize),
    }
    fs::write(file, content).unwrap();
}

/// Returns the last entry of each group and its term, once all replicas have it.
async fn last_entries(lab: &Lab) -> Vec<(u64, u64)> {
    let statuses = lab.same_state().await;
    statuses[0].groups.iter().map(|group| (group.term.0, group.last_index)).collect()
}

/// Returns the last entries once nothing is written any more: the leases of the workload end after
/// it, and what ends between two copies would make the second one older than what was acknowledged.
async fn entries_at_rest(lab: &Lab) -> Vec<(u64, u64)> {
    let mut entries = last_entries(lab).await;
    let mut since = Instant::now();
    while since.elapsed() < REST {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = last_entries(lab).await;
        if now != entries {
            (entries, since) = (now, Instant::now());
        }
    }
    entries
}

/// Damages each file of a node at that many offsets, one at a time.
async fn damage_everything(lab: &mut Lab, places: usize) {
    // Enough data for checkpoints and several segments of the log.
    let work = lab.work_with(20_000).await;
    work.more(900).await;
    lab.judge(work).await;
    let index = (lab.coordinator().await + 1) % 3;
    let entries = entries_at_rest(lab).await;
    lab.kill_node(index);
    let dir = lab.nodes[index].dir.clone();
    let whole = lab.path("whole");
    assert!(Command::new("cp").arg("-a").args([&dir, &whole]).status().unwrap().success());
    let mut outcomes: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for file in files_below(&whole) {
        let name = file.strip_prefix(&whole).unwrap();
        if name == Path::new("lock") {
            continue;
        }
        for damage in damages(&file, places) {
            fs::remove_dir_all(&dir).unwrap();
            assert!(Command::new("cp").arg("-a").args([&whole, &dir]).status().unwrap().success());
            apply(&dir.join(name), damage);
            lab.spawn_node(index, &Under::default());
            let ready = lab.nodes[index].running().ready().await;
            let folder = name.components().next().unwrap().as_os_str().to_string_lossy();
            let count = outcomes.entry(folder.into_owned()).or_default();
            match ready {
                Ok(_) => {
                    count[0] += 1;
                    let now = last_entries(lab).await;
                    assert_eq!(now, entries, "the copy is older than what was acknowledged");
                    lab.kill_node(index);
                }
                Err(said) => {
                    count[1] += 1;
                    let last = said.lines().last().unwrap_or_default();
                    let names_it = last.contains(text(&dir)) || last.contains(text(name));
                    if !last.starts_with("error: ") || !names_it {
                        wrong.push(format!("{} {damage:?}: {last}", name.display()));
                    }
                    lab.nodes[index].process = None;
                }
            }
        }
    }
    for (folder, [started, refused]) in outcomes {
        println!("{folder}: {started} times it started and was right, {refused} times it refused");
    }
    assert!(wrong.is_empty(), "refused without naming what is damaged:\n{}", wrong.join("\n"));
    fs::remove_dir_all(&dir).unwrap();
    assert!(Command::new("cp").arg("-a").args([&whole, &dir]).status().unwrap().success());
    lab.start_node(index).await;
    lab.settled().await;
    lab.same_state().await;
}

#[test]
fn a_damaged_file_is_refused_or_recovered_from() {
    if !tools::has("a_damaged_file_is_refused_or_recovered_from", &["namespaces"]) {
        return;
    }
    on_network(settings(), 3, async |lab| {
        damage_everything(lab, 1).await;
    });
}

#[test]
#[ignore = "takes minutes"]
fn every_file_is_damaged_in_many_places() {
    if !tools::has("every_file_is_damaged_in_many_places", &["namespaces"]) {
        return;
    }
    on_network(settings(), 3, async |lab| {
        damage_everything(lab, 25).await;
    });
}
