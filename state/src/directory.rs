//! The state of the control group: the nodes, the groups, where the replicas of each group should
//! be, which holders are denied forever, the books of the registration servers, and the policies
//! that limit users.
//!
//! The members of a group in the directory are a plan. The membership in the group's own Raft log
//! is authoritative; the group's leader brings it toward the plan, one change at a time (see
//! [`reconciler`](super::reconciler)). The coordinator makes the plan (see
//! [`placement`](super::placement)).
//!
//! A node leaves for good in three steps, each an entry of the log: an administrator retires it,
//! placement moves its replicas to other nodes, and when it has none left, it is removed and its id
//! is denied forever. A removed id never comes back; its name becomes free again.
//!
//! Deliberately missing: liveness, leadership, and the current term. These change without a
//! decision by anyone; the view takes them from its caller.

mod books;
mod command;
mod keyspaces;
mod policies;
mod recovery;
mod view;

pub use command::{Announcement, DirectoryCommand, DirectoryEntry, DirectoryResult, Recovery};
pub use keyspaces::Keyspace;
pub use view::Observed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, KeyspaceId, NetworkId, NodeId, Revision};
use dkv_wire::codec::{self, DecodeError};
use dkv_wire::limits;
use dkv_wire::name::check_name;
use dkv_wire::network::Settings;
use dkv_wire::region::Region;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use self::books::SharedBooks;
use self::policies::{Policies, UserLimits, UserRights, limits_of_users, rights_of_users};
use super::rows::{Changes, Counts, Generation, MalformedRow, Meta, RowSink, Table};
use DirectoryResult::{Done, Rejected};

/// A node of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name that people use for the node.
    pub name: String,
    /// The address that the node listens on.
    pub address: SocketAddr,
    /// The region of the node, if one is configured.
    pub region: Option<Region>,
    /// The position of the node in the order of joining: a node with a smaller number has been here
    /// longer.
    pub joined: u64,
    /// Whether the node stopped in good order and has not come back.
    pub left: bool,
    /// Whether the node is to give up its replicas and leave the network.
    pub retiring: bool,
    /// Whether the node is to give up its replicas and stay in the network.
    pub draining: bool,
}

impl Member {
    /// Returns the name of the region; all nodes without a configured region count as one region.
    pub fn region_name(&self) -> &str {
        self.region.as_ref().map_or("", Region::as_str)
    }
}

/// A group and its planned members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// The keyspace of a shard.
    pub keyspace: KeyspaceId,
    /// Nodes that should vote.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that should follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether the group has begun: it has had a leader. Until then its voters stay as they are.
    pub started: bool,
    /// Nodes of earlier plans that the group may still count on: a replica that was away when the
    /// plan changed needs their votes, or gives them its own. With each, the revision of the
    /// directory that took it out of the plan.
    pub displaced: BTreeMap<NodeId, Revision>,
}

impl GroupPlan {
    /// Returns whether the node is a planned voter or learner of the group.
    pub fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// Returns whether the node is a planned member, or one that the group may still count on.
    pub fn may_count_on(&self, node: NodeId) -> bool {
        self.has(node) || self.displaced.contains_key(&node)
    }
}

/// The part of the state that is stored and hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    network: Option<(NetworkId, Settings)>,
    nodes: BTreeMap<NodeId, Member>,
    groups: BTreeMap<GroupId, GroupPlan>,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// The last id that a group was given.
    groups_ever: GroupId,
    /// The number of keyspaces there have been, and the id of the next one.
    keyspaces_ever: u32,
    denied: BTreeSet<HolderId>,
    policies: Policies,
    joined_ever: u64,
    revision: Revision,
    clock_ms: u64,
    books: SharedBooks,
}

/// The directory of one replica of the control group.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    contents: Contents,
    /// What the policies allow each user; computed from the contents.
    rights: UserRights,
    /// What they limit users to; computed from the contents.
    limits: UserLimits,
    changed: bool,
    loaded: bool,
    generation: Generation,
}

