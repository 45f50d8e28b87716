//! More load than a network can handle. It refuses what it cannot do in time and says when to
//! retry, does what it accepts in time, holds no election, and recovers as soon as the load has
//! gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dkv_api::{Client, Error, ReadOptions, WriteOptions};
use dkv_wire::message::NodeStatus;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::disks::Injection;
use crate::lab::network::{Lab, on_network};
use crate::lab::{eventually, for_a_while, tools};

/// Time that each sync of each disk takes, which limits the network to some 10 MB/s.
const SYNC: &str = "delay_enter=150000";
/// Number of connections, of concurrent writes on each, and bytes of each write.
const FLOOD: (usize, usize, usize) = (3, 150, 32 * 1024);
/// Timeout of each write of the flood.
const DEADLINE: Duration = Duration::from_secs(4);
/// Number of bytes by which the memory of a node may grow: a few copies of what may wait.
const GROWTH_BYTES_MAX: u64 = 300 * 1024 * 1024;

/// The results of the writes of a flood.
#[derive(Default)]
struct Came {
    /// Times of the successful writes.
    done: Vec<Duration>,
    overloaded: u64,
    other: Vec<Error>,
}

async fn flood(client: Client, number: usize, stop: Arc<AtomicBool>) -> Came {
    let (mut came, value) = (Came::default(), vec![number as u8; FLOOD.2]);
    let options = WriteOptions::default().timeout(DEADLINE);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match client.write_with(format!("flood-{number}"), value.clone(), options).await {
            Ok(_) => came.done.push(begun.elapsed()),
            Err(Error::Unavailable(why)) if why.contains("overloaded, retry after") => {
                came.overloaded += 1;
            }
            Err(other) => came.other.push(other),
        }
    }
    came
}

/// Returns the terms of all groups at all nodes.
fn terms(statuses: &[NodeStatus]) -> Vec<u64> {
    let groups = statuses.iter().flat_map(|status| &status.groups);
    groups.map(|group| group.term.0).collect()
}

fn memory(lab: &mut Lab) -> Vec<u64> {
    lab.nodes.iter_mut().map(|node| node.running().memory_bytes()).collect()
}

/// Returns the percentile `part` of the times.
fn quantile(times: &mut [Duration], part: usize) -> Duration {
    times.sort();
    times.get(times.len() * part / 100).copied().unwrap_or_default()
}

#[test]
fn more_load_than_the_network_can_handle() {
    if !tools::has("more_load_than_the_network_can_handle", &["namespaces", "strace"]) {
        return;
    }
    // Timeouts long enough for a busy machine: the test loads the disks, not the processors.
    let times = json!({ "heartbeat_ms": 100, "election_min_ms": 2000, "election_max_ms": 3000 });
    on_network(times, 3, async |lab| {
        // The founder transfers one of its two shards, which must not count as an election.
        eventually("one node still leads all shards", async || {
            let statuses = lab.same_state().await;
            let groups = statuses.iter().flat_map(|status| &status.groups);
            let shards = groups.filter(|group| group.group.is_shard());
            let primaries: BTreeSet<_> = shards.map(|group| group.leader).collect();
            if primaries.len() == 2 { Ok(()) } else { Err(format!("{primaries:?}")) }
        })
        .await;
        let processes = [0, 1, 2].map(|index| lab.nodes[index].running().id());
        let slow = processes.map(|process| Injection::begin(process, SYNC));
        let client = lab.client().await;
        client.write("k", "v").await.unwrap();
        let (before, memory_before) = (terms(&lab.same_state().await), memory(lab));

        let stop = Arc::new(AtomicBool::new(false));
        let (mut floods, mut clients) = (JoinSet::new(), Vec::new());
        for connection in 0..FLOOD.0 {
            let client = lab.client().await;
            for number in 0..FLOOD.1 {
                let number = connection * FLOOD.1 + number;
                floods.spawn(flood(client.clone(), number, Arc::clone(&stop)));
            }
            clients.push(client);
        }
        for_a_while(2000).await;
        // Reads wait for a round of heartbeats, not for data or disks.
        let (mut reads, until) = (Vec::new(), Instant::now() + Duration::from_secs(5));
        let mut memory_most = Vec::new();
        while Instant::now() < until {
            let begun = Instant::now();
            client.read_with("k", ReadOptions::default()).await.unwrap();
            reads.push(begun.elapsed());
            memory_most.push(memory(lab));
            for_a_while(20).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = Came::default();
        for came in floods.join_all().await {
            all.done.extend(came.done);
            all.overloaded += came.overloaded;
            all.other.extend(came.other);
        }
        let ended = Instant::now();
        client.write("k", "w").await.unwrap();
        let recovered = ended.elapsed();
        println!(
            "{} writes done (99 % in {:?}), {} refused as overload, {} otherwise; {} strong reads \
             (99 % in {:?}); a write afterwards took {recovered:?}",
            all.done.len(),
            quantile(&mut all.done, 99),
            all.overloaded,
            all.other.len(),
            reads.len(),
            quantile(&mut reads, 99),
        );
        // Some were still in transit on a busy machine when they timed out.
        let in_doubt = |error: &Error| matches!(error, Error::Unknown(_));
        assert!(all.other.iter().all(in_doubt), "{:?}", all.other.iter().find(|e| !in_doubt(e)));
        assert!(all.other.len() < all.done.len() / 4, "{} in doubt", all.other.len());
        assert!(all.overloaded > 20, "there was no overload");
        assert!(all.done.len() > 500, "hardly any write succeeded");
        assert!(quantile(&mut reads, 95) < Duration::from_millis(500));
        assert!(recovered < Duration::from_secs(1));
        for now in memory_most {
            for (now, before) in now.iter().zip(&memory_before) {
                assert!(*now < before + GROWTH_BYTES_MAX, "a node grew from {before} to {now}");
            }
        }
        drop(slow);
        lab.assert_alive();
        assert_eq!(terms(&lab.same_state().await), before, "there was an election");
    });
}
