//! The open loop: requests start at a fixed rate, whether the earlier ones are answered or not, and
//! the latency of each counts from when it should have started. So the figures include waiting to
//! be sent, and a stall is not hidden by requests that were never made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Client, Tally, Window};
use crate::systems::Answer;

/// Most requests under way. Further ones are dropped and count as failed: the rate exceeds what the
/// system can do.
const UNDER_WAY_MAX: usize = 65_536;

/// The end of one request.
struct End {
    late: Duration,
    latency: Duration,
    answer: Result<Answer, String>,
}

/// Ends the pacing thread when the measurement is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn run(clients: Vec<Client>, window: Window, rate: f64) -> Result<Tally, String> {
    if clients.is_empty() || rate.is_nan() || rate <= 0.0 {
        return Err("an open loop needs a client and a rate".into());
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let stopped = Arc::new(AtomicBool::new(false));
    let _stop = Stop(Arc::clone(&stopped));
    let handle = Handle::current();
    // A separate thread: the runtime's timer has a resolution of a millisecond, and its threads are
    // busy.
    std::thread::spawn(move || pace(clients, window, rate, &handle, &ends, &stopped));
    let mut tally = Tally::default();
    while let Some(End { late, latency, answer }) = ended.recv().await {
        tally.record_lateness(late);
        tally.record(latency, answer);
    }
    Ok(tally)
}

/// Starts each request at its time.
fn pace(
    mut clients: Vec<Client>,
    window: Window,
    rate: f64,
    handle: &Handle,
    ends: &mpsc::UnboundedSender<End>,
    stopped: &AtomicBool,
) {
    let under_way = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    for number in 0_u64.. {
        let intended = start + Duration::from_secs_f64(number as f64 / rate);
        if intended >= window.end || stopped.load(Ordering::Relaxed) {
            return;
        }
        let wait = intended.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let late = intended.elapsed();
        let index = number as usize % clients.len();
        let counts = intended >= window.begin;
        if under_way.load(Ordering::Relaxed) >= UNDER_WAY_MAX {
            let answer = Err("given up: too many are under way".to_owned());
            if counts {
                let _ = ends.send(End { late, latency: Duration::ZERO, answer });
            }
            continue;
        }
        let client = &mut clients[index];
        let (operation, insert) = client.stream.next();
        let (driver, workload) = (Arc::clone(&client.driver), Arc::clone(&client.workload));
        let (ends, under_way) = (ends.clone(), Arc::clone(&under_way));
        under_way.fetch_add(1, Ordering::Relaxed);
        handle.spawn(async move {
            let answer = driver.run(operation).await;
            let latency = intended.elapsed();
            under_way.fetch_sub(1, Ordering::Relaxed);
            if insert && answer.is_ok() {
                workload.note_inserted();
            }
            if counts {
                // The receiver is gone if the measurement was cancelled.
                let _ = ends.send(End { late, latency, answer });
            }
        });
    }
}
