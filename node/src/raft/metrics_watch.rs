//! Changes of the metrics that openraft reports for a group.

use std::ops::Deref;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;

use super::{Metrics, Raft, Types};

/// The error of a wait on a group that has stopped: its metrics will not change any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// The metrics of one group, as they change.
pub(crate) struct MetricsWatch(WatchReceiverOf<Types, Metrics>);

impl MetricsWatch {
    pub(crate) fn of(raft: &Raft) -> Self {
        Self(raft.metrics())
    }

    /// Returns the current metrics. The guard must not be kept across an await.
    pub(crate) fn borrow(&self) -> impl Deref<Target = Metrics> + '_ {
        self.0.borrow_watched()
    }

    /// Waits until the metrics have changed since the last wait.
    pub(crate) async fn changed(&mut self) -> Result<(), Stopped> {
        self.0.changed().await.map_err(|_| Stopped)
    }

    /// Waits until the metrics satisfy `wanted`.
    pub(crate) async fn wait_for(
        &mut self,
        wanted: impl Fn(&Metrics) -> bool,
    ) -> Result<(), Stopped> {
        while !wanted(&self.borrow()) {
            self.changed().await?;
        }
        Ok(())
    }
}
