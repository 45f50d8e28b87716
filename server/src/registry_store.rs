//! The registry store: applies updates one at a time, and writes them before they are answered.
//!
//! Every update runs on a copy of the registry. The copy replaces the registry, and the answers go
//! out, only once the copy is on disk (if the update needs that at all). If the write fails, the
//! copy is dropped and nothing has happened. Updates that arrive during a write share the next one
//! (group commit). Readers see the last durable state and never wait for the disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dkv_base::platform;
use dkv_base::supervise::Failure;
use dkv_wire::acceptor::Acceptor;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::limits::{GROUP_MAX, WAITING_MAX};
use crate::registry::{Effects, Registry};
use crate::registry_file;

/// Why an update was not applied. Nothing has changed, unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// The registry could not be written; a later attempt may succeed.
    #[error("{0}")]
    Write(Arc<io::Error>),
    /// The control group, which decides on changes of the books, did not answer. The change may
    /// have been made all the same.
    #[error("{0}")]
    Waiting(Arc<str>),
    /// The control group refused the change, and would again.
    #[error("the control group refuses the change: {0}")]
    Rejected(Arc<str>),
    /// The server is stopping and takes no more updates.
    #[error("the server is stopping")]
    Stopping,
}

/// A handle to the registry and to the task that updates it.
#[derive(Clone)]
pub(crate) struct RegistryStore {
    updates: mpsc::Sender<Box<dyn PendingUpdate>>,
    current: watch::Receiver<Arc<Registry>>,
}

/// Ends the task of a [`RegistryStore`].
pub(crate) struct StoreTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl StoreTask {
    /// Refuses new updates, and waits until the accepted ones are answered.
    pub(crate) async fn stop(self) {
        // Both fail only if the task has ended already.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }

    /// Ends the task at once. A write in progress completes, but no update is answered.
    pub(crate) fn abort(self) {
        self.task.abort();
    }
}

/// A queued update: applied to a copy, perhaps more than once, then answered once.
pub(crate) trait PendingUpdate: Send {
    fn apply(&mut self, registry: &mut Registry) -> Effects;
    fn finish(self: Box<Self>, outcome: Result<(), UpdateError>);
}

struct Update<T, F> {
    update: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T, UpdateError>>,
}

/// Makes a pending update, and returns where its answer will arrive.
pub(crate) fn pending<T: Send + 'static>(
    update: impl FnMut(&mut Registry) -> (T, Effects) + Send + 'static,
) -> (Box<dyn PendingUpdate>, oneshot::Receiver<Result<T, UpdateError>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Update { update, answer: None, reply }), answer)
}

impl<T, F> PendingUpdate for Update<T, F>
where
    T: Send,
    F: FnMut(&mut Registry) -> (T, Effects) + Send,
{
    fn apply(&mut self, registry: &mut Registry) -> Effects {
        let (answer, effects) = (self.update)(registry);
        self.answer = Some(answer);
        effects
    }

    fn finish(self: Box<Self>, outcome: Result<(), UpdateError>) {
        debug_assert!(
            self.answer.is_some() || outcome.is_err(),
            "an update is applied before it is answered"
        );
        let answer = match (outcome, self.answer) {
            (Ok(()), Some(answer)) => Ok(answer),
            (Ok(()), None) => return,
            (Err(error), _) => Err(error),
        };
        // The caller may be gone; the update stands.
        let _ = self.reply.send(answer);
    }
}

impl RegistryStore {
    /// Starts the task. It holds `lock`, the exclusive right to the data directory, until its last
    /// write is complete. If it ends without being told to, it signals `failure`: the server cannot
    /// work without it.
    pub(crate) fn start(
        registry: Registry,
        file: PathBuf,
        acceptor: Arc<Acceptor>,
        lock: Arc<std::fs::File>,
        failure: &Failure,
    ) -> (Self, StoreTask) {
        let registry = Arc::new(registry);
        let (updates, queue) = mpsc::channel(WAITING_MAX);
        let (publish, current) = watch::channel(Arc::clone(&registry));
        let (stop, stopped) = oneshot::channel();
        let writer = Writer { registry, publish, file, acceptor, lock };
        let task =
            failure.if_ended("the task that writes the registry", writer.run(queue, stopped));
        let task = tokio::spawn(task);
        (Self { updates, current }, StoreTask { stop, task })
    }

