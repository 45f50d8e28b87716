//! The runtime on which openraft runs: tokio, with the platform as the only source of randomness,
//! and with each group's time at its own pace (see `heartbeat/time_scaling.rs`).

use std::cell::Cell;
use std::time::Duration;

use dkv_base::platform;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::fifo_watch::FifoWatch;
use crate::raft::heartbeat::time_scaling::{self, Moment};

/// Time below which a sleep is skipped. openraft gathers the reports of its log for a microsecond,
/// which is too short to be worth a sleep.
const GATHER: Duration = Duration::from_micros(2);

thread_local! {
    /// The deadline of the last sleep that was skipped.
    static NOT_SLEPT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Tokio, with random numbers that derive from the platform's.
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
    type Watch = FifoWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        match time_scaling::current() {
            Some(time_scale) => TokioRuntime::spawn(async move { time_scale.run(future).await }),
            None => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(time_scaling::stretched(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        // tokio's clock has a resolution of a millisecond, so gathering would delay every commit by
        // a millisecond while the log is busy. A caller that comes back with the same deadline
        // waits for a tick of its clock, which must advance: where time stands still until all
        // tasks sleep, the caller would ask forever.
        let now = Instant::now();
        let gathers = deadline.0.saturating_duration_since(now) < GATHER;
        let again = gathers && NOT_SLEPT.replace(Some(deadline.0)) == Some(deadline.0);
        tokio::time::sleep_until(if gathers && !again {
            now
        } else {
            time_scaling::end_of_sleep(deadline)
        })
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(time_scaling::stretched(duration), future)
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
        // For election timeouts only: they are rare, and no secret.
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
    async fn who_comes_back_with_the_same_moment_is_let_wait() {
        let begun = Instant::now();
        let moment = Moment(begun + Duration::from_micros(1));
        Runtime::sleep_until(moment).await;
        assert_eq!(Instant::now(), begun);
        Runtime::sleep_until(moment).await;
        assert!(Instant::now() > begun);
        let later = Moment(begun + Duration::from_millis(5));
        Runtime::sleep_until(later).await;
        assert!(Instant::now() >= later.0);
    }
}
