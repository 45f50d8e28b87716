//! Waiting: for what is sure to happen, and for time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// Time that anything may take that is sure to happen, on a machine that is busy otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `attempt` succeeds. What it says while it does not is told if that takes too long.
pub(crate) async fn eventually<T>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Lets the load run for a while: the one kind of time that has to pass by itself.
pub(crate) async fn for_a_while(time_ms: u64) {
    tokio::time::sleep(Duration::from_millis(time_ms)).await;
}
