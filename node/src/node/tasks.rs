//! The tasks of a node, and what becomes of the process when one of them ends.

use std::fmt;
use std::sync::Arc;

use dkv_base::supervise::Failure;
use futures::future::BoxFuture;

use super::Node;
use crate::common::task_set::TaskSet;
use crate::outbox::Outbox;
use crate::replica::Replica;

/// Tasks that a node starts for what it opens. They use the node, so the layers above supply them.
#[derive(Clone, Copy)]
pub(crate) struct TaskFactories {
    /// Brings the members of a group into line with the directory.
    pub(crate) reconcile: fn(Arc<Node>, Arc<Replica>) -> BoxFuture<'static, ()>,
    /// Ends what has ended in a shard.
    pub(crate) expire: fn(Arc<Node>, Arc<Replica>) -> BoxFuture<'static, ()>,
    /// Empties an outbox.
    pub(crate) relay: fn(Arc<Node>, Arc<Outbox>) -> BoxFuture<'static, ()>,
}

/// The tasks of a node.
pub(crate) struct NodeTasks {
    pub(super) factories: TaskFactories,
    /// The reason why the process must stop, once there is one.
    pub(super) failure: Failure,
    running: TaskSet,
}

impl NodeTasks {
    pub(super) fn new(factories: TaskFactories, failure: Failure) -> Self {
        Self { factories, failure, running: TaskSet::default() }
    }

    /// Stops the process because of a failure after which it must not go on.
    pub(crate) fn fail(&self, why: impl fmt::Display) {
        self.failure.fail(why.to_string());
    }

    /// Runs a task that the node cannot do without: if it ends before the node does, the process
    /// must stop.
    pub(crate) fn keep(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(self.failure.if_ended(what, task));
    }

    /// Runs a task that may end but must not panic, because a panic would leave its work for others
    /// undone.
    pub(crate) fn guard(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.running.spawn(self.guarded(what, task));
    }

    /// Wraps a task of a set of the caller's whose panic stops the process; it may end.
    pub(crate) fn guarded(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.failure.if_panicked(what, task)
    }

    /// Runs a task that ends with the node at the latest. It serves one request or one connection,
    /// and a panic ends only that.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Ends all of them, whatever they are doing.
    pub(super) async fn end(&self) {
        self.running.end().await;
    }
}
