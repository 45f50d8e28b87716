//! The report of a recovery, for people and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dkv_base::id::{GroupId, NodeId};
use serde::Serialize;

use super::directories::{Copy, Found, Opened};
use super::plan::{Fate, Plan};
use super::probe::Missing;
use crate::common::unix_time::unix_ms;

/// What a recovery found, does, and may lose.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The network.
    pub network: String,
    /// When the directories were read, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether everything was written.
    pub done: bool,
    /// Whether a recovery was cut off before, which this one takes back first.
    pub undoes: bool,
    /// The data directories that are left.
    pub directories: Vec<DirectoryReport>,
    /// The nodes that are lost: they are removed for good.
    pub missing: Vec<MissingReport>,
    /// The registration server, if one was asked.
    pub server: Option<ServerReport>,
    /// The groups, the control group first.
    pub groups: Vec<GroupReport>,
    /// What may be lost, one sentence each.
    pub may_be_lost: Vec<String>,
    /// What to do next, one sentence each.
    pub next: Vec<String>,
}

/// A data directory.
#[derive(Clone, Debug, Serialize)]
pub struct DirectoryReport {
    /// The directory.
    pub path: PathBuf,
    /// The id of its node.
    pub node: String,
    /// The name of its node.
    pub name: String,
}

/// A node that is lost.
#[derive(Clone, Debug, Serialize)]
pub struct MissingReport {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// The addresses at which it was called.
    pub addresses: Vec<String>,
    /// What answered, if anything did: the operator has said that the node is lost all the same.
    pub sign_of_life: Option<String>,
    /// When the server heard it last, in milliseconds since 1970.
    pub server_heard_ms: Option<u64>,
}

/// The registration server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReport {
    /// Its address.
    pub address: String,
    /// Why it did not answer.
    pub problem: Option<String>,
    /// The term of the coordinator that it confirmed last.
    pub coordinator_term: Option<u64>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// Its number; 0 is the control group.
    pub group: u32,
    /// The keyspace of a shard.
    pub keyspace: Option<String>,
    /// What becomes of it: `recovered`, `serves` (a majority is left), `empty` (no replica is left,
    /// and it begins anew) or `new` (it has never begun).
    pub fate: &'static str,
    /// The node whose replica goes on.
    pub keeper: Option<String>,
    /// The names of the voters of its newest configuration.
    pub voters: Vec<String>,
    /// Those of them that are lost.
    pub lost_voters: Vec<String>,
    /// What each directory has of it.
    pub replicas: Vec<ReplicaReport>,
    /// Term and index of the entry that made the keeper the only voter, once it is written.
    pub written: Option<(u64, u64)>,
}

/// A replica.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaReport {
    /// The name of its node.
    pub name: String,
    /// The term of its last vote.
    pub term: u64,
    /// The term of its last entry.
    pub last_term: u64,
    /// The index of its last entry.
    pub last_index: u64,
    /// The index of the last entry that it knows to be committed.
    pub committed_index: u64,
    /// Its latest revision.
    pub revision: u64,
    /// Its keys.
    pub keys: u64,
    /// The bytes of its keys and values.
    pub bytes: u64,
    /// The time of its last write, in milliseconds since 1970.
    pub last_write_ms: Option<u64>,
    /// Whether it votes.
    pub votes: bool,
    /// Whether it has all that it once had, so that it may go on.
    pub whole: bool,
}

impl Report {
    /// Notes that a group was rewritten, with its last entry.
    pub(super) fn recovered(&mut self, group: GroupId, term: u64, index: u64) {
        let group = self.groups.iter_mut().find(|it| it.group == group.0);
        if let Some(group) = group {
            group.written = Some((term, index));
        }
    }

    /// Notes that everything was written.
    pub(super) fn finish(&mut self) {
        self.done = true;
    }
}

/// The names of nodes.
struct Names(BTreeMap<NodeId, String>);

impl Names {
    fn of(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| node.short())
    }

    fn all<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<String> {
        let mut names: Vec<String> = nodes.into_iter().map(|node| self.of(*node)).collect();
        names.sort();
        names
    }
}

/// Makes the report of a plan.
pub(super) fn report(nodes: &[Opened], found: &Found, plan: &Plan, missing: &Missing) -> Report {
    let listed = found.directory.nodes().iter().map(|(id, member)| (*id, member.name.clone()));
    let lost = missing.nodes.iter().map(|it| (it.node, it.name.clone()));
    let names = Names(lost.chain(listed).collect());
    let fates = plan.fates.iter();
    let groups = fates.map(|(group, fate)| group_report(found, plan, &names, *group, *fate));
    let directories = nodes.iter().map(|node| DirectoryReport {
        path: node.path().to_owned(),
        node: node.id().to_string(),
        name: names.of(node.id()),
    });
    let missing_nodes = missing.nodes.iter().map(|it| MissingReport {
        node: it.node.to_string(),
        name: it.name.clone(),
        addresses: it.addresses.iter().map(ToString::to_string).collect(),
        sign_of_life: it.sign_of_life.clone(),
        server_heard_ms: it.heard_ms,
    });
    let server = missing.server.as_ref().map(|server| ServerReport {
        address: server.address.clone(),
        problem: server.problem.clone(),
        coordinator_term: server.term.map(|term| term.0),
    });
    Report {
        network: nodes.first().map(|node| node.file().network.to_string()).unwrap_or_default(),
        at_ms: unix_ms(),
        done: false,
        undoes: nodes.iter().any(|node| node.unfinished().is_some()),
        directories: directories.collect(),
        missing: missing_nodes.collect(),
        server,
        groups: groups.collect(),
        may_be_lost: may_be_lost(found, plan),
        next: next(found, plan, missing, &names),
    }
}

