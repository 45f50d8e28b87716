//! Tasks that a server cannot be without.
//!
//! A server whose tasks have ended looks alive: it listens, and answers nobody. So the end of any of them ends
//! the process, with a sentence; whoever started it starts it again, and the books are on disk.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

use dkv_wire::supervise::caught;

/// Which task has ended, if one has.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    why: watch::Sender<Option<String>>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { why: watch::Sender::new(None) }
    }
}

impl Failure {
    /// Runs a task whose end is noticed.
    pub(crate) fn watched(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let failure = self.clone();
        tokio::spawn(async move {
            let why = match caught(task).await {
                // As it does when the server stops; nobody listens then.
                Ok(()) => format!("{what} has ended"),
                Err(panicked) => {
                    error!("{what} {panicked}");
                    format!("{what} {panicked}; this is a fault in dkv")
                }
            };
            failure.why.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(why);
                is_first
            });
        })
    }

    /// Completes when a task has ended, with a sentence about it.
    pub(crate) async fn happened(&self) -> String {
        let mut seen = self.why.subscribe();
        let why = seen.wait_for(Option::is_some).await;
        // The sender is here, so the channel is open.
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_noticed() {
        let failure = Failure::default();
        let _runs = failure.watched("the one that runs", std::future::pending());
        let _gone = failure.watched("the one that panics", async { panic!("planted") });
        let why = failure.happened().await;
        assert_eq!(why, "the one that panics panicked: planted; this is a fault in dkv");
        // The first one counts.
        failure.watched("another", async {}).await.unwrap();
        assert_eq!(failure.happened().await, why);
        let failure = Failure::default();
        failure.watched("the one that ends", async {}).await.unwrap();
        assert_eq!(failure.happened().await, "the one that ends has ended");
    }
}
