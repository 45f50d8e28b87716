//! Regions with delays between them: latencies match the distances, near replicas answer at once,
//! and distance causes no election.

use std::time::{Duration, Instant};

use dkv_api::{Client, ConnectError, ReadOptions, Region, Role};
use serde_json::json;

use crate::harness::{Network, eventually};

const REGIONS: [&str; 3] = ["eu", "us", "asia"];

/// Three nodes, one in each region, and one shard.
async fn three_regions() -> Network {
    let mut network = Network::server_only(json!({
        "shards": 1,
        "delays_between": REGIONS,
        "delays_ms": [[0, 40, 120], [40, 0, 120], [120, 120, 0]],
    }))
    .await;
    for region in REGIONS {
        let index = network.spawn_node_with(&["--listen", "127.0.0.1:0", "--region", region]);
        network.nodes[index].running().ready().await.unwrap();
    }
    network.settled().await;
    network
}

async fn client_in(network: &Network, region: &str) -> Result<Client, ConnectError> {
    let region: Region = region.parse().unwrap();
    let client = Client::builder()
        .server(network.address.to_string())
        .token_file(network.token_file(Role::Client))
        .home(network.home())
        .region(region);
    client.connect().await
}

/// Returns the shortest of a few attempts, because other load only makes them longer.
async fn shortest<T>(mut attempt: impl AsyncFnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..6 {
        let begun = Instant::now();
        attempt().await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Returns the term of the shard, as its leader reports it.
async fn term(client: &Client) -> u64 {
    client.read("k").await.unwrap().receipt.term.0
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_match_the_distances() {
    let mut network = three_regions().await;
    let (eu, asia) = (client_in(&network, "eu"), client_in(&network, "asia"));
    let (eu, asia) = (eu.await.unwrap(), asia.await.unwrap());
    eu.write("k", "v").await.unwrap();
    // The founder leads, and no election has happened.
    assert_eq!(eu.read("k").await.unwrap().receipt.node, network.nodes[0].id());
    let before = term(&eu).await;

    // A round to a majority; from asia, a round to the primary in addition.
    for (client, least) in [(&eu, 80), (&asia, 240 + 80)] {
        let put = shortest(async || client.write("k", "v").await.unwrap()).await;
        assert!((ms(least)..ms(least + 80)).contains(&put), "{put:?}, not {least} ms");
        let get = shortest(async || client.read("k").await.unwrap()).await;
        assert!((ms(least)..ms(least + 80)).contains(&get), "{get:?}, not {least} ms");
    }
    // A replica asks only the primary: together they are a majority of three.
    let nearest = ReadOptions::default().nearest(true);
    let get = shortest(async || asia.read_with("k", nearest).await.unwrap()).await;
    assert!((ms(240)..ms(240 + 80)).contains(&get), "{get:?}, not 240 ms");
    // Every region has a replica.
    for (client, region) in [(&eu, 0), (&asia, 2)] {
        let near = async || client.read_with("k", ReadOptions::eventual()).await.unwrap();
        let get = shortest(async || near().await).await;
        assert!(get < ms(5), "{get:?}");
        assert_eq!(near().await.receipt.node, network.nodes[region].id());
    }
    // Many concurrent requests for a while: all in order, without an election.
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let writes = (0..50).map(|number| eu.write(format!("k{number}"), "v"));
        for write in futures::future::join_all(writes).await {
            write.unwrap();
            written += 1;
        }
    }
    assert!(written >= 500, "{written}");
    assert_eq!(term(&eu).await, before, "there was an election");

    let shown = network.dkv(&["status", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut regions: Vec<&str> = shown["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["region"].as_str().unwrap())
        .collect();
    regions.sort_unstable();
    assert_eq!(regions, ["asia", "eu", "us"]);

    // The process of the primary dies: the others detect it, elect and serve.
    network.kill_node(0);
    let us = client_in(&network, "us").await.unwrap();
    let begun = Instant::now();
    us.write("k", "later").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    eventually("asia does not get the write", async || {
        let read = asia.read_with("k", ReadOptions::eventual()).await.map_err(|e| e.to_string())?;
        if read.value == "later" { Ok(()) } else { Err(format!("{:?}", read.value)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_region_is_refused() {
    let mut network = three_regions().await;
    let Err(refused) = client_in(&network, "mars").await else { panic!("it is in") };
    let said = "this network has delays between eu, us, asia, and none for the region mars";
    assert_eq!(refused.to_string(), said);
    let index = network.spawn_node_with(&["--listen", "127.0.0.1:0", "--region", "mars"]);
    let ended = network.nodes[index].running().ready().await.unwrap_err();
    assert!(ended.contains(said), "{ended}");
}
