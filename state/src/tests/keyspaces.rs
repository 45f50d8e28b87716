//! Keyspaces in the directory: ids that are never used twice, bounds, and first voters.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, KeyspaceId, NetworkId, NodeId};
use dkv_wire::limits::{KEYSPACES_MAX, SHARDS_MAX};
use dkv_wire::network::{KeyspaceChange, KeyspaceSettings, Settings};
use uuid::Uuid;

use crate::directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult, Observed,
};
use crate::placement::{
    Balance, GroupMeasure, Measured, NodeMeasure, NodeReport, first_voters, plan,
};

fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

fn announcement(number: u128, region: &str) -> Announcement {
    let address = ([10, 0, 0, number as u8], 4401).into();
    let region = Some(region.parse().unwrap());
    Announcement { id: node(number), name: format!("n{number}"), address, region }
}

fn order(directory: &mut Directory, command: DirectoryCommand) -> Result<(), String> {
    let before = directory.clone();
    // Every change survives its encoding.
    let entry = DirectoryEntry { time_ms: 1, command }.encode();
    match directory.apply(&entry).unwrap() {
        DirectoryResult::Done => Ok(()),
        DirectoryResult::Rejected(why) => {
            assert_eq!(before.revision(), directory.revision(), "{why}");
            Err(why)
        }
    }
}

/// A network of that many nodes in two regions, with two shards in its first keyspace.
fn network(nodes: u128) -> Directory {
    let mut directory = Directory::new();
    let settings = Settings { shards: 2, replication: 3, ..Settings::default() };
    let founder = announcement(1, "r1");
    let create = DirectoryCommand::Create { network: NetworkId(Uuid::nil()), settings, founder };
    order(&mut directory, create).unwrap();
    for number in 2..=nodes {
        let region = format!("r{}", number % 2);
        let new = DirectoryCommand::Announce(announcement(number, &region));
        order(&mut directory, new).unwrap();
    }
    directory
}

fn settings(shards: u32) -> KeyspaceSettings {
    KeyspaceSettings { shards, ..KeyspaceSettings::default() }
}

fn creation(name: &str, settings: KeyspaceSettings, request: u128) -> DirectoryCommand {
    let voters = vec![BTreeSet::from([node(1)]); settings.shards as usize];
    let creation = Uuid::from_u128(request);
    DirectoryCommand::CreateKeyspace { creation, name: name.into(), settings, voters }
}

fn groups(directory: &Directory) -> Vec<u32> {
    directory.groups().keys().map(|group| group.0).collect()
}

#[test]
fn ids_of_groups_and_keyspaces_are_never_used_twice() {
    let mut directory = network(1);
    assert_eq!(groups(&directory), [0, 1, 2]);
    order(&mut directory, creation("a", settings(2), 1)).unwrap();
    order(&mut directory, creation("b", settings(1), 2)).unwrap();
    assert_eq!(groups(&directory), [0, 1, 2, 3, 4, 5]);
    let a = directory.created_by(Uuid::from_u128(1)).unwrap();
    order(&mut directory, DirectoryCommand::DropKeyspace(a)).unwrap();
    // Repeated without harm.
    order(&mut directory, DirectoryCommand::DropKeyspace(a)).unwrap();
    assert_eq!(groups(&directory), [0, 1, 2, 5]);
    order(&mut directory, creation("a", settings(1), 3)).unwrap();
    assert_eq!(groups(&directory), [0, 1, 2, 5, 6]);
    assert_ne!(directory.created_by(Uuid::from_u128(3)), Some(a));
    assert_eq!(directory.keyspace(a), None);
    for (group, dropped) in [(0, false), (2, false), (3, true), (4, true), (6, false), (7, false)] {
        assert_eq!(directory.was_dropped(GroupId(group)), dropped, "{group}");
    }
    let view = directory.to_view(&Observed::default()).unwrap();
    let shards = view.shards.iter().map(|shard| (shard.keyspace.0, shard.group.0));
    assert_eq!(shards.collect::<Vec<_>>(), [(0, 1), (0, 2), (2, 5), (3, 6)]);
    assert_eq!(view.shards[1].first_hash, 1 << 63);
    let names: Vec<_> = view.keyspaces.iter().map(|keyspace| keyspace.name.as_str()).collect();
    assert_eq!(names, ["default", "b", "a"]);
}

#[test]
fn what_cannot_be_created_is_rejected() {
    let mut directory = network(2);
    order(&mut directory, creation("a", settings(1), 1)).unwrap();
    // The same request again, whatever the keyspace has become.
    order(&mut directory, creation("a", settings(1), 1)).unwrap();
    let voters = |voters| DirectoryCommand::CreateKeyspace {
        creation: Uuid::from_u128(9),
        name: "new".into(),
        settings: settings(2),
        voters,
    };
    let (one, absent) = (BTreeSet::from([node(1)]), BTreeSet::from([node(9)]));
    for (command, why) in [
        (creation("a", settings(1), 2), "exists already"),
        (creation("default", settings(1), 2), "exists already"),
        (creation("", settings(1), 2), "cannot be a name"),
        (creation("a\x1b[2J", settings(1), 2), "cannot be a name"),
        (creation("new", settings(0), 2), "shards: must be from 1"),
        (creation("new", settings(SHARDS_MAX), 2), "has 3 already"),
        (creation("new", KeyspaceSettings { replication: 0, ..settings(1) }, 2), "replication"),
        (voters(vec![one.clone()]), "2 shards cannot have 1 sets of voters"),
        (voters(vec![one.clone(), BTreeSet::new()]), "from 1 to 3 voters"),
        (voters(vec![one.clone(), absent]), "there is no node"),
        (DirectoryCommand::DropKeyspace(KeyspaceId::DEFAULT), "cannot be dropped"),
        (DirectoryCommand::DropKeyspace(KeyspaceId(7)), "there is no such keyspace"),
        (
            DirectoryCommand::SetKeyspace {
                keyspace: KeyspaceId(7),
                change: KeyspaceChange::default(),
            },
            "there is no such keyspace",
        ),
    ] {
        let rejected = order(&mut directory, command.clone()).unwrap_err();
        assert!(rejected.contains(why), "{command:?}: {rejected}");
    }
    for number in 0..KEYSPACES_MAX - 2 {
        let name = format!("k{number}");
        order(&mut directory, creation(&name, settings(1), 100 + number as u128)).unwrap();
    }
    let full = order(&mut directory, creation("new", settings(1), 2)).unwrap_err();
    assert!(full.contains("256 keyspaces and takes no more"), "{full}");
}

