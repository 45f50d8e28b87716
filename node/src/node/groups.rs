//! Opening and closing of the node's replicas, and detection of broken ones.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use dkv_base::id::GroupId;
use dkv_base::platform::run_blocking;
use dkv_wire::codec::decode;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::Node;
use super::error::GroupError;
use super::keyspaces::limit_size;
use super::opener::GroupOpener;
use crate::outbox::{Outbox, OutboxError};
use crate::raft::Vote;
use crate::replica::Replica;
use crate::replica::tombstone::ReplicaTombstone;
use crate::storage::data_dir;

impl Node {
    /// Opens a group, unless it is open.
    pub(super) async fn open_group(self: &Arc<Self>, id: GroupId) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        if self.group(id).is_some() {
            return Ok(());
        }
        if leftovers.contains(&id) {
            // Leftovers of an earlier replica would be taken for the state of this one.
            if let Err(error) = self.delete_rows(id).await {
                debug!(group = %id, %error, "not opened yet: could not delete the leftovers of a replica; will retry");
                return Ok(());
            }
            leftovers.remove(&id);
        }
        let opener = GroupOpener {
            me: self.me.id,
            store: &self.store,
            connections: &self.connections,
            config: &self.replicas.config,
            log_bytes_max: self.settings().log_bytes_max,
            value_bytes_max: self.settings().value_bytes_max,
            failure: &self.tasks.failure,
        };
        let group = Arc::new(opener.open(id).await?);
        self.adopt_group(group);
        Ok(())
    }

    /// Registers a group that was opened.
    pub(super) fn adopt_group(self: &Arc<Self>, group: Arc<Replica>) {
        // Before it can take a write.
        self.replicas.with_directory(|directory| limit_size(&group, directory));
        group.set_to_begin(self.voters_to_begin(group.id()).is_some());
        self.replicas.insert(Arc::clone(&group));
        self.attend(&group);
    }

    /// Returns the outbox of a shard, and makes sure that a task empties it.
    pub(crate) fn outbox(self: &Arc<Self>, shard: GroupId) -> Result<Arc<Outbox>, OutboxError> {
        let (outbox, is_new) = self.store.outboxes.open_for(shard)?;
        if is_new {
            self.tasks.guard(
                "an outbox's task",
                (self.tasks.factories.relay)(Arc::clone(self), Arc::clone(&outbox)),
            );
        }
        Ok(outbox)
    }

    /// Closes a group that does not count on this node any more, and deletes everything that is
    /// here of it except for the tombstone that a later replica needs. `departed` is the entry of
    /// the group's log that let this replica go, and `leader` the vote of the leader that said so.
    pub(crate) async fn close_group(
        self: &Arc<Self>,
        id: GroupId,
        departed: u64,
        leader: Vote,
    ) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        let Some(group) = self.group(id) else { return Ok(()) };
        // From here on no task finds the group, and requests in progress in it end with it.
        self.replicas.remove(id);
        group.stop().await;
        let configured = group.configured();
        // The replica stays if its log has a change of members that is later than the one that let
        // it go. A later change of an earlier leader, which the log of this leader does not have,
        // was in vain.
        let mut stays = configured.index > departed && configured.term.0 >= leader.leader_id.term;
        drop(group);
        // The tombstone comes first: if it cannot be saved, nothing is deleted, and the attempt is
        // repeated later.
        if !stays && let Err(error) = self.save_tombstone(id, departed, leader).await {
            warn!(group = %id, %error, "the replica is not deleted yet");
            stays = true;
        }
        if !stays {
            self.delete_log(id).await?;
            info!(group = %id, "the replica was deleted: the shard has others");
            self.delete_leftover(id, &mut leftovers).await;
        }
        drop(leftovers);
        if stays {
            self.open_group(id).await?;
        }
        // The directory may have wanted the group again while it was still open.
        self.follow_directory().await
    }

    /// Deletes everything that is here of shards that were dropped with their keyspaces: replicas,
    /// outboxes, and what replicas have left behind. That they were dropped is final, so nobody has
    /// to agree.
    pub(crate) async fn delete_dropped(self: &Arc<Self>) -> Result<(), GroupError> {
        let was_dropped = |shard: GroupId| {
            let dropped = self.replicas.with_directory(|directory| directory.was_dropped(shard));
            dropped.unwrap_or_default()
        };
        for group in self.groups().into_iter().filter(|group| was_dropped(group.id())) {
            let id = group.id();
            let mut leftovers = self.replicas.opening.lock().await;
            // From here on no task finds the group, and requests in progress in it end with it.
            self.replicas.remove(id);
            group.stop().await;
            drop(group);
            self.delete_log(id).await?;
            info!(group = %id, "the replica was deleted: its keyspace was dropped");
            self.delete_leftover(id, &mut leftovers).await;
        }
        for outbox in self.outboxes().all() {
            let shard = outbox.shard();
            if was_dropped(shard) {
                let writes = self.outboxes().discard(&outbox);
                self.delete_log(shard.outbox()).await?;
                info!(%shard, writes, "an outbox was deleted: its keyspace was dropped");
            }
        }
        Ok(())
    }

    /// Deletes the tombstones of replicas whose shards were dropped. A failure matters little:
    /// their ids are not used again.
    pub(super) async fn delete_dropped_tombstones(&self) {
        let data_dir = self.store.data_dir.path().to_owned();
        let kept = run_blocking(move || ReplicaTombstone::list(&data_dir)).await;
        let dropped = self.replicas.with_directory(|directory| {
            let kept = kept.unwrap_or_default();
            kept.into_iter().filter(|shard| directory.was_dropped(*shard)).collect::<Vec<_>>()
        });
        let dropped = dropped.unwrap_or_default();
        let data_dir = self.store.data_dir.path().to_owned();
        let deleted = run_blocking(move || {
            dropped.into_iter().try_for_each(|shard| ReplicaTombstone::delete(&data_dir, shard))
        });
        if let Err(error) = deleted.await.flatten() {
            debug!(%error, "the tombstones of dropped shards are not deleted yet");
        }
    }

    async fn save_tombstone(&self, id: GroupId, departed: u64, leader: Vote) -> io::Result<()> {
        let own = self.store.wal.group(id).state().vote;
        let own = own.map(|vote| decode::<Vote>(&vote)).transpose().map_err(io::Error::other)?;
        let tombstone = ReplicaTombstone::new(departed, leader, own);
        let data_dir = self.store.data_dir.path().to_owned();
        run_blocking(move || tombstone.save(&data_dir, id)).await.flatten()
    }

    /// Deletes the log of a group that is not open. The log goes first, because rows without a log
    /// are recognised as leftovers.
    async fn delete_log(&self, id: GroupId) -> Result<(), GroupError> {
        let (done, forgotten) = oneshot::channel();
        let told = Box::new(move |result| drop(done.send(result)));
        self.store.wal.group(id).forget(told).map_err(GroupError::Log)?;
        forgotten.await.map_err(|_| GroupError::LogStopped)?.map_err(GroupError::Log)
    }

    /// Deletes the rows of a group that has no log any more. On a full disk this may have to wait.
    async fn delete_leftover(&self, id: GroupId, leftovers: &mut BTreeSet<GroupId>) {
        match self.delete_rows(id).await {
            Ok(()) => _ = leftovers.remove(&id),
            Err(error) if leftovers.insert(id) => {
                warn!(group = %id, %error, "could not delete the leftovers of a replica; will retry");
            }
            Err(error) => {
                debug!(group = %id, %error, "could not delete the leftovers of a replica yet; will retry")
            }
        }
    }

    async fn delete_rows(&self, id: GroupId) -> Result<(), GroupError> {
        let engine = self.store.engine.clone();
        let removed = run_blocking(move || engine.group(id)?.remove()).await;
        Ok(removed.map_err(GroupError::Thread)??)
    }

    /// Deletes the rows of groups whose log was deleted just before a crash.
    pub(super) async fn find_leftovers(&self) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        let known = self.store.wal.groups();
        let stored = self.store.engine.stored()?;
        for id in stored.into_iter().filter(|id| id.is_shard() && !known.contains(id)) {
            info!(group = %id, "deleting the leftovers of a replica");
            self.delete_leftover(id, &mut leftovers).await;
        }
        Ok(())
    }

    /// Retries the deletion of leftovers, and opens the groups that had to wait for it.
    pub(crate) async fn delete_leftovers(self: &Arc<Self>) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        if leftovers.is_empty() {
            return Ok(());
        }
        for id in leftovers.clone() {
            self.delete_leftover(id, &mut leftovers).await;
        }
        drop(leftovers);
        self.follow_directory().await
    }

    /// Starts the tasks that go with every group: its reconciler, and those that detect its
    /// failure.
    pub(super) fn attend(self: &Arc<Self>, group: &Arc<Replica>) {
        // The tasks end with the group: a group that is closed is not broken.
        let guard = |what, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            group.spawn(self.tasks.failure.if_panicked(what, task));
        };
        guard(
            "the reconciler of a group",
            (self.tasks.factories.reconcile)(Arc::clone(self), Arc::clone(group)),
        );
        guard(
            "the task that ends leases and keys",
            (self.tasks.factories.expire)(Arc::clone(self), Arc::clone(group)),
        );
        if group.id().is_shard() {
            let beginning = Arc::clone(self).begin_shard(Arc::clone(group));
            guard("the task that begins a shard", Box::pin(beginning));
        }
        let (node, replica) = (Arc::clone(self), Arc::clone(group));
        let durability = async move {
            let problem = replica.durability().broken().await;
            let data_dir = node.store.data_dir.path().to_owned();
            let marked = run_blocking(move || data_dir::condemn(&data_dir, &problem.to_string()));
            match marked.await {
                Ok(why) => node.tasks().fail(why),
                Err(error) => node.tasks().fail(error),
            }
        };
        guard("the task that watches a group's promises", Box::pin(durability));
        let (node, watched) = (Arc::clone(self), Arc::clone(group));
        let state = async move {
            let group = watched;
            let mut metrics = group.metrics();
            let broken = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
            let why = match broken {
                Ok(()) => metrics.borrow().running_state.as_ref().err().map(ToString::to_string),
                // A clean stop leaves a final state in the metrics.
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(why) = why {
                node.tasks().fail(format!("group {} has stopped: {why}", group.id()));
            }
        };
        guard("the task that watches a group", Box::pin(state));
    }
}
