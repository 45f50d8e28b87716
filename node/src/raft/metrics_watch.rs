//! What openraft says of a group, as it changes.

use std::ops::Deref;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;

use super::{Metrics, Raft, Types};

/// The group has stopped: nothing will change any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// The metrics of one group.
pub(crate) struct MetricsWatch(WatchReceiverOf<Types, Metrics>);

impl MetricsWatch {
    pub(crate) fn of(raft: &Raft) -> Self {
        Self(raft.metrics())
    }

    /// The metrics now. Must not be kept across an await.
    pub(crate) fn borrow(&self) -> impl Deref<Target = Metrics> + '_ {
        self.0.borrow_watched()
    }

    /// Waits until they have changed since they were last waited for.
    pub(crate) async fn changed(&mut self) -> Result<(), Stopped> {
        self.0.changed().await.map_err(|_| Stopped)
    }

    /// Waits until they are as wanted.
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
