//! Keyspaces in the directory: how they are created, changed and dropped.
//!
//! The shards of a keyspace are groups with consecutive ids, in the order of their hashes. No id is
//! given out twice, neither of a keyspace nor of a group. A group that is absent, with an id that
//! was given out, was dropped for good; every node that learns that deletes what it has of it.
//!
//! A new group has its first voters from the entry that creates it, and keeps exactly these until
//! it has begun ([`DirectoryCommand::ShardStarted`](super::DirectoryCommand::ShardStarted)). Each
//! of them begins the group by itself, with the same members. So it does not matter which of them
//! are running, and there is never another membership with which the group could begin.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, KeyspaceId, NodeId};
use dkv_wire::limits;
use dkv_wire::name::check_name;
use dkv_wire::network::{
    DEFAULT_KEYSPACE, KeyspaceChange, KeyspaceInfo, KeyspaceSettings, Settings, shard_start,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Contents, Directory, GroupPlan};

/// A keyspace of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// The name that people use for it.
    pub name: String,
    /// Its settings.
    pub settings: KeyspaceSettings,
    /// Its first shard; the others follow.
    pub first_group: GroupId,
    /// The request that created it, by which a repetition of that request is recognised.
    pub creation: Uuid,
}

impl Keyspace {
    /// Returns the smallest hash that belongs to a shard of this keyspace.
    pub(super) fn first_hash(&self, group: GroupId) -> u64 {
        shard_start(group.0.saturating_sub(self.first_group.0), self.settings.shards)
    }

    fn to_info(&self, id: KeyspaceId) -> KeyspaceInfo {
        KeyspaceInfo { id, name: self.name.clone(), settings: self.settings.clone() }
    }
}

impl Directory {
    /// Returns all keyspaces, by ascending id.
    pub fn keyspaces(&self) -> impl Iterator<Item = KeyspaceInfo> + '_ {
        self.contents.keyspaces.iter().map(|(id, keyspace)| keyspace.to_info(*id))
    }

    /// Returns the keyspace with this id.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.contents.keyspaces.get(&id)
    }

    /// Returns the keyspace that a request has created, if it still exists.
    pub fn created_by(&self, creation: Uuid) -> Option<KeyspaceId> {
        let mut keyspaces = self.contents.keyspaces.iter();
        keyspaces.find(|(_, keyspace)| keyspace.creation == creation).map(|(id, _)| *id)
    }

    /// Returns the keyspace of a shard, with its id.
    pub fn keyspace_of(&self, shard: GroupId) -> Option<(KeyspaceId, &Keyspace)> {
        let plan = self.contents.groups.get(&shard).filter(|_| shard.is_shard())?;
        Some((plan.keyspace, self.contents.keyspaces.get(&plan.keyspace)?))
    }

    /// Returns the settings of the keyspace of a shard.
    pub fn settings_of(&self, shard: GroupId) -> Option<&KeyspaceSettings> {
        self.keyspace_of(shard).map(|(_, keyspace)| &keyspace.settings)
    }

    /// Returns the shards of a keyspace.
    pub fn shards_of(&self, keyspace: KeyspaceId) -> impl Iterator<Item = GroupId> + '_ {
        let groups = self.contents.groups.iter();
        let shards = groups.filter(move |(id, plan)| id.is_shard() && plan.keyspace == keyspace);
        shards.map(|(id, _)| *id)
    }

    /// Returns whether a shard was dropped. This is final, however old the directory is.
    pub fn was_dropped(&self, shard: GroupId) -> bool {
        shard.is_shard()
            && shard <= self.contents.groups_ever
            && !self.contents.groups.contains_key(&shard)
    }
}

/// Returns from a change with the reason why it is rejected.
macro_rules! reject {
    ($($text:tt)*) => {
        return Err(format!($($text)*))
    };
}