/// Makes the report of directories in which there is only an earlier recovery to take back.
pub(super) fn nothing_lost(nodes: &[Opened], found: &Found) -> Report {
    let listed = found.directory.nodes().iter().map(|(id, member)| (*id, member.name.clone()));
    let names = Names(listed.collect());
    let directories = nodes.iter().map(|node| DirectoryReport {
        path: node.path().to_owned(),
        node: node.id().to_string(),
        name: names.of(node.id()),
    });
    Report {
        network: nodes.first().map(|node| node.file().network.to_string()).unwrap_or_default(),
        at_ms: unix_ms(),
        done: false,
        undoes: nodes.iter().any(|node| node.unfinished().is_some()),
        directories: directories.collect(),
        missing: Vec::new(),
        server: None,
        groups: Vec::new(),
        may_be_lost: Vec::new(),
        next: vec!["every group has a majority of its voters here: start the nodes".to_owned()],
    }
}

fn group_report(
    found: &Found,
    plan: &Plan,
    names: &Names,
    group: GroupId,
    fate: Fate,
) -> GroupReport {
    let copies = found.copies.get(&group).map_or(&[][..], Vec::as_slice);
    let (fate, keeper) = match fate {
        Fate::Serves { .. } => ("serves", None),
        Fate::Recovered { keeper, .. } => ("recovered", Some(keeper)),
        Fate::Nowhere { .. } => ("empty", Some(plan.keeper)),
        Fate::NotBegun => ("new", None),
    };
    let best = super::directories::most_complete(copies);
    let planned = found.directory.groups().get(&group).map(|planned| planned.voters.clone());
    let configured = best.map(|best| best.disk.voters.iter().flatten().copied().collect());
    let voters: BTreeSet<NodeId> = configured.or(planned).unwrap_or_default();
    GroupReport {
        group: group.0,
        keyspace: found.directory.keyspace_of(group).map(|(_, keyspace)| keyspace.name.clone()),
        fate,
        keeper: keeper.map(|keeper| names.of(keeper)),
        voters: names.all(&voters),
        lost_voters: names.all(voters.iter().filter(|node| !found.given.contains(node))),
        replicas: copies.iter().map(|copy| replica_report(copy, names)).collect(),
        written: None,
    }
}

fn replica_report(copy: &Copy, names: &Names) -> ReplicaReport {
    let written = copy.disk.stamp.since_1970().as_millis() as u64;
    ReplicaReport {
        name: names.of(copy.node),
        term: copy.disk.term,
        last_term: copy.disk.last.0,
        last_index: copy.disk.last.1,
        committed_index: copy.disk.committed,
        revision: copy.revision,
        keys: copy.keys,
        bytes: copy.bytes,
        last_write_ms: (written > 0).then_some(written),
        votes: copy.votes(),
        whole: copy.is_whole,
    }
}

fn may_be_lost(found: &Found, plan: &Plan) -> Vec<String> {
    let mut lost = Vec::new();
    let recovered = plan.with_fate(|fate| matches!(fate, Fate::Recovered { .. }));
    let shards = recovered.iter().filter(|group| group.is_shard()).count();
    if shards > 0 {
        lost.push(
            "writes that the lost nodes acknowledged and that are not in the replica that goes on: \
             all after its last entry"
                .to_owned(),
        );
        lost.push("eventual writes that only lost nodes had accepted".to_owned());
        let keepers = recovered.iter().filter(|group| group.is_shard()).filter(|group| {
            let Fate::Recovered { keeper, .. } = plan.fates[*group] else { return false };
            found.copies[*group].iter().any(|copy| copy.node == keeper && !copy.votes())
        });
        for group in keepers {
            lost.push(format!(
                "more of shard {group} than of others: the replica that goes on did not vote, so it may \
                 have been far behind"
            ));
        }
        for group in &plan.stale {
            lost.push(format!(
                "everything that was written to shard {group} since its replica left the node that goes \
                 on with it; keys that were deleted since come back"
            ));
        }
        if found.directory.groups().len() > 2 {
            lost.push(
                "the atomicity of transactions over several shards that were in progress: some may \
                 be executed in one shard only"
                    .to_owned(),
            );
        }
    }
    lost.push(
        "changes of nodes and keyspaces, and revocations, that only lost nodes had recorded".into(),
    );
    for group in plan.with_fate(|fate| matches!(fate, Fate::Nowhere { .. })) {
        lost.push(format!("ALL keys of shard {group}: no replica of it is left"));
    }
    lost
}

fn next(found: &Found, plan: &Plan, missing: &Missing, names: &Names) -> Vec<String> {
    let mut next = Vec::new();
    let copies = &found.copies[&GroupId::CONTROL];
    let keeper = copies.iter().find(|copy| copy.node == plan.keeper);
    let trusted = missing.server.as_ref().and_then(|server| server.coordinator);
    if keeper.is_some_and(|keeper| !keeper.votes()) && trusted != Some(plan.keeper) {
        next.push(format!(
            "start the registration server once with --trust-voter {}: it does not know that node as \
             a voter of the control group",
            plan.keeper
        ));
    }
    next.push(format!("start the node {} first, then the others", names.of(plan.keeper)));
    next.push(
        "start new nodes with a token, so that every group has as many replicas as it should"
            .into(),
    );
    next.push(format!(
        "never start a lost node again on its old data directory ({}): it would be refused",
        missing.nodes.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
    ));
    next
}
