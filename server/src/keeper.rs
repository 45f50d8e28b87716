//! Keeps the registry: one change after the other, on disk before it is answered.
//!
//! Every change runs on a copy of the registry. Only when the copy is in the books, if it has to
//! be, does it take the registry's place and do the answers go out; if it cannot be written it is
//! dropped, and nothing has happened. Changes that wait while a write is under way share the next
//! one. Readers see the last state that is safe, and never wait for the disk.

use std::path::PathBuf;
use std::sync::Arc;

use dkv_base::platform;
use dkv_base::supervise::Failure;
use dkv_wire::gate::Gate;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::books;
use crate::limits::{GROUP_MAX, WAITING_MAX};
use crate::registry::{Effects, Registry};

/// The books could not be written, or the server is stopping; nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotKept(String);

/// A handle to the registry and to the task that changes it.
#[derive(Clone)]
pub(crate) struct Keeper {
    changes: mpsc::Sender<Box<dyn Change>>,
    current: watch::Receiver<Arc<Registry>>,
}

/// Ends the task of a [`Keeper`].
pub(crate) struct Stop {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Stop {
    /// Takes no more changes, and waits until those that were taken are answered.
    pub(crate) async fn stop(self) {
        // The task may have ended already, and then there is nothing to wait for.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }

    /// Ends the task at once. A write that is under way is finished, and nobody is answered.
    pub(crate) fn abort(self) {
        self.task.abort();
    }
}

/// A change that waits: run on a copy, perhaps more than once, and then answered once.
trait Change: Send {
    fn apply(&mut self, registry: &mut Registry) -> Effects;
    fn finish(self: Box<Self>, kept: Result<(), NotKept>);
}

struct Job<T, F> {
    change: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T, NotKept>>,
}

impl<T, F> Change for Job<T, F>
where
    T: Send,
    F: FnMut(&mut Registry) -> (T, Effects) + Send,
{
    fn apply(&mut self, registry: &mut Registry) -> Effects {
        let (answer, effects) = (self.change)(registry);
        self.answer = Some(answer);
        effects
    }

    fn finish(self: Box<Self>, kept: Result<(), NotKept>) {
        let Some(answer) = self.answer else { return };
        // Whoever asked may have gone; what was kept stays kept.
        let _ = self.reply.send(kept.map(|()| answer));
    }
}

impl Keeper {
    /// Starts the task. It holds `lock`, the right to the data directory, until its last write is
    /// over. If it ends before it is told to, `failure` says so: without it nothing can be changed.
    pub(crate) fn start(
        registry: Registry,
        file: PathBuf,
        gate: Arc<Gate>,
        lock: Arc<std::fs::File>,
        failure: &Failure,
    ) -> (Self, Stop) {
        let registry = Arc::new(registry);
        let (changes, waiting) = mpsc::channel(WAITING_MAX);
        let (publish, current) = watch::channel(Arc::clone(&registry));
        let (stop, stopped) = oneshot::channel();
        let task = Task { registry, publish, file, gate, lock };
        let task = failure.if_ended("the task that keeps the books", task.run(waiting, stopped));
        let task = tokio::spawn(task);
        (Self { changes, current }, Stop { stop, task })
    }

    /// The registry as it is on disk.
    pub(crate) fn current(&self) -> Arc<Registry> {
        Arc::clone(&self.current.borrow())
    }

    /// Changes the registry; when this returns, the change and its effects have happened.
    ///
    /// `change` may run more than once, on different copies; the last run counts.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Registry) -> (T, Effects) + Send + 'static,
    ) -> Result<T, NotKept> {
        let (reply, answer) = oneshot::channel();
        let stopping = || NotKept("the server is stopping".into());
        let job = Box::new(Job { change, answer: None, reply });
        self.changes.send(job).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

struct Task {
    registry: Arc<Registry>,
    publish: watch::Sender<Arc<Registry>>,
    file: PathBuf,
    gate: Arc<Gate>,
    lock: Arc<std::fs::File>,
}

impl Task {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Box<dyn Change>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut stopping = false;
        let mut group = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    waiting.close();
                }
                count = waiting.recv_many(&mut group, GROUP_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.keep(std::mem::take(&mut group)).await;
                }
            }
        }
    }

    async fn keep(&mut self, mut group: Vec<Box<dyn Change>>) {
        let mut next = Registry::clone(&self.registry);
        let mut effects = Effects::default();
        for change in &mut group {
            let Effects { save, deny } = change.apply(&mut next);
            effects.save |= save;
            effects.deny |= deny;
        }
        let next = Arc::new(next);
        if effects.deny {
            // Enforced even if it cannot be written: to refuse too early harms nobody.
            self.gate.set_denied(next.denied());
        }
        let kept = if effects.save { self.write(&next).await } else { Ok(()) };
        match kept {
            Ok(()) => {
                self.publish(next);
                for change in group {
                    change.finish(Ok(()));
                }
            }
            Err(failure) => self.keep_what_needs_no_disk(group, &failure),
        }
    }

    /// What needs no write is answered even while the disk is full.
    fn keep_what_needs_no_disk(&mut self, group: Vec<Box<dyn Change>>, failure: &NotKept) {
        for mut change in group {
            let mut next = Registry::clone(&self.registry);
            if change.apply(&mut next).save {
                change.finish(Err(failure.clone()));
            } else {
                self.publish(Arc::new(next));
                change.finish(Ok(()));
            }
        }
    }

    async fn write(&self, next: &Arc<Registry>) -> Result<(), NotKept> {
        let (next, file, lock) = (Arc::clone(next), self.file.clone(), Arc::clone(&self.lock));
        let written = platform::run_blocking(move || {
            let written = books::save(&file, &next);
            drop(lock);
            written
        });
        let failure = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        error!(%failure, "cannot write the books");
        Err(NotKept(failure))
    }

    fn publish(&mut self, next: Arc<Registry>) {
        if let Some((name, term)) = next.coordinator()
            && self.registry.coordinator().is_none_or(|(_, before)| before != term)
        {
            info!(coordinator = %name, %term, "confirmed");
        }
        self.registry = Arc::clone(&next);
        self.publish.send_replace(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_base::id::{NetworkId, NodeId};
    use dkv_wire::network::Settings;

    #[tokio::test]
    async fn one_that_cannot_be_written_does_not_fail_those_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Arc::new(dkv_base::durable::lock_dir(directory.path()).unwrap());
        let registry = Registry::new(NetworkId::random(), Settings::default(), 0);
        let file = directory.path().join("nowhere").join("books.json");
        let (keeper, stop) =
            Keeper::start(registry, file, Arc::default(), lock, &Failure::default());

        let address = "127.0.0.1:4401".parse().unwrap();
        let node = NodeId::random();
        let register =
            keeper.change(move |next| next.handle_register(node, None, address, None, 0));
        // Sees the node if it runs on the copy that is dropped.
        let count = keeper.change(|next| (next.node_count(), Effects::default()));
        // Both are waiting before the task runs, so that they share a group.
        let (registered, counted) = tokio::join!(register, count);
        assert!(registered.is_err());
        assert_eq!(counted.unwrap(), 0);
        assert_eq!(keeper.current().node_count(), 0);
        stop.stop().await;
    }
}