impl Contents {
    /// Creates the keyspace that the network begins with.
    pub(super) fn create_default(
        &mut self,
        settings: &Settings,
        founder: NodeId,
    ) -> Result<(), String> {
        let Settings { shards, replication, .. } = *settings;
        let settings = KeyspaceSettings { shards, replication, ..KeyspaceSettings::default() };
        let voters = vec![BTreeSet::from([founder]); shards as usize];
        self.create_keyspace(Uuid::nil(), DEFAULT_KEYSPACE, &settings, &voters)
    }

    /// Creates a keyspace with these voters of each shard.
    pub(super) fn create_keyspace(
        &mut self,
        creation: Uuid,
        name: &str,
        settings: &KeyspaceSettings,
        voters: &[BTreeSet<NodeId>],
    ) -> Result<(), String> {
        let namesake = self.keyspaces.values().find(|keyspace| keyspace.name == name);
        if let Some(namesake) = namesake {
            if namesake.creation == creation {
                return Ok(());
            }
            reject!("the keyspace {name} exists already");
        }
        if let Err(error) = check_name(name) {
            reject!("{error}");
        }
        settings.check().map_err(|error| error.to_string())?;
        if self.keyspaces.len() >= limits::KEYSPACES_MAX {
            reject!("the network has {} keyspaces and takes no more", limits::KEYSPACES_MAX);
        }
        let present = self.groups.keys().filter(|group| group.is_shard()).count();
        let room = limits::SHARDS_MAX as usize - present.min(limits::SHARDS_MAX as usize);
        if settings.shards as usize > room {
            reject!(
                "a network has at most {} shards, and this one has {present} already",
                limits::SHARDS_MAX
            );
        }
        if settings.shards > GroupId::SHARD_MAX.0 - self.groups_ever.0 {
            reject!("the network has no ids left for shards");
        }
        if voters.len() != settings.shards as usize {
            reject!("{} shards cannot have {} sets of voters", settings.shards, voters.len());
        }
        for voters in voters {
            if voters.is_empty() || voters.len() > settings.replication as usize {
                reject!("a shard of {name} has from 1 to {} voters", settings.replication);
            }
            for node in voters {
                let Some(member) = self.nodes.get(node) else {
                    reject!("there is no node {}", node.short())
                };
                if member.retiring {
                    reject!("node {} is retiring and takes no new places", node.short());
                }
            }
        }
        let Some(next) = self.keyspaces_ever.checked_add(1) else {
            reject!("the network has no ids left for keyspaces")
        };
        let id = KeyspaceId(self.keyspaces_ever);
        self.keyspaces_ever = next;
        let first_group = GroupId(self.groups_ever.0 + 1);
        for voters in voters {
            self.groups_ever.0 += 1;
            let plan = GroupPlan { keyspace: id, voters: voters.clone(), ..GroupPlan::default() };
            self.groups.insert(self.groups_ever, plan);
        }
        let (name, settings) = (name.to_owned(), settings.clone());
        self.keyspaces.insert(id, Keyspace { name, settings, first_group, creation });
        Ok(())
    }

    pub(super) fn set_keyspace(
        &mut self,
        id: KeyspaceId,
        change: &KeyspaceChange,
    ) -> Result<(), String> {
        let Some(keyspace) = self.keyspaces.get_mut(&id) else {
            reject!("there is no such keyspace any more")
        };
        let settings = change.applied_to(&keyspace.settings);
        settings.check().map_err(|error| error.to_string())?;
        if let (KeyspaceId::DEFAULT, Some((_, network))) = (id, &mut self.network) {
            // Those who ask how many voters a group should have mean this.
            network.replication = settings.replication;
        }
        keyspace.settings = settings;
        Ok(())
    }

    pub(super) fn drop_keyspace(&mut self, id: KeyspaceId) -> Result<(), String> {
        if id == KeyspaceId::DEFAULT {
            reject!("the keyspace {DEFAULT_KEYSPACE} cannot be dropped");
        }
        if id.0 >= self.keyspaces_ever {
            reject!("there is no such keyspace");
        }
        self.keyspaces.remove(&id);
        self.forget_rules_of(id);
        self.groups.retain(|group, plan| !group.is_shard() || plan.keyspace != id);
        Ok(())
    }
}