impl Directory {
    /// Creates the directory before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one encoded entry.
    ///
    /// # Errors
    /// If the bytes are not an entry. Nothing was applied then, and the replica cannot go on.
    pub fn apply(&mut self, entry: &[u8]) -> Result<DirectoryResult, DecodeError> {
        let entry = DirectoryEntry::decode(entry)?;
        Ok(self.execute(&entry))
    }

    /// Applies one entry.
    pub fn execute(&mut self, entry: &DirectoryEntry) -> DirectoryResult {
        self.contents.clock_ms = self.contents.clock_ms.max(entry.time_ms);
        let before = self.contents.clone();
        let result = match self.contents.change(&entry.command) {
            Ok(()) => Done,
            Err(reason) => Rejected(reason),
        };
        // Undo whatever a rejected change did before it turned out to be impossible.
        match &result {
            Rejected(_) => self.contents = before,
            Done if self.contents != before => {
                if self.contents.policies != before.policies {
                    self.rights = rights_of_users(&self.contents.policies);
                    self.limits = limits_of_users(&self.contents.policies);
                }
                self.contents.revision.0 += 1;
            }
            Done => {}
        }
        self.changed = true;
        result
    }

    /// Returns whether the network has begun.
    pub fn exists(&self) -> bool {
        self.contents.network.is_some()
    }

    /// Returns the id of the network.
    pub fn network(&self) -> Option<NetworkId> {
        self.contents.network.as_ref().map(|(network, _)| *network)
    }

    /// Returns the settings that the nodes agreed on.
    pub fn settings(&self) -> Option<&Settings> {
        self.contents.network.as_ref().map(|(_, settings)| settings)
    }

    /// Returns all nodes that were not removed.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Member> {
        &self.contents.nodes
    }

    /// Returns all groups, the control group first.
    pub fn groups(&self) -> &BTreeMap<GroupId, GroupPlan> {
        &self.contents.groups
    }

    /// Returns whether a node may lead a group, now or next: whether it is a planned voter of it,
    /// or was one of a shard and may still be needed.
    ///
    /// Whom the control group displaced says nothing: all nodes of the network follow it. Which of
    /// them voted, its log knows.
    pub fn may_lead(&self, group: GroupId, node: NodeId) -> bool {
        self.groups().get(&group).is_some_and(|plan| {
            let was_voter = group.is_shard() && plan.displaced.contains_key(&node);
            (plan.voters.contains(&node) || was_voter) && !self.denied().contains(&node.into())
        })
    }

    /// Returns the holders that every process must refuse.
    pub fn denied(&self) -> &BTreeSet<HolderId> {
        &self.contents.denied
    }

    /// Returns whether every process must refuse this holder.
    pub fn is_denied(&self, holder: HolderId) -> bool {
        self.contents.denied.contains(&holder)
    }

    /// Returns a number that grows with every change.
    pub fn revision(&self) -> Revision {
        self.contents.revision
    }

    /// Returns the log's clock, in milliseconds since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.contents.clock_ms
    }

    /// Returns a hash of the whole state, in time proportional to its size. Replicas that applied
    /// the same entries have the same hash.
    pub fn hash(&self) -> u64 {
        xxh3_64(&codec::encode_vec(&self.contents))
    }

    /// Takes the changes since the last call: the whole directory, or nothing. `applied` is the
    /// caller's name for the last entry that was applied.
    pub fn take_changes(&mut self, applied: Bytes) -> Changes {
        let encoded = codec::encode_vec(&self.contents);
        let hash = xxh3_64(&encoded);
        let counts = counts_of(&encoded);
        // A stored state has its single row even if no entry has changed it yet.
        let changed = std::mem::take(&mut self.changed) || !self.loaded;
        self.loaded = true;
        Changes {
            small: Vec::new(),
            generation: self.generation,
            keys: HashMap::new(),
            sessions: Vec::new(),
            directory: changed.then_some(encoded),
            history: Default::default(),
            meta: Meta {
                floor: Revision::default(),
                swept: Revision::default(),
                stamp: Default::default(),
                applied,
                revision: self.contents.revision,
                clock_ms: self.contents.clock_ms,
                hash,
                counts,
            },
        }
    }

    /// Puts back changes that could not be written.
    pub fn restore_changes(&mut self, changes: Changes) {
        self.changed |= changes.directory.is_some();
    }

    /// Completes the loading of rows, as the function of this name on the shard's state does.
    pub(super) fn finish_load(
        &mut self,
        meta: &Meta,
        generation: Generation,
    ) -> Result<(), MalformedRow> {
        meta.check(self)?;
        self.generation = generation;
        Ok(())
    }

    pub(super) fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }
}