#[test]
fn settings_change_and_the_first_keyspace_takes_the_network_along() {
    let mut directory = network(1);
    order(&mut directory, creation("a", settings(1), 1)).unwrap();
    let change = KeyspaceChange {
        replication: Some(5),
        quota_bytes: Some(Some(4096)),
        ..KeyspaceChange::default()
    };
    for keyspace in [KeyspaceId::DEFAULT, KeyspaceId(1)] {
        let change = change.clone();
        order(&mut directory, DirectoryCommand::SetKeyspace { keyspace, change }).unwrap();
        let settings = &directory.keyspace(keyspace).unwrap().settings;
        assert_eq!((settings.replication, settings.quota_bytes), (5, Some(4096)));
    }
    assert_eq!(directory.settings().unwrap().replication, 5);
    let keyspace = KeyspaceId(1);
    let wrong = KeyspaceChange { replication: Some(99), ..KeyspaceChange::default() };
    let set = DirectoryCommand::SetKeyspace { keyspace, change: wrong };
    assert!(order(&mut directory, set).unwrap_err().contains("replication"));
}

/// Measurements of live nodes, of which each has some room.
fn measured(directory: &Directory, dead: &[NodeId]) -> Measured {
    let nodes = directory.nodes().keys().map(|id| {
        let report = NodeReport { free_bytes: 1 << 30, ..NodeReport::default() };
        let live = !dead.contains(id);
        (*id, NodeMeasure { live, silent_ms: if live { 0 } else { 99 }, report: Some(report) })
    });
    Measured { nodes: nodes.collect(), ..Measured::default() }
}

#[test]
fn first_voters_are_spread_over_regions_and_nodes_that_live() {
    let directory = network(6);
    let settings = KeyspaceSettings { shards: 4, replication: 3, ..KeyspaceSettings::default() };
    let chosen = first_voters(&directory, &measured(&directory, &[node(2)]), &settings).unwrap();
    assert_eq!(chosen.len(), 4);
    let mut count = vec![0; 7];
    for voters in &chosen {
        assert_eq!(voters.len(), 3);
        assert!(!voters.contains(&node(2)), "it is dead");
        let odd = voters.iter().filter(|id| id.0.as_u128() % 2 == 1).count();
        assert!((1..=2).contains(&odd), "in one region: {voters:?}");
        voters.iter().for_each(|id| count[id.0.as_u128() as usize] += 1);
    }
    assert!(count.iter().skip(3).all(|count| (2..=3).contains(count)), "{count:?}");
    // Fewer nodes, fewer voters; more come with more nodes.
    let alone: Vec<NodeId> = (2..=6).map(node).collect();
    let chosen = first_voters(&directory, &measured(&directory, &alone), &settings).unwrap();
    assert!(chosen.iter().all(|voters| *voters == BTreeSet::from([node(1)])));
    let all: Vec<NodeId> = (1..=6).map(node).collect();
    first_voters(&directory, &measured(&directory, &all), &settings).unwrap_err();
}

#[test]
fn a_shard_begins_once_it_has_a_leader_and_moves_only_then() {
    let mut directory = network(3);
    let mut measured = measured(&directory, &[]);
    let voters = BTreeSet::from([node(1)]);
    let led = |leader| GroupMeasure {
        leader,
        term: dkv_base::id::Term(1),
        voters: voters.clone(),
        learners: BTreeSet::new(),
        is_joint: false,
        is_changing: false,
        ready: voters.clone(),
        bytes: 0,
    };
    measured.groups.insert(GroupId::CONTROL, led(node(1)));
    for group in [1, 2] {
        let shard = GroupId(group);
        // Whatever else is to do, the shard stays as it is.
        while let Some(command) = plan(&directory, &measured, Balance::Eager) {
            let touches = matches!(&command, DirectoryCommand::SetMembers { group, .. }
                if *group == shard);
            assert!(!touches && command != DirectoryCommand::ShardStarted(shard));
            let before = directory.revision();
            order(&mut directory, command).unwrap();
            assert!(directory.revision() > before);
            if directory.groups()[&GroupId::CONTROL].voters.len() > 1 {
                break;
            }
        }
        measured.groups.insert(shard, GroupMeasure { is_changing: true, ..led(node(1)) });
        let next = plan(&directory, &measured, Balance::Off);
        assert_ne!(next, Some(DirectoryCommand::ShardStarted(shard)), "not committed yet");
        measured.groups.insert(shard, led(node(1)));
        let next = plan(&directory, &measured, Balance::Off);
        assert_eq!(next, Some(DirectoryCommand::ShardStarted(shard)));
        order(&mut directory, DirectoryCommand::ShardStarted(shard)).unwrap();
    }
}
