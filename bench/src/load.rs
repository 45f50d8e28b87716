//! A closed loop: each client has one request under way, and sends the next when it is answered.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Client, Error, ReadOptions};
use hdrhistogram::Histogram;

use crate::Work;
use crate::network::Network;

/// What is measured.
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Figures {
    clients: usize,
    work: Work,
    rate: f64,
    latency: Histogram<u64>,
    cpu_us: f64,
    memory: u64,
}

impl Figures {
    pub(crate) const HEADER: &'static str = "work          clients       ops/s   p50 ms   p99 ms p99.9 ms   max ms  cpu us/op  peak MiB";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e6;
        write!(
            f,
            "{:<13} {:>7} {:>11.0} {:>8.3} {:>8.3} {:>8.3} {:>8.1} {:>10.1} {:>9}",
            format!("{:?}", self.work).to_lowercase(),
            self.clients,
            self.rate,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            ms(1.0),
            self.cpu_us,
            self.memory / (1024 * 1024),
        )
    }
}

/// Writes the keys that are going to be read.
pub(crate) async fn prepare(client: &Client, plan: &Plan) -> Result<(), String> {
    if plan.work == Work::Put {
        return Ok(());
    }
    let value = Bytes::from(vec![b'v'; plan.value_bytes]);
    let tasks = (0..64).map(|first| {
        let (client, value, keys) = (client.clone(), value.clone(), plan.keys);
        tokio::spawn(async move {
            for key in (first..keys).step_by(64) {
                client.write(name(key), value.clone()).await?;
            }
            Ok::<(), Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Runs the loop with this many clients.
pub(crate) async fn run(
    client: &Client,
    plan: &Plan,
    clients: usize,
    network: &Network,
) -> Result<Figures, String> {
    let value = Bytes::from(vec![b'v'; plan.value_bytes]);
    let (cpu_before, _) = network.usage();
    let start = Instant::now();
    let end = start + plan.time;
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let (client, value) = (client.clone(), value.clone());
            let (work, keys) = (plan.work, plan.keys);
            tokio::spawn(async move { one_client(client, work, keys, value, number, end).await })
        })
        .collect();
    let mut latency = new_histogram();
    for task in tasks {
        let one = task.await.map_err(|error| error.to_string())?;
        latency.add(one.map_err(|e| e.to_string())?).map_err(|error| error.to_string())?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (cpu, memory) = network.usage();
    let count = latency.len() as f64;
    Ok(Figures {
        clients,
        work: plan.work,
        rate: count / seconds,
        cpu_us: (cpu - cpu_before).as_secs_f64() * 1e6 / count,
        latency,
        memory,
    })
}

async fn one_client(
    client: Client,
    work: Work,
    keys: u64,
    value: Bytes,
    number: usize,
    end: Instant,
) -> Result<Histogram<u64>, Error> {
    let mut latency = new_histogram();
    // A fixed walk over the keys, another for each client.
    let mut key = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while Instant::now() < end {
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = name((key >> 33) % keys);
        let begun = Instant::now();
        match work {
            Work::Put => drop(client.write(name, value.clone()).await?),
            Work::Get => drop(client.read(name).await?),
            Work::EventualGet => drop(client.read_with(name, ReadOptions::eventual()).await?),
        }
        // The histogram grows as it must; only its own memory could be refused.
        let _ = latency.record(begun.elapsed().as_nanos() as u64);
    }
    Ok(latency)
}

fn name(key: u64) -> String {
    format!("key-{key:012}")
}

fn new_histogram() -> Histogram<u64> {
    // Three significant digits are always accepted.
    Histogram::new(3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Shared by measurements that only need to keep a network busy.
pub(crate) fn keep_writing(
    client: &Client,
    clients: usize,
    on_write: impl Fn(Result<(), Error>) + Send + Sync + 'static,
) -> Vec<tokio::task::JoinHandle<()>> {
    let on_write = Arc::new(on_write);
    let value = Bytes::from_static(&[b'v'; 100]);
    (0..clients)
        .map(|number| {
            let (client, value, on_write) = (client.clone(), value.clone(), Arc::clone(&on_write));
            tokio::spawn(async move {
                let mut count = 0_u64;
                loop {
                    let written = client.write(format!("{number}-{}", count % 1000), value.clone());
                    on_write(written.await.map(drop));
                    count += 1;
                }
            })
        })
        .collect()
}