fn counts_of(encoded: &[u8]) -> Counts {
    Counts { keys: 1, bytes: encoded.len() as u64, sessions: 0 }
}

/// Takes the single row, read back from the engine or checked in a snapshot.
impl RowSink for Directory {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow> {
        if table != Table::Directory || !key.is_empty() || self.loaded {
            return Err(MalformedRow("the control group has one row, the directory"));
        }
        self.contents =
            codec::decode(value).map_err(|_| MalformedRow("the directory is malformed"))?;
        self.rights = rights_of_users(&self.contents.policies);
        self.limits = limits_of_users(&self.contents.policies);
        self.loaded = true;
        Ok(())
    }

    fn hash_with(&self, _: &Meta) -> u64 {
        self.hash()
    }

    fn counts(&self) -> Counts {
        if self.loaded { counts_of(&codec::encode_vec(&self.contents)) } else { Counts::default() }
    }
}

/// Returns the name of a node that has given up its own.
fn placeholder(node: NodeId) -> String {
    format!("gone-{}", node.short())
}

/// Returns from a change with the reason why it is rejected.
macro_rules! reject {
    ($($text:tt)*) => {
        return Err(format!($($text)*))
    };
}

impl Contents {
    fn change(&mut self, command: &DirectoryCommand) -> Result<(), String> {
        if let DirectoryCommand::Create { network, settings, founder } = command {
            return self.create(*network, settings, founder);
        }
        if self.network.is_none() {
            reject!("the network has not begun");
        }
        match command {
            // Handled above.
            DirectoryCommand::Create { .. } => Ok(()),
            DirectoryCommand::Announce(announcement) => self.announce(announcement),
            DirectoryCommand::Supersede { old, new } => self.supersede(*old, new),
            DirectoryCommand::Leave(node) => {
                self.node_mut(*node)?.left = true;
                Ok(())
            }
            DirectoryCommand::SetMembers { group, voters, learners } => {
                self.set_members(*group, voters, learners)
            }
            DirectoryCommand::ShardStarted(group) => match self.groups.get_mut(group) {
                None => reject!("there is no group {group}"),
                Some(plan) => {
                    plan.started = true;
                    Ok(())
                }
            },
            DirectoryCommand::Drain { node, on } => self.drain(*node, *on),
            DirectoryCommand::Retire(node) => self.retire(*node),
            DirectoryCommand::Expel(node) => self.expel(*node),
            DirectoryCommand::Remove(node) => self.remove(*node),
            DirectoryCommand::Settle { group, seen } => self.settle(*group, *seen),
            DirectoryCommand::CreateKeyspace { creation, name, settings, voters } => {
                self.create_keyspace(*creation, name, settings, voters)
            }
            DirectoryCommand::SetKeyspace { keyspace, change } => {
                self.set_keyspace(*keyspace, change)
            }
            DirectoryCommand::DropKeyspace(keyspace) => self.drop_keyspace(*keyspace),
            DirectoryCommand::Recover(recovery) => self.recover(recovery),
            DirectoryCommand::ChangeBooks { server, change } => self.change_books(*server, change),
            DirectoryCommand::Policy(change) => self.change_policy(change),
            DirectoryCommand::Deny(holder) => {
                if self.nodes.contains_key(&NodeId(holder.0)) {
                    reject!(
                        "{} is a node; remove the node instead, with --at-once if it is not to be \
                         trusted",
                        holder.short()
                    );
                }
                if self.is_only_server(*holder) {
                    reject!(
                        "{} is the only registration server that the network lists; start another one \
                         first, or have the founding one list itself with --advertise",
                        holder.short()
                    );
                }
                self.deny(*holder)
            }
        }
    }

