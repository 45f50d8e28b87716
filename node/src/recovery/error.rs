//! Why nothing is recovered.

use std::io;
use std::path::PathBuf;

use dkv_base::id::GroupId;

use crate::replica::recovery_mark::MarkError;
use crate::storage::data_dir::DataDirError;

/// Why nothing is recovered, in one sentence. Nothing was changed, except by
/// [`NotWritten`](Self::NotWritten).
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A directory cannot be used.
    #[error("{0}")]
    Directory(String),
    /// A node is running.
    #[error(
        "a node is running on {}; a network is recovered while all of its nodes are stopped: stop this \
         one first", .0.display()
    )]
    Running(PathBuf),
    /// There is no such directory, or nothing of a node in it.
    #[error("{} is not the data directory of a node that has begun", .0.display())]
    NoNode(PathBuf),
    /// The directories belong to different networks.
    #[error("the data directories {} and {} belong to different networks", .0.display(), .1.display())]
    OtherNetwork(PathBuf, PathBuf),
    /// Two directories belong to one node.
    #[error(
        "the data directories {} and {} are copies of one node's; name the newer one only",
        .0.display(), .1.display()
    )]
    Twice(PathBuf, PathBuf),
    /// No directory has the control group.
    #[error(
        "none of these data directories has a usable replica of the control group, which names the \
         nodes and shards of the network; name one that has it, or restore a backup into a new network"
    )]
    NoControlGroup,
    /// A node was removed from the network before.
    #[error(
        "node {0} was removed from this network before, so its data directory cannot be used here; omit \
         it, and keep it until nothing is missed: it may have the only copy of some writes"
    )]
    Stranger(String),
    /// The server says that a node was removed.
    #[error(
        "node {name} was removed from the network, says the registration server at {server}: the network \
         goes on without it, perhaps after another recovery. Do not start it; keep {}: it may have the \
         only copy of some writes", .path.display()
    )]
    Removed {
        /// Its name.
        name: String,
        /// Its data directory.
        path: PathBuf,
        /// The address of the server.
        server: String,
    },
    /// A node runs elsewhere whose directory was given.
    #[error(
        "node {name} is running at {address}, so {} is only a copy of its data directory; stop it, and \
         name its directory as it is then", .path.display()
    )]
    Copied {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
        /// The directory that was given.
        path: PathBuf,
    },
    /// The registration server does not tell which nodes it has heard.
    #[error(
        "the registration server, which would know whether a lost node is alive, does not tell: {0}; \
         name its address (`dkv ADDRESS recover group ...`), or add --server-lost if it is lost as well \
         and nobody can reach a lost node"
    )]
    ServerSilent(String),
    /// A replica is not in the directory.
    #[error(
        "there is a replica of shard {0}, which the control group does not know; a newer replica of \
         the control group is missing: name its data directory, too"
    )]
    UnknownShard(GroupId),
    /// No group has lost its majority.
    #[error(
        "every group has a majority of its voters among these data directories, so nothing is lost: \
         start the nodes"
    )]
    NothingLost,
    /// A node answers.
    #[error(
        "node {name} lives: it answers at {address}; stop it and name its data directory, too, or bring \
         up the others: while a majority may live there is nothing to recover"
    )]
    Alive {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
    },
    /// Something answers at the address of a node, or the server has heard it.
    #[error(
        "node {name} may be alive: {why}; stop it and name its data directory, too; if it is lost for \
         good, say so with --gone {name} (the server's word counts for 25 s)"
    )]
    MayLive {
        /// Its name.
        name: String,
        /// The sign of life.
        why: String,
    },
    /// An operator named a node that is not missing.
    #[error("--gone {0}: no lost node has that name or id")]
    NotMissing(String),
    /// Shards have no replica in the directories.
    #[error(
        "no replica of {} is among these data directories; name the data directory of a node that has \
         one, or add --empty-shards to lose all of their keys", names(.0)
    )]
    Nowhere(Vec<GroupId>),
    /// Shards would go on with replicas that are no longer theirs.
    #[error(
        "what is left of {} is on nodes that no longer have a place in {}: keys may be far older there \
         than what was acknowledged since. Name the data directory of a node that has a place, or \
         add --stale-shards to go on with the old data", names(.0), if .0.len() == 1 { "it" } else { "them" }
    )]
    Stale(Vec<GroupId>),
    /// Two replicas have committed different entries.
    #[error(
        "the replicas of group {group} on {one} and {other} have committed different entries: there are \
         two histories, and no recovery can unite them. Name the directories of one history only, and \
         keep the others"
    )]
    Diverged {
        /// The group.
        group: GroupId,
        /// A node.
        one: String,
        /// The other node.
        other: String,
    },
    /// Replicas are so far behind that they cannot learn the new configuration.
    #[error(
        "replicas of group {0} that are too far behind could elect a leader among themselves; omit \
         the directories of the nodes that are behind, and never start those nodes again"
    )]
    Laggards(GroupId),
    /// The directory cannot be changed.
    #[error("the directory of the network cannot be changed: {0}")]
    Rejected(String),
    /// A directory cannot be written.
    #[error("{0}; nothing but numbers of starts was written")]
    NotBegun(String),
    /// The recovery was cut off.
    #[error(
        "{} was not written completely: {why}; repeat the command once the disk works, with the same data \
         directories: no node starts on them before",
        .path.display()
    )]
    NotWritten {
        /// The data directory.
        path: PathBuf,
        /// The error.
        why: io::Error,
    },
    /// This process cannot do what it has to.
    #[error(transparent)]
    System(io::Error),
}

impl From<MarkError> for RecoveryError {
    fn from(error: MarkError) -> Self {
        Self::Directory(error.to_string())
    }
}

impl From<DataDirError> for RecoveryError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::InUse(path) => Self::Running(path),
            error => Self::Directory(error.to_string()),
        }
    }
}

impl RecoveryError {
    /// Whether something may have been written.
    pub fn has_effect(&self) -> bool {
        matches!(self, Self::NotWritten { .. })
    }
}

fn names(groups: &[GroupId]) -> String {
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let word = if groups.len() == 1 { "shard" } else { "shards" };
    format!("{word} {}", names.join(", "))
}
