//! Supervision of tasks whose end must not pass unnoticed.
//!
//! When a task panics, tokio reports it only to the task that joins it. A task that runs for the
//! life of a process is never joined: its work would stop silently while everything else goes on.
//! [`caught`] turns a panic into a value, and [`caught_in_silence`] does so for libraries whose
//! panics are expected. [`again`] restarts a task that can begin anew without harm. A [`Failure`]
//! is for the tasks that a process cannot do without: when one of them ends, the process ends with
//! an explanation, and its supervisor starts it again.

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

/// Time between the panic of a task and its restart.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether the panic hook stays silent on this thread, as the caller reports panics itself.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// A panic, with its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

impl Panicked {
    /// The panic whose payload a thread or a task left behind.
    pub fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "without a message".to_owned()))
    }
}

/// Runs a task until it ends or panics.
///
/// # Errors
/// If it panicked. The task and all that it owns are dropped then.
pub async fn caught<F: Future>(task: F) -> Result<F::Output, Panicked> {
    let mut task = pin!(task);
    std::future::poll_fn(move |context| {
        // Unwind safe: after a panic the task is never polled again.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(Panicked::new(&*payload))),
        }
    })
    .await
}

/// Calls a function that may panic, and that leaves what it borrows usable then.
///
/// # Errors
/// If it panicked.
pub fn caught_call<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| Panicked::new(&*payload))
}

/// Calls a function that may panic, without the usual message on standard error: the caller reports
/// what the panic means.
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

/// Runs a task and restarts it a second after each panic, which is logged.
pub async fn again<F: Future>(what: &str, mut task: impl FnMut() -> F) -> F::Output {
    loop {
        match caught(task()).await {
            Ok(output) => return output,
            Err(panicked) => {
                error!("{what} {panicked}; it is restarted; this is a bug in dkv");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// The reason why a process must stop, once there is one. Clones share it.
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
    /// Fails the process, for this reason. The first call counts.
    pub fn fail(&self, why: String) {
        self.why.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(why);
            is_first
        });
    }

    /// Watches for the reason.
    pub fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.why.subscribe()
    }

    /// Waits for a failure and returns its reason.
    pub async fn happened(&self) -> String {
        let mut seen = self.subscribe();
        let why = seen.wait_for(Option::is_some).await;
        // `self` holds the sender, so the channel is open.
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Wraps a task whose end or panic is a failure. Aborting it is neither.
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
            // Tasks also end when the process stops, but then no one watches for a failure.
            failure.fail(format!("{what} has ended"));
        }
    }

    /// Wraps a task whose panic is a failure; it may end.
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
                failure.fail(format!("{what} {panicked}; this is a bug in dkv"));
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
        assert_eq!(why, "the one panicked: planted; this is a bug in dkv");
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