    fn create(
        &mut self,
        network: NetworkId,
        settings: &Settings,
        founder: &Announcement,
    ) -> Result<(), String> {
        if let Some((existing, agreed)) = &self.network {
            // The founder asks again if it stopped between the entry and the answer.
            if *existing == network && agreed == settings && self.nodes.contains_key(&founder.id) {
                return Ok(());
            }
            reject!("the network {existing} has begun already");
        }
        settings.check().map_err(|error| error.to_string())?;
        self.network = Some((network, settings.clone()));
        self.announce(founder)?;
        // The control group is running already: this entry is in its log.
        let (voters, started) = (BTreeSet::from([founder.id]), true);
        self.groups.insert(GroupId::CONTROL, GroupPlan { voters, started, ..GroupPlan::default() });
        self.create_default(settings, founder.id)
    }

    fn announce(&mut self, announcement: &Announcement) -> Result<(), String> {
        let Announcement { id, name, address, region } = announcement;
        if self.denied.contains(&HolderId::from(*id)) {
            reject!("node {} was removed", id.short());
        }
        if let Err(error) = check_name(name) {
            reject!("{error}");
        }
        let namesake =
            self.nodes.iter().find(|(other, member)| *other != id && member.name == *name);
        if let Some((other, _)) = namesake {
            reject!("the name {name} belongs to node {}", other.short());
        }
        if let Some(member) = self.nodes.get_mut(id) {
            member.name.clone_from(name);
            member.address = *address;
            member.region.clone_from(region);
            member.left = false;
            return Ok(());
        }
        if self.nodes.len() >= limits::NODES_MAX {
            reject!("the network has {} nodes and takes no more", limits::NODES_MAX);
        }
        self.joined_ever += 1;
        let joined = self.joined_ever;
        let (name, address, region) = (name.clone(), *address, region.clone());
        let (left, retiring, draining) = (false, false, false);
        let member = Member { name, address, region, joined, left, retiring, draining };
        self.nodes.insert(*id, member);
        Ok(())
    }

    fn supersede(&mut self, old: NodeId, new: &Announcement) -> Result<(), String> {
        if self.nodes.get(&new.id).is_some_and(|member| member.name == new.name) {
            return self.announce(new);
        }
        if old == new.id || self.node_mut(old)?.name != new.name {
            reject!("node {} does not have the name {}", old.short(), new.name);
        }
        self.announce(&Announcement { name: placeholder(new.id), ..new.clone() })?;
        self.retire(old)?;
        self.node_mut(old)?.name = placeholder(old);
        self.announce(new)
    }

