//! The tasks of a node, in one place so that none outlives the node.

use std::sync::{Mutex, MutexGuard};

use dkv_base::sync::lock;
use tokio::task::JoinSet;

/// A set of tasks that end together.
pub(crate) struct TaskSet {
    /// `None` once the tasks have been ended.
    running: Mutex<Option<JoinSet<()>>>,
}

impl Default for TaskSet {
    fn default() -> Self {
        Self { running: Mutex::new(Some(JoinSet::new())) }
    }
}

impl TaskSet {
    /// Spawns a task, which runs until it completes or the set ends. After that, no task starts.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.lock();
        let Some(tasks) = running.as_mut() else { return };
        // Completed tasks are reaped here, so the set never holds more tasks than ran at once. The
        // panic hook has already reported any panic.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Aborts all tasks at their next await point and returns when they are gone.
    pub(crate) async fn end(&self) {
        let running = self.lock().take();
        if let Some(mut tasks) = running {
            tasks.shutdown().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        lock(&self.running)
    }

    /// Returns the number of tasks in the set, running or not.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.lock().as_ref().map_or(0, JoinSet::len)
    }
}

#[cfg(test)]
mod tests;
