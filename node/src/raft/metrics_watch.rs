//! What openraft says of a group, as it changes.

use std::ops::Deref;

use dkv_base::id::NodeId;
use dkv_base::mutants::{Mutant, planted};
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

/// Whether the vote of a member may count, and it may have to stand: it votes by the newest
/// configuration that is known here, or that one is not known to be committed.
///
/// Who votes by the configuration before that only, of either half, may be needed yet. It may have
/// the longest log of all who are left, and be the only one who knows of the new configuration.
/// Which was committed last, openraft knows exactly, and lets nobody stand who is in neither; that
/// it looks costs nothing.
pub(crate) fn may_vote(metrics: &Metrics, member: NodeId) -> bool {
    let newest = &metrics.membership_config;
    let index = |log_id: Option<super::LogId>| log_id.map(|log_id| log_id.index);
    let is_committed = index(*newest.log_id()) <= index(metrics.local_committed);
    newest.membership().voter_ids().any(|voter| voter == member)
        || !is_committed && !planted(Mutant::ElectByNewest)
}
