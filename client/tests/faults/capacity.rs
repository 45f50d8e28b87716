//! More data than any single node can hold.

use dkv_api::Role;
use dkv_test_support::text;
use futures::StreamExt;
use serde_json::json;

use crate::lab::network::on_network;
use crate::lab::{Under, eventually, tools};

/// Size of the data set, and the limits of each of three nodes: half of it on disk, a quarter in
/// memory.
const DATA_MIB: u64 = 2048;
const DISK_MIB: u64 = DATA_MIB / 2;
const MEMORY_MIB: u64 = DATA_MIB / 4;
/// Bytes of a value.
const VALUE_BYTES: usize = 256 * 1024;
const VALUES: u64 = DATA_MIB * 1024 * 1024 / VALUE_BYTES as u64;
/// Number of concurrent requests.
const UNDER_WAY: usize = 16;

/// Returns an incompressible value that no other key has.
fn value(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..VALUE_BYTES / 8).flat_map(|_| {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

#[test]
#[ignore = "takes minutes and 3 GiB of memory"]
fn three_nodes_hold_more_than_one_could() {
    if !tools::has("three_nodes_hold_more_than_one_could", &["namespaces"]) {
        return;
    }
    let settings = json!({ "shards": 24, "replication": 1, "log_bytes_max": 16 * 1024 * 1024 });
    on_network(settings, 0, async |lab| {
        for number in 1..=3 {
            let disk = lab.path(&format!("node-{number}"));
            std::fs::create_dir(&disk).unwrap();
            let size = format!("size={DISK_MIB}m");
            tools::run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&disk)]);
            let arguments = ["--value-memory".to_owned(), MEMORY_MIB.to_string()].into();
            lab.add_node(Under { arguments, ..Under::default() }).await;
        }
        let admin = lab.client_as(Role::Admin).await;
        eventually("the shards are not spread", async || {
            let placement = admin.placement(true).await.map_err(|error| error.to_string())?;
            let even = placement.nodes.iter().all(|places| places.shards == 8);
            if even && placement.moves.is_empty() { Ok(()) } else { Err(format!("{placement:?}")) }
        })
        .await;
        let client = lab.client().await;
        let begun = std::time::Instant::now();
        let writes = futures::stream::iter(0..VALUES).map(async |number| {
            client.write(format!("key-{number}"), value(number)).await.unwrap();
        });
        writes.buffer_unordered(UNDER_WAY).collect::<()>().await;
        println!("{DATA_MIB} MiB were written in {:?}", begun.elapsed());
        let begun = std::time::Instant::now();
        let reads = futures::stream::iter(0..VALUES).map(async |number| {
            let read = client.read(format!("key-{number}")).await.unwrap();
            assert!(read.value == value(number), "key-{number} has another value");
        });
        reads.buffer_unordered(UNDER_WAY).collect::<()>().await;
        println!("and read in {:?}", begun.elapsed());
        for node in &mut lab.nodes {
            let memory = node.running().memory_bytes() >> 20;
            println!("a node takes {memory} MiB of memory");
            assert!(memory < DATA_MIB / 2, "it could hold more than half of it");
        }
        client.close().await;
        admin.close().await;
    });
}
