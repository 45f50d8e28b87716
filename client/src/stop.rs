//! How a long command ends: the first signal asks it to, and the second gives it up.
//!
//! The signals have a task of their own, so that they count while the command's own task waits for
//! somebody to read its output.

use std::time::Duration;

use dkv_console::problem::Problem;
use dkv_console::signals::{Signals, StopSignal};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Time after the second signal in which the command may say that it was given up.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The signals of a long command.
pub(crate) struct Stop {
    stopped: watch::Receiver<bool>,
    signals: watch::Receiver<Vec<StopSignal>>,
    _task: AbortOnDrop<()>,
}

/// A task that ends when this is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Work that goes on beside the task that shows it, and ends when this is dropped.
pub(crate) struct Beside<T> {
    work: JoinHandle<Option<T>>,
    dropped: oneshot::Sender<()>,
}

impl<T: Send + 'static> Beside<T> {
    /// Begins it, on a thread of its own.
    pub(crate) fn begin<F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> Self {
        let (dropped, is_dropped) = oneshot::channel();
        let runtime = Handle::current();
        // Its futures need not be able to change threads.
        let work = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Once it is dropped the runtime may be ending.
                    biased;
                    _ = is_dropped => None,
                    done = work() => Some(done),
                }
            })
        });
        Self { work, dropped }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) async fn done(&mut self) -> Result<T, Problem> {
        let done = (&mut self.work).await.map_err(|error| Problem::failed(error.to_string()))?;
        done.ok_or_else(|| Problem::failed("the command was ended"))
    }

    /// Gives it up, and waits until nothing more comes of it.
    pub(crate) async fn give_up(self) {
        let Self { work, dropped } = self;
        drop(dropped);
        // A handle gives the outcome once, and [`Self::done`] may have taken it.
        if !work.is_finished() {
            let _ = work.await;
        }
    }
}

impl Stop {
    /// Takes over the signals.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn take() -> Result<Self, Problem> {
        let mut taken = Signals::take()
            .map_err(|error| Problem::failed(format!("cannot listen for signals: {error}")))?;
        let (stop, stopped) = watch::channel(false);
        let (came, signals) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let first = taken.next().await;
            came.send_modify(|all| all.push(first));
            stop.send_replace(true);
            let second = taken.next().await;
            came.send_modify(|all| all.push(second));
            tokio::time::sleep(LAST_WORDS).await;
            // The reader of its output does not read, and so the command cannot end by itself.
            std::process::exit(i32::from(second.status()));
        });
        Ok(Self { stopped, signals, _task: AbortOnDrop(task) })
    }

    /// Returns what becomes true with the first signal.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    /// Waits for a signal and returns it: the second one if the first only asks for the end, and
    /// otherwise the first.
    pub(crate) async fn given_up(&self, asks_first: bool) -> StopSignal {
        let mut signals = self.signals.clone();
        let wanted = usize::from(asks_first);
        let came = signals.wait_for(|all| all.len() > wanted).await;
        match came.ok().and_then(|all| all.get(wanted).copied()) {
            Some(signal) => signal,
            // No more can come.
            None => std::future::pending().await,
        }
    }
}
