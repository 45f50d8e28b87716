//! Elections while nothing fails and a network is under load: there should be none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dkv_api::Client;
use tokio::task::JoinSet;

use crate::systems::{Dkv, Setup};
use crate::workload;

/// Loads a healthy dkv network and counts its elections.
pub(crate) async fn run(setup: &Setup, time: Duration, clients: usize) -> Result<(), String> {
    let network = Dkv::start(setup).await?;
    let client = network.client().await?;
    let (before, logged) = (terms(&client).await, network.logged());
    let count = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for number in 0..clients {
        let (client, count) = (client.clone(), Arc::clone(&count));
        let value = workload::value(100, 0);
        writers.spawn(async move {
            for turn in 0_u64.. {
                let key = format!("writer-{number}-{}", turn % 1000);
                if client.write(key, value.clone()).await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::time::sleep(time).await;
    drop(writers);
    let elections = terms(&client).await.saturating_sub(before);
    dkv_base::say!("{} writes in {} s", count.load(Ordering::Relaxed), time.as_secs());
    dkv_base::say!("elections: {elections}");
    if elections > 0 {
        dkv_base::say!("meanwhile the nodes logged:");
        let logged: BTreeSet<String> = logged.into_iter().collect();
        network.logged().iter().filter(|line| !logged.contains(*line)).for_each(|line| {
            dkv_base::say!("{line}");
        });
    }
    Ok(())
}

/// Returns the sum of the terms of all groups.
async fn terms(client: &Client) -> u64 {
    let status = client.status().await;
    let mut terms = BTreeMap::new();
    for (_, node) in &status.nodes {
        for group in node.iter().flat_map(|node| &node.groups) {
            let term = terms.entry(group.group).or_insert(group.term);
            *term = (*term).max(group.term);
        }
    }
    terms.values().map(|term| term.0).sum()
}
