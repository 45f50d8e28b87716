//! The replicas on a node, and what the directory in the control group says about others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::sync::{read, write};
use dkv_wire::message::{ControlGroup, Refusal};

use crate::raft;
use crate::replica::Replica;
use dkv_state::Directory;

/// The replicas of a node.
pub(crate) struct Replicas {
    pub(super) config: Arc<raft::Config>,
    pub(super) control: Arc<Replica>,
    open: RwLock<BTreeMap<GroupId, Arc<Replica>>>,
    /// Locked while a replica is opened or closed. The set has the groups whose leftover rows are
    /// still to be deleted.
    pub(super) opening: tokio::sync::Mutex<BTreeSet<GroupId>>,
}

impl Replicas {
    pub(super) fn new(config: Arc<raft::Config>, control: Arc<Replica>) -> Self {
        let open = RwLock::new(BTreeMap::from([(GroupId::CONTROL, Arc::clone(&control))]));
        Self { config, control, open, opening: tokio::sync::Mutex::default() }
    }

    /// Returns the replica of a group, if this node holds one.
    pub(crate) fn get(&self, id: GroupId) -> Option<Arc<Replica>> {
        read(&self.open).get(&id).cloned()
    }

    /// Returns all replicas that this node holds, that of the control group first.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        read(&self.open).values().cloned().collect()
    }

    /// Adds a replica that was opened.
    pub(super) fn insert(&self, replica: Arc<Replica>) {
        let mut open = write(&self.open);
        open.insert(replica.id(), replica);
    }

    /// Removes a replica that is to be closed.
    pub(super) fn remove(&self, id: GroupId) {
        write(&self.open).remove(&id);
    }

    /// Returns whether this node neither leads nor votes in any group.
    pub(crate) fn only_follows(&self) -> bool {
        self.all().iter().all(|replica| replica.only_follows())
    }

    /// Calls `look` with the directory, as the replica of the control group has it.
    pub(crate) fn with_directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> Option<T> {
        self.control.state_machine().with_directory(look)
    }

    /// Returns how old the directory here may be; `None` if this node does not know, as before it
    /// has heard from the control group.
    pub(crate) fn directory_age(&self) -> Option<Duration> {
        self.control.staleness_ms().map(Duration::from_millis)
    }

    /// Returns whether the network has that shard, held here or not.
    pub(crate) fn knows_shard(&self, id: GroupId) -> bool {
        let known = self.with_directory(|directory| {
            // Before the directory has arrived, no shard can be ruled out.
            !directory.exists() || directory.groups().contains_key(&id)
        });
        id.is_shard() && known.unwrap_or(true)
    }

    /// Returns why this node does not serve a shard that the network does not have.
    pub(crate) fn no_such_shard(&self, shard: GroupId) -> Refusal {
        let dropped = self.with_directory(|directory| directory.was_dropped(shard));
        if dropped.unwrap_or_default() {
            return Refusal::Dropped { shard };
        }
        if shard.is_shard() && !self.control.leads() {
            // It may be so new that only others know it.
            return Refusal::Unavailable(format!("this node does not know shard {shard}"));
        }
        Refusal::Invalid(format!("there is no shard {shard}"))
    }

    /// Returns whether a node is in the directory.
    pub(crate) fn is_listed(&self, node: NodeId) -> bool {
        self.with_directory(|directory| directory.nodes().contains_key(&node)).unwrap_or(false)
    }

    /// Returns whether a node is denied for good, as far as this one knows: it was removed, or is
    /// to be and may still be a member of groups.
    pub(crate) fn is_denied(&self, node: NodeId) -> bool {
        let removed = self.with_directory(|directory| directory.denied().contains(&node.into()));
        removed.unwrap_or_default()
    }

    /// Returns whether a node is a member of a group: by the log here, by the directory's current
    /// plan, or by an earlier plan that the group may not have left behind. The replica here may be
    /// the only one left besides a member that the directory does not want any more.
    pub(crate) fn is_member(&self, replica: &Replica, node: NodeId) -> bool {
        if replica.has_member(node) {
            return true;
        }
        let is_wanted = self.with_directory(|directory| {
            directory.groups().get(&replica.id()).is_some_and(|plan| plan.may_count_on(node))
        });
        is_wanted.unwrap_or(false)
    }

    /// Returns whether a node may lead a group: whether it is a voter of it by the log here, or may
    /// lead it by the directory. A member that only follows never sends a message of its own.
    pub(crate) fn may_lead(&self, replica: &Replica, node: NodeId) -> bool {
        replica.has_voter(node) || self.is_to_lead(replica.id(), node)
    }

    /// Returns whether a node may lead a group by the directory, held here or not.
    pub(crate) fn is_to_lead(&self, group: GroupId, node: NodeId) -> bool {
        self.with_directory(|directory| directory.may_lead(group, node)).unwrap_or_default()
    }

    /// Returns the nodes that may lead a group: by the directory, and by the log if a replica is
    /// here that belongs here, which may be ahead of the directory. One that waits for its removal
    /// may know only voters of long ago.
    pub(crate) fn candidates(&self, group: GroupId) -> BTreeSet<NodeId> {
        let mut candidates: BTreeSet<NodeId> = self.to_lead(group).into_iter().collect();
        let belongs_here = |replica: &Arc<Replica>| {
            let plans_it = self.with_directory(|directory| {
                directory.groups().get(&group).is_none_or(|plan| plan.has(replica.who().node))
            });
            plans_it.unwrap_or(true)
        };
        let replica = self.get(group).filter(belongs_here);
        candidates.extend(replica.iter().flat_map(|replica| replica.voters()));
        candidates.retain(|node| !self.is_denied(*node));
        candidates
    }

    /// Returns the nodes that may lead a group by the directory.
    pub(crate) fn to_lead(&self, group: GroupId) -> Vec<NodeId> {
        let nodes = self.with_directory(|directory| {
            let nodes = directory.nodes().keys().copied();
            nodes.filter(|node| directory.may_lead(group, *node)).collect()
        });
        nodes.unwrap_or_default()
    }

    /// Returns whether a node may lead any group by the directory.
    pub(crate) fn is_to_lead_any(&self, node: NodeId) -> bool {
        let any = self.with_directory(|directory| {
            directory.groups().keys().any(|group| directory.may_lead(*group, node))
        });
        any.unwrap_or_default()
    }

    /// Returns the control group according to the log here; `None` while the log names no voters.
    pub(crate) fn control_group(&self) -> Option<ControlGroup> {
        let (index, voters) = self.control.state_machine().voters();
        let term = self.control.term();
        let leader = self.control.leader();
        let known = ControlGroup { term, leader, index, voters: voters.into_iter().collect() };
        Some(known).filter(|known| !known.voters.is_empty())
    }

    /// Returns the control group as its leader reports it: including the voters of a configuration
    /// that is not applied yet, any of which may lead next.
    pub(crate) fn led_control_group(&self) -> Option<ControlGroup> {
        let applied = self.control_group()?;
        let metrics = self.control.metrics();
        let configured = raft::configured(&metrics.borrow());
        let mut voters: BTreeSet<NodeId> = applied.voters.into_iter().collect();
        voters.extend(self.control.voters());
        let index = configured.index.max(applied.index);
        Some(ControlGroup { index, voters: voters.into_iter().collect(), ..applied })
    }
}
