//! Tasks whose end must not pass unnoticed.
//!
//! A task that panics is gone, and tokio tells only whoever waits for it. A task that runs for the
//! life of a process has nobody who waits: what it did is not done any more, and everything else
//! looks as before. [`caught`] makes a panic a value, and [`caught_in_silence`] that of a library
//! whose panics are answers; [`again`] is for those that can begin anew without harm. A [`Failure`]
//! is for those that a process cannot be without: their end ends it, with a sentence, and whoever
//! started it starts it again.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tracing::error;

use crate::mutants::{Mutant, planted};

/// Time between the panic of a task and its next beginning.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether a panic of this thread is told by whoever catches it.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

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

/// Calls what may panic and says nothing of it: whoever calls says what it means.
///
/// # Errors
/// If it panicked.
pub fn caught_in_silence<T>(call: impl FnOnce() -> T + UnwindSafe) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicking| {
            if !SILENT.get() {
                usual(panicking);
            }
        }));
    });
    let before = SILENT.replace(true);
    let called = catch_unwind(call);
    SILENT.set(before);
    called.map_err(|payload| Panicked::new(&*payload))
}

/// Runs a task that may begin anew: after a panic, which is logged, it does so within a second or
/// two.
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

/// Why a process must not go on, once something says so. Clones are of the same process.
#[derive(Clone, Debug)]
pub struct Failure {
    why: watch::Sender<Option<String>>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { why: watch::Sender::new(None) }
    }
}

impl Failure {
    /// Says why. The first one counts.
    pub fn fail(&self, why: String) {
        self.why.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(why);
            is_first
        });
    }

    /// Follows it: what is watched is why, once something has said so.
    pub fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.why.subscribe()
    }

    /// Completes once something has said why, with that.
    pub async fn happened(&self) -> String {
        let mut seen = self.subscribe();
        let why = seen.wait_for(Option::is_some).await;
        // The sender is here, so the channel is open.
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// A task whose end, however it comes, is a failure. One that is aborted has not ended.
    pub fn if_ended(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (failure, task) = (self.clone(), self.if_panicked(what, task));
        async move {
            task.await;
            if planted(Mutant::OverlookDeadTasks) {
                return;
            }
            // As it does when the process stops; nobody listens then.
            failure.fail(format!("{what} has ended"));
        }
    }

    /// A task whose panic is a failure.
    pub fn if_panicked(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let failure = self.clone();
        async move {
            if let Err(panicked) = caught(task).await {
                error!("{what} {panicked}");
                if planted(Mutant::OverlookDeadTasks) {
                    return;
                }
                failure.fail(format!("{what} {panicked}; this is a fault in dkv"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_a_failure() {
        let failure = Failure::default();
        tokio::spawn(failure.if_ended("the one that runs", std::future::pending()));
        tokio::spawn(failure.if_ended("the one", async { panic!("planted") }));
        let why = failure.happened().await;
        assert_eq!(why, "the one panicked: planted; this is a fault in dkv");
        // The first one counts.
        failure.if_ended("another", async {}).await;
        assert_eq!(failure.happened().await, why);
        let failure = Failure::default();
        failure.if_panicked("the one that may end", async {}).await;
        failure.if_ended("the one that ends", async {}).await;
        assert_eq!(failure.happened().await, "the one that ends has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_value_and_a_task_begins_anew() {
        let panicked = caught(async {
            tokio::task::yield_now().await;
            panic!("number {}", 7)
        });
        assert_eq!(panicked.await, Err::<(), _>(Panicked("number 7".into())));
        assert_eq!(caught(async { 1 }).await, Ok(1));
        assert_eq!(caught_in_silence(|| 1), Ok(1));
        let silent = caught_in_silence(|| {
            assert!(SILENT.get());
            panic!("planted")
        });
        assert_eq!(silent, Err::<(), _>(Panicked("planted".into())));
        assert!(!SILENT.get());
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