    fn set_members(
        &mut self,
        group: GroupId,
        voters: &BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Result<(), String> {
        let Some(plan) = self.groups.get(&group) else { reject!("there is no group {group}") };
        if voters.is_empty() || voters.len() > limits::REPLICATION_MAX as usize {
            reject!("a group has from 1 to {} voters", limits::REPLICATION_MAX);
        }
        if let Some(node) = voters.intersection(learners).next() {
            reject!("node {} cannot be both a voter and a learner", node.short());
        }
        for node in voters.union(learners) {
            let Some(member) = self.nodes.get(node) else {
                reject!("there is no node {}", node.short())
            };
            if member.retiring && !plan.has(*node) {
                reject!("node {} is retiring and takes no new places", node.short());
            }
        }
        if !plan.started && plan.voters != *voters {
            reject!("group {group} has not begun, and its voters stay as they are until then");
        }
        let (voters, learners) = (voters.clone(), learners.clone());
        let mut displaced = plan.displaced.clone();
        // The revision that this change makes.
        let revision = Revision(self.revision.0 + 1);
        displaced.extend(plan.voters.union(&plan.learners).map(|node| (*node, revision)));
        displaced.retain(|node, _| !voters.contains(node) && !learners.contains(node));
        let GroupPlan { keyspace, started, .. } = *plan;
        self.groups.insert(group, GroupPlan { keyspace, voters, learners, started, displaced });
        Ok(())
    }

    /// Settles a group whose members were as planned when its leader knew revision `seen` of the
    /// directory: the group no longer counts on nodes displaced by then.
    fn settle(&mut self, group: GroupId, seen: Revision) -> Result<(), String> {
        let Some(plan) = self.groups.get_mut(&group) else { reject!("there is no group {group}") };
        plan.displaced.retain(|_, displaced| *displaced > seen);
        Ok(())
    }

    fn drain(&mut self, node: NodeId, on: bool) -> Result<(), String> {
        let stays = |(other, member): (&NodeId, &Member)| {
            *other != node && !member.retiring && !member.draining
        };
        if on && !self.nodes.iter().any(stays) {
            reject!("node {} is the last one that is not drained", node.short());
        }
        let member = self.node_mut(node)?;
        if member.retiring {
            reject!("node {} is being removed", node.short());
        }
        member.draining = on;
        Ok(())
    }

    /// Returns whether a node was removed: it is denied, and no node of the network any more.
    fn was_removed(&self, node: NodeId) -> bool {
        self.denied.contains(&HolderId::from(node)) && !self.nodes.contains_key(&node)
    }

    fn expel(&mut self, node: NodeId) -> Result<(), String> {
        if self.was_removed(node) {
            return Ok(());
        }
        let is_other =
            |voter: &&NodeId| **voter != node && !self.denied.contains(&HolderId::from(**voter));
        let stuck = self.groups.iter().find(|(id, plan)| {
            let others = plan.voters.iter().filter(is_other).count();
            let is_lost = plan.voters.contains(&node) && others <= plan.voters.len() / 2;
            // While members change, the group may still be that of the plan before. One of three
            // and more can do without any one.
            let is_moving = id.is_shard() && !plan.displaced.is_empty();
            let all_moving = plan.voters.iter().chain(plan.displaced.keys());
            let without = all_moving.filter(|voter| !is_other(voter)).count();
            let may_need = is_moving && plan.may_count_on(node);
            is_lost || may_need && (plan.voters.len() < 3 || without > 1)
        });
        if let Some((group, plan)) = stuck {
            reject!(
                "without node {} group {group} would have no majority of its {} voters, for good; add \
                 nodes until it has others, wait until its move is over, or have the node leave in \
                 good order",
                node.short(),
                plan.voters.len()
            );
        }
        self.retire(node)?;
        self.deny(node.into())
    }

    fn retire(&mut self, node: NodeId) -> Result<(), String> {
        if self.was_removed(node) {
            return Ok(());
        }
        let staying = self.nodes.iter().any(|(other, member)| *other != node && !member.retiring);
        if !staying {
            reject!("node {} is the last one", node.short());
        }
        if self.denied.len() >= limits::DENIED_MAX {
            reject!("the deny list is full");
        }
        self.node_mut(node)?.retiring = true;
        Ok(())
    }

    fn remove(&mut self, node: NodeId) -> Result<(), String> {
        if self.was_removed(node) {
            return Ok(());
        }
        if !self.node_mut(node)?.retiring {
            reject!("node {} is not retiring", node.short());
        }
        if let Some((group, _)) = self.groups.iter().find(|(_, plan)| plan.has(node)) {
            reject!("node {} still has a place in group {group}", node.short());
        }
        self.deny(node.into())?;
        self.nodes.remove(&node);
        for plan in self.groups.values_mut() {
            plan.displaced.remove(&node);
        }
        Ok(())
    }

    fn deny(&mut self, holder: HolderId) -> Result<(), String> {
        if self.denied.len() >= limits::DENIED_MAX && !self.denied.contains(&holder) {
            reject!("the deny list is full");
        }
        self.denied.insert(holder);
        Ok(())
    }

    fn node_mut(&mut self, node: NodeId) -> Result<&mut Member, String> {
        self.nodes.get_mut(&node).ok_or_else(|| format!("there is no node {}", node.short()))
    }
}
