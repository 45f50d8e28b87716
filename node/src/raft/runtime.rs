//! The runtime that openraft runs on: tokio, with nothing in it that is left to chance but by the
//! platform, and with each group's time at its pace (see `pace.rs`).

use std::cell::Cell;
use std::time::Duration;

use dkv_wire::platform;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::ordered_watch::OrderedWatch;
use super::pace::{self, Moment};

/// Shorter than any time that is worth to sleep.
const GATHER: Duration = Duration::from_micros(100);
/// How often in a row a sleep until the same moment may be cut short.
const CUTS_MAX: u32 = 100;

thread_local! {
    /// The moment until which nobody slept last, and how often in a row.
    static CUT: Cell<(Option<Instant>, u32)> = const { Cell::new((None, 0)) };
}

/// Whether a sleep is so short that it is not slept. A paused clock goes on only while everybody sleeps:
/// whoever waits for the same moment again and again sleeps in the end.
fn is_cut_short(deadline: Instant, now: Instant) -> bool {
    if deadline.saturating_duration_since(now) >= GATHER {
        return false;
    }
    let (last, cuts) = CUT.get();
    let cuts = if last == Some(deadline) { cuts + 1 } else { 0 };
    CUT.set((Some(deadline), cuts));
    cuts < CUTS_MAX
}

/// Tokio; random numbers follow from what the platform draws.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = Moment;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        match pace::current() {
            Some(pace) => TokioRuntime::spawn(async move { pace.run(future).await }),
            None => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(pace::stretched(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        // openraft gathers what its log reports for a microsecond. tokio's clock has milliseconds, so
        // that would hold back every commit for one of them while the log is busy.
        let now = Instant::now();
        tokio::time::sleep_until(if is_cut_short(deadline.0, now) { now } else { deadline.0 })
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(pace::stretched(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline.0, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> SmallRng {
        // For election times only: rare, and no secret.
        SmallRng::seed_from_u64(platform::random_u64())
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stands_still_goes_on_in_the_end() {
        let deadline = Moment(Instant::now() + GATHER / 2);
        let patience = tokio::time::sleep(Duration::from_millis(10));
        let waits = async {
            while Instant::now() < deadline.0 {
                <Runtime as AsyncRuntime>::sleep_until(deadline).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = waits => {}
            () = patience => panic!("it came to other things first"),
        }
        let gathered = Instant::now();
        <Runtime as AsyncRuntime>::sleep_until(Moment(gathered + GATHER / 2)).await;
        assert_eq!(Instant::now(), gathered, "a short sleep costs a millisecond");
    }
}
