//! Waiting for conditions, with a deadline, and for time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// Deadline of everything that must happen, generous enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `attempt` succeeds, and returns its result.
///
/// # Panics
/// With `what` and the last error, if it does not succeed within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Lets the load run for a while: the one case in which a test sleeps for a fixed time.
pub async fn for_a_while(time_ms: u64) {
    tokio::time::sleep(Duration::from_millis(time_ms)).await;
}

/// Awaits a future that must be quick.
///
/// # Panics
/// With `what`, if the future takes longer than `time`.
pub async fn within<T>(time: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(time, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}
