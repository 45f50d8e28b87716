//! Samples the network for the page.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkv_api::{Error, NetworkStatus, ReadOptions};
use futures::future::{self, BoxFuture, FutureExt};
use tokio::time::{Instant, MissedTickBehavior};

use super::broadcast::Broadcaster;
use super::history::Observation;
use crate::limits::{READY_TIMEOUT, SAMPLE_INTERVAL, SAMPLE_TIMEOUT, UNWATCHED_INTERVAL};
use crate::metrics::Metrics;
use crate::monitoring::READY_KEY;
use crate::status;
use crate::store::Store;

/// Samples the network for as long as the gateway serves.
pub(crate) async fn sample<S: Store>(
    broadcaster: Arc<Broadcaster>,
    store: S,
    network: Arc<str>,
    metrics: Arc<Metrics>,
) {
    broadcaster.set_running();
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: Option<BoxFuture<'_, NetworkStatus>> = None;
    let mut reading: Option<BoxFuture<'_, Result<u64, Error>>> = None;
    for tick in 0.. {
        let is_opened = tokio::select! {
            _ = ticks.tick() => false,
            () = broadcaster.page_opened() => true,
        };
        if !is_opened && !broadcaster.has_subscribers() && tick % UNWATCHED_INTERVAL != 0 {
            continue;
        }
        asking.get_or_insert_with(|| store.status().boxed());
        reading.get_or_insert_with(|| time_strong_read(&store).boxed());
        let (mut report, mut read) = (None, None);
        let sampling = async {
            while asking.is_some() || reading.is_some() {
                tokio::select! {
                    status = finish(&mut asking) => {
                        report = Some(status::report(&status, &network));
                    }
                    result = finish(&mut reading) => read = Some(result),
                }
            }
        };
        // A node that has just died delays the answers, but must not delay the page.
        let _ = tokio::time::timeout(SAMPLE_TIMEOUT, sampling).await;
        let traffic = metrics.key_traffic();
        broadcaster.publish(Observation { at_ms: now_ms(), report, read, traffic });
    }
}

/// Waits for a future that is in progress, and clears it; pending if there is none.
async fn finish<T>(running: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(future) = running else { return future::pending().await };
    let output = future.await;
    *running = None;
    output
}

/// Returns the duration of a strong read in microseconds, or why it failed.
async fn time_strong_read<S: Store>(store: &S) -> Result<u64, Error> {
    let begun = Instant::now();
    let options = ReadOptions::default().timeout(READY_TIMEOUT);
    match store.read(READY_KEY, options).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(micros(begun.elapsed())),
        Err(error) => Err(error),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
