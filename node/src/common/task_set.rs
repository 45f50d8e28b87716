//! The tasks of a node, all in one place, so that none outlives it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// Tasks that are ended together.
pub(crate) struct TaskSet {
    /// Nothing once they were ended.
    running: Mutex<Option<JoinSet<()>>>,
}

impl Default for TaskSet {
    fn default() -> Self {
        Self { running: Mutex::new(Some(JoinSet::new())) }
    }
}

impl TaskSet {
    /// Runs a task until it completes or all are ended. After that, it does not begin.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.lock();
        let Some(tasks) = running.as_mut() else { return };
        // Those that have completed are let go of here, so no more are kept than ran at once. A
        // panic in one has been reported by the panic hook.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends all tasks where they wait, and returns when they are gone.
    pub(crate) async fn end(&self) {
        let running = self.lock().take();
        if let Some(mut tasks) = running {
            tasks.shutdown().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are kept, running or not.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.lock().as_ref().map_or(0, JoinSet::len)
    }
}

#[cfg(test)]
mod tests;
