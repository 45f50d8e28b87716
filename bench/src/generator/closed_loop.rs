//! The closed loop: each client has one request under way and sends the next one when it is
//! answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Client, Tally, Window};

/// Pause of a client after a failure, so that a system that refuses is not flooded.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn run(clients: Vec<Client>, window: Window) -> Result<Tally, String> {
    // Dropped with this future, so that no client outlives it.
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(run_client(client, window));
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(tally.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

async fn run_client(mut client: Client, window: Window) -> Tally {
    let mut tally = Tally::default();
    loop {
        let (operation, insert) = client.stream.next();
        let begun = Instant::now();
        if begun >= window.end {
            return tally;
        }
        let answer = client.driver.run(operation).await;
        let latency = begun.elapsed();
        if insert && answer.is_ok() {
            client.workload.note_inserted();
        }
        let failed = answer.is_err();
        if begun >= window.begin {
            tally.record(latency, answer);
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
