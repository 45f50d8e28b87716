//! State that callers, writer and segment manager share: the core behind one lock, and the ways to
//! wake each other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use super::core::Core;
use super::options::{ROOM_RETRY, WalOptions};
use super::segments::Job;

pub(super) struct WalInner {
    pub(super) options: WalOptions,
    core: Mutex<Core>,
    for_writer: Condvar,
    for_segment_manager: Condvar,
    for_appenders: Notify,
    /// Wake-ups of the writer and of the segment manager when they are tasks and not threads.
    writer_task: Notify,
    segment_manager_task: Notify,
}

impl WalInner {
    pub(super) fn new(options: WalOptions, core: Core) -> Self {
        Self {
            options,
            core: Mutex::new(core),
            for_writer: Condvar::new(),
            for_segment_manager: Condvar::new(),
            for_appenders: Notify::new(),
            writer_task: Notify::new(),
            segment_manager_task: Notify::new(),
        }
    }

    /// Locks the core. A panic under the lock is a bug in the core; its work may be half done, so
    /// the log ends.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        match self.core.lock() {
            Ok(core) => core,
            Err(poisoned) => after_panic(poisoned),
        }
    }

    /// Wakes the writer only if it sleeps, because a wake-up costs a system call.
    pub(super) fn wake_writer_locked(&self, core: &mut Core) {
        if std::mem::take(&mut core.writer_sleeps) {
            self.for_writer.notify_one();
            self.writer_task.notify_one();
        }
    }

    pub(super) fn wake_writer(&self) {
        self.wake_writer_locked(&mut self.lock());
    }

    pub(super) fn wake_segment_manager(&self) {
        // Under the lock, or a segment manager that is about to sleep would miss it.
        let _core = self.lock();
        self.notify_segment_manager();
    }

    fn notify_segment_manager(&self) {
        self.for_segment_manager.notify_one();
        self.segment_manager_task.notify_one();
    }

    pub(super) fn wake_appenders(&self) {
        self.for_appenders.notify_waiters();
    }

    /// Notifies callers that wait to append while too much is staged.
    pub(super) fn for_appenders(&self) -> &Notify {
        &self.for_appenders
    }

    /// Ends the log for good and, the first time, calls the fatal hook.
    pub(super) fn die(&self, reason: String) {
        {
            let mut core = self.lock();
            core.die(reason);
            self.wake_writer_locked(&mut core);
        }
        self.notify_segment_manager();
        self.wake_appenders();
    }

    /// Begins to close the log: the writer writes what is staged, seals, and stops.
    pub(super) fn begin_close(&self) {
        {
            let mut core = self.lock();
            core.closing = true;
            self.wake_writer_locked(&mut core);
        }
        self.notify_segment_manager();
        self.wake_appenders();
    }

    /// Sleeps until something is staged. Returns false if a seal has become due instead.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut core = self.lock();
        while !core.has_work() {
            core.writer_sleeps = true;
            if core.needs_seal() {
                let waited = self.for_writer.wait_timeout(core, self.options.idle_seal);
                let (guard, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                core = guard;
                core.writer_sleeps = false;
                if outcome.timed_out() && !core.has_work() {
                    return false;
                }
            } else {
                core = self.for_writer.wait(core).unwrap_or_else(PoisonError::into_inner);
                core.writer_sleeps = false;
            }
        }
        true
    }

    /// Sleeps until there is a segment to write to, or none is needed any more.
    pub(super) fn wait_for_segment(&self) {
        let mut core = self.lock();
        while !core.may_have_segment() {
            core.writer_sleeps = true;
            core = self.for_writer.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        core.writer_sleeps = false;
    }

    /// Sleeps until the segment manager has something to do.
    pub(super) fn wait_for_job(&self) {
        let mut core = self.lock();
        while core.segments.job().is_none() && !core.stopped && core.dead.is_none() {
            core = self.for_segment_manager.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps for as long as the segment manager should before it looks for room again.
    pub(super) fn wait_for_room(&self) {
        let nothing_changed = |core: &mut Core| {
            let may_delete = matches!(core.segments.job(), Some(Job::Delete { .. }));
            !may_delete && !core.stopped && core.dead.is_none()
        };
        drop(self.for_segment_manager.wait_timeout_while(self.lock(), ROOM_RETRY, nothing_changed));
    }
}

/// The same waits for writer and segment manager when they are tasks. Changes are visible under the
/// lock, so a superfluous wake-up does no harm.
impl WalInner {
    /// Waits until something is staged. Returns false if a seal has become due instead.
    pub(super) async fn work(&self) -> bool {
        loop {
            let needs_seal = {
                let mut core = self.lock();
                if core.has_work() {
                    return true;
                }
                core.writer_sleeps = true;
                core.needs_seal()
            };
            let woken = self.writer_task.notified();
            if !needs_seal {
                woken.await;
            } else if tokio::time::timeout(self.options.idle_seal, woken).await.is_err() {
                return self.lock().has_work();
            }
        }
    }

    /// Waits until there is a segment to write to, or none is needed any more.
    pub(super) async fn segment(&self) {
        loop {
            {
                let mut core = self.lock();
                if core.may_have_segment() {
                    return;
                }
                core.writer_sleeps = true;
            }
            self.writer_task.notified().await;
        }
    }

    /// Waits until the segment manager may have something to do.
    pub(super) async fn job(&self) {
        self.segment_manager_task.notified().await;
    }

    /// Waits for as long as the segment manager should before it looks for room again.
    pub(super) async fn room(&self) {
        let _ = tokio::time::timeout(ROOM_RETRY, self.segment_manager_task.notified()).await;
    }
}

fn after_panic<'a>(poisoned: PoisonError<MutexGuard<'a, Core>>) -> MutexGuard<'a, Core> {
    let mut core = poisoned.into_inner();
    if core.dead.is_none() {
        core.dead = Some("a panic in the write-ahead log".to_owned());
    }
    core
}

/// Owner of the log and its threads. Dropping the last reference closes the log.
pub(super) struct Handle {
    pub(super) shared: Arc<WalInner>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Without joining: this may be a callback, on the writer's own thread.
        self.shared.begin_close();
    }
}
