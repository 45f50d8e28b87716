//! Tasks whose end must not pass unnoticed.
//!
//! A task that panics is gone, and tokio tells only whoever waits for it. A task that runs for the life of
//! a process has nobody who waits: what it did is not done any more, and everything else looks as before.
//! [`caught`] makes a panic a value; [`again`] is for those that can begin anew without harm. What else is
//! to be done, such as ending the process, is for whoever owns the task.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tracing::error;

/// Time between the panic of a task and its next beginning.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Something has panicked, with this message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

impl Panicked {
    /// From what a thread or a task has left.
    pub fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "without a message".to_owned()))
    }
}

/// Runs a task to its end, or to its panic.
///
/// # Errors
/// If it panicked. It is dropped then, and with it what it held.
pub async fn caught<F: Future>(task: F) -> Result<F::Output, Panicked> {
    let mut task = pin!(task);
    std::future::poll_fn(move |context| {
        // It is not polled again, so nobody sees what a panic has left half done in it.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(Panicked::new(&*payload))),
        }
    })
    .await
}

/// Runs a task that may begin anew: after a panic, which is logged, it does so within a second or two.
pub async fn again<F: Future>(what: &str, mut task: impl FnMut() -> F) -> F::Output {
    loop {
        match caught(task()).await {
            Ok(output) => return output,
            Err(panicked) => {
                error!("{what} {panicked}; it is started again; this is a fault in dkv");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_value_and_a_task_begins_anew() {
        let panicked = caught(async {
            tokio::task::yield_now().await;
            panic!("number {}", 7)
        });
        assert_eq!(panicked.await, Err::<(), _>(Panicked("number 7".into())));
        assert_eq!(caught(async { 1 }).await, Ok(1));
        let mut begun = 0;
        let ended = again("the task", || {
            begun += 1;
            let begun = begun;
            async move {
                assert!(begun > 2, "too early");
                begun
            }
        });
        assert_eq!(ended.await, 3);
    }
}
