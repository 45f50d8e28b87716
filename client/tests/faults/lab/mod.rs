//! A network whose processes are in network namespaces of their own, and ways to harm it.

pub(crate) mod host;
pub(crate) mod network;
pub(crate) mod relay;
pub(crate) mod tools;

#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../../end_to_end/harness/judge.rs"]
pub(crate) mod judge;

#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../../end_to_end/harness/process.rs"]
pub(crate) mod process;

#[path = "../../../src/drill/workload.rs"]
pub(crate) mod workload;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use network::{Lab, Under};
pub(crate) use process::Process;

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
