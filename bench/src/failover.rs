//! The time without acknowledged writes when the coordinator goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dkv_api::Client;
use rustix::process::Signal;

use crate::How;
use crate::load::keep_writing;
use crate::network::Network;

/// What the writers have seen.
#[derive(Default)]
struct Seen {
    last: Option<Instant>,
    /// The longest time between two acknowledged writes.
    gap: Duration,
    failed: Vec<String>,
    acknowledged: u64,
}

/// Kills or stops the coordinator again and again, and prints each gap and their median.
pub(crate) async fn run(
    network: &mut Network,
    client: &Client,
    how: How,
    runs: usize,
    clients: usize,
) -> Result<(), String> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    let writers = keep_writing(client, clients, move |written| {
        let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(()) => {
                let now = Instant::now();
                if let Some(last) = seen.last {
                    seen.gap = seen.gap.max(now - last);
                }
                seen.last = Some(now);
                seen.acknowledged += 1;
            }
            Err(error) => seen.failed.push(error.to_string()),
        }
    });
    let mut gaps = Vec::new();
    for number in 1..=runs {
        // A second of calm before each.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        let coordinator = view.coordinator.and_then(|id| view.node(id));
        let name = coordinator.ok_or("there is no coordinator")?.name.clone();
        lock(&seen).gap = Duration::ZERO;
        network.signal(&name, if how == How::Kill { Signal::KILL } else { Signal::TERM })?;
        let gone = Instant::now();
        // All writers, on all shards, have to be served again before the gap is known.
        tokio::time::sleep(Duration::from_secs(1)).await;
        while lock(&seen).last.is_none_or(|last| last < gone + Duration::from_millis(500)) {
            if gone.elapsed() > Duration::from_secs(60) {
                return Err("no write was acknowledged within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let gap = lock(&seen).gap;
        println!("{number:>3}  {name}  {:>8.1} ms", gap.as_secs_f64() * 1e3);
        gaps.push(gap);
        network.reap(&name);
        network.start_node(&name)?;
        network.wait_complete(view.nodes.len()).await?;
    }
    for writer in writers {
        writer.abort();
    }
    gaps.sort();
    let ms = |gap: Duration| gap.as_secs_f64() * 1e3;
    if let (Some(min), Some(max)) = (gaps.first(), gaps.last()) {
        let median = gaps[gaps.len() / 2];
        println!("gap in acknowledged writes, {runs} runs, {clients} writers, {how:?}:");
        println!("min {:.0} ms, median {:.0} ms, max {:.0} ms", ms(*min), ms(median), ms(*max));
    }
    let seen = lock(&seen);
    println!("{} writes acknowledged, {} failed", seen.acknowledged, seen.failed.len());
    for error in seen.failed.iter().take(5) {
        println!("  {error}");
    }
    Ok(())
}

/// Loads a healthy network and counts the elections that there should not be.
pub(crate) async fn steady(client: &Client, time: Duration, clients: usize) -> Result<(), String> {
    let before = terms(client).await;
    let count = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&count);
    let writers = keep_writing(client, clients, move |written| {
        if written.is_ok() {
            shared.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::time::sleep(time).await;
    for writer in writers {
        writer.abort();
    }
    let after = terms(client).await;
    println!("{} writes in {} s", count.load(Ordering::Relaxed), time.as_secs());
    println!("elections: {}", after.saturating_sub(before));
    Ok(())
}

/// The sum of the terms of all groups.
async fn terms(client: &Client) -> u64 {
    let status = client.status().await;
    let mut terms = std::collections::BTreeMap::new();
    for (_, node) in &status.nodes {
        for group in node.iter().flat_map(|node| &node.groups) {
            let term = terms.entry(group.group).or_insert(group.term);
            *term = (*term).max(group.term);
        }
    }
    terms.values().map(|term| term.0).sum()
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
