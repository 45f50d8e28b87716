use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::BoxFuture;

use super::*;
use crate::systems::Answer;
use crate::workload::Operation;

/// A system that answers at once, except during one stall.
struct Stalling {
    begun: Instant,
    from: Duration,
    to: Duration,
    asked: AtomicU64,
}

impl Driver for Stalling {
    fn run(&self, _operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.begun.elapsed() >= self.from {
                tokio::time::sleep_until((self.begun + self.to).into()).await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Answer::Done)
        })
    }
}

struct Failing;

impl Driver for Failing {
    fn run(&self, _operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async { Err("no".to_owned()) })
    }
}

fn clients(driver: &Arc<dyn Driver>, count: usize) -> Vec<Client> {
    let workload = Arc::new(Workload::new(Work::Put, 10, 10, 1));
    let client = |number| Client {
        stream: Stream::new(Arc::clone(&workload), number),
        workload: Arc::clone(&workload),
        driver: Arc::clone(driver),
    };
    (0..count).map(client).collect()
}

/// Returns a system that stalls for the second half of a second, and that second.
fn stall() -> (Arc<dyn Driver>, Window) {
    let begun = Instant::now();
    let (from, to) = (Duration::from_millis(500), Duration::from_millis(1000));
    let driver = Arc::new(Stalling { begun, from, to, asked: AtomicU64::new(0) });
    (driver, Window { begin: begun, end: begun + to })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_shows_a_stall_to_everybody_who_comes_meanwhile() {
    let (driver, window) = stall();
    let tally = open_loop::run(clients(&driver, 2), window, 200.0).await.unwrap();
    // All requests were sent, and half of them waited, 250 ms on average.
    assert!((150..=201).contains(&tally.answered()), "{}", tally.answered());
    assert!(tally.latency_ms(0.75) > 100.0, "{}", tally.latency_ms(0.75));
    assert!(tally.latency_ms(1.0) > 400.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_hides_it() {
    let (driver, window) = stall();
    let tally = closed_loop::run(clients(&driver, 2), window).await.unwrap();
    // Each client met the stall once.
    assert!(tally.latency_ms(0.75) < 100.0, "{}", tally.latency_ms(0.75));
    assert!(tally.latency_ms(1.0) > 400.0);
}

#[tokio::test]
async fn nothing_counts_that_began_while_warming_up() {
    let (driver, mut window) = stall();
    window.begin = window.end - Duration::from_millis(1);
    let tally = closed_loop::run(clients(&driver, 2), window).await.unwrap();
    assert_eq!(tally.answered(), 0);
}

#[tokio::test]
async fn failures_are_counted_and_paced() {
    let driver: Arc<dyn Driver> = Arc::new(Failing);
    let begin = Instant::now();
    let window = Window { begin, end: begin + Duration::from_millis(200) };
    let tally = closed_loop::run(clients(&driver, 1), window).await.unwrap();
    assert!((1..=21).contains(&tally.failed), "{}", tally.failed);
    assert_eq!((tally.answered(), tally.error.as_deref()), (0, Some("no")));
}

#[tokio::test]
async fn an_open_loop_needs_a_rate() {
    let driver: Arc<dyn Driver> = Arc::new(Failing);
    let window = Window { begin: Instant::now(), end: Instant::now() };
    assert!(open_loop::run(clients(&driver, 1), window, 0.0).await.is_err());
    assert!(open_loop::run(clients(&driver, 1), window, f64::NAN).await.is_err());
    assert!(open_loop::run(Vec::new(), window, 1.0).await.is_err());
}