    /// Returns the registry as it is on disk.
    pub(crate) fn snapshot(&self) -> Arc<Registry> {
        Arc::clone(&self.current.borrow())
    }

    /// Completes once the registry is like this; never if the store has ended before.
    pub(crate) async fn until(&self, is_so: impl FnMut(&Registry) -> bool) {
        let (mut current, mut is_so) = (self.current.clone(), is_so);
        if current.wait_for(|registry| is_so(registry)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Updates the registry. When this returns, the update is durable and its effects have
    /// happened.
    ///
    /// `update` may run more than once, each time on another copy; the last run counts.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        update: impl FnMut(&mut Registry) -> (T, Effects) + Send + 'static,
    ) -> Result<T, UpdateError> {
        let (pending, answer) = pending(update);
        self.updates.send(pending).await.map_err(|_| UpdateError::Stopping)?;
        answer.await.map_err(|_| UpdateError::Stopping)?
    }
}

struct Writer {
    registry: Arc<Registry>,
    publish: watch::Sender<Arc<Registry>>,
    file: PathBuf,
    acceptor: Arc<Acceptor>,
    lock: Arc<std::fs::File>,
}

impl Writer {
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Box<dyn PendingUpdate>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut stopping = false;
        let mut group = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    queue.close();
                }
                count = queue.recv_many(&mut group, GROUP_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.commit(std::mem::take(&mut group)).await;
                }
            }
        }
    }

    async fn commit(&mut self, mut group: Vec<Box<dyn PendingUpdate>>) {
        let mut next = Registry::clone(&self.registry);
        let mut effects = Effects::default();
        for update in &mut group {
            let Effects { save, deny } = update.apply(&mut next);
            effects.save |= save;
            effects.deny |= deny;
        }
        let next = Arc::new(next);
        if effects.deny {
            // Enforced even if the write fails: refusing a holder too early does no harm.
            self.acceptor.set_denied(next.denied());
        }
        let written = if effects.save { self.write(&next).await } else { Ok(()) };
        match written {
            Ok(()) => {
                self.publish(next);
                for update in group {
                    update.finish(Ok(()));
                }
            }
            Err(failure) => self.commit_without_disk(group, &failure),
        }
    }

    /// Answers the updates that need no write, even while the disk is full.
    fn commit_without_disk(&mut self, group: Vec<Box<dyn PendingUpdate>>, failure: &UpdateError) {
        for mut update in group {
            let mut next = Registry::clone(&self.registry);
            if update.apply(&mut next).save {
                update.finish(Err(failure.clone()));
            } else {
                self.publish(Arc::new(next));
                update.finish(Ok(()));
            }
        }
    }

    async fn write(&self, next: &Arc<Registry>) -> Result<(), UpdateError> {
        let (next, file, lock) = (Arc::clone(next), self.file.clone(), Arc::clone(&self.lock));
        let written = platform::run_blocking(move || {
            let written = registry_file::save(&file, &next);
            drop(lock);
            written
        });
        let failure = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(error) => io::Error::other(error.to_string()),
        };
        error!(%failure, "cannot write the registry");
        Err(UpdateError::Write(Arc::new(failure)))
    }

    fn publish(&mut self, next: Arc<Registry>) {
        if let Some((name, term)) = next.coordinator()
            && self.registry.coordinator().is_none_or(|(_, before)| before != term)
        {
            info!(coordinator = %name, %term, "confirmed the coordinator");
        }
        self.registry = Arc::clone(&next);
        self.publish.send_replace(next);
    }
}

#[cfg(test)]
mod tests;
