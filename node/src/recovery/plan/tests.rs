use dkv_base::id::{NetworkId, Revision, Stamp};
use dkv_state::{Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult};
use dkv_wire::network::Settings;

use super::super::directories::Copy;
use super::*;
use crate::raft::offline::OnDisk;

const SHARD: GroupId = GroupId(1);
const LEAP: u64 = LEAP_MIN;

fn nodes(count: usize) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = (0..count).map(|_| NodeId::random()).collect();
    nodes.sort();
    nodes
}

/// A directory in which all nodes vote in the control group and in the only shard.
fn directory(nodes: &[NodeId]) -> Directory {
    let mut directory = Directory::new();
    let announcement = |id: NodeId| {
        let address = ([127, 0, 0, 1], 4401).into();
        Announcement { id, name: format!("n-{}", id.short()), address, region: None }
    };
    let (network, settings) = (NetworkId::random(), Settings::default());
    let founder = announcement(nodes[0]);
    let mut commands = vec![DirectoryCommand::Create { network, settings, founder }];
    commands.extend(nodes.iter().map(|node| DirectoryCommand::Announce(announcement(*node))));
    commands.push(DirectoryCommand::ShardStarted(SHARD));
    for group in [GroupId::CONTROL, SHARD] {
        let (voters, learners) = (nodes.iter().copied().collect(), BTreeSet::new());
        commands.push(DirectoryCommand::SetMembers { group, voters, learners });
    }
    for command in commands {
        let result = directory.execute(&DirectoryEntry { time_ms: 1, command });
        assert_eq!(result, DirectoryResult::Done);
    }
    directory
}

fn copy(node: NodeId, last: (u64, u64), voters: &[&[NodeId]]) -> Copy {
    let voters: Vec<BTreeSet<NodeId>> =
        voters.iter().map(|half| half.iter().copied().collect()).collect();
    let members = voters.iter().flatten().copied().collect();
    let (term, committed, stamp) = (last.0, last.1, Stamp::default());
    let disk = OnDisk { term, last, committed, voters, members, stamp };
    let is_whole = !disk.voters.is_empty();
    Copy { node, is_whole, owed: 0, disk, revision: 0, keys: 0, bytes: 0 }
}

fn found(nodes: &[NodeId], given: &[NodeId], control: Vec<Copy>, shard: Vec<Copy>) -> Found {
    let copies = BTreeMap::from([(GroupId::CONTROL, control), (SHARD, shard)]);
    Found { given: given.to_vec(), directory: directory(nodes), copies }
}

#[test]
fn the_latest_entry_goes_on_and_not_the_longest_log() {
    let all = nodes(5);
    let given = &all[..2];
    let copies = |short: (u64, u64), long: (u64, u64)| {
        vec![copy(all[0], short, &[&all]), copy(all[1], long, &[&all])]
    };
    let found = found(&all, given, copies((7, 10), (6, 90)), copies((7, 10), (7, 11)));
    let plan = plan(&found, LEAP).unwrap();
    let Fate::Recovered { keeper, term } = plan.fates[&GroupId::CONTROL] else { panic!() };
    assert_eq!(keeper, all[0]);
    assert!(term > 7 && Term(term).may_follow(Some(Term(6))), "{term}");
    let Fate::Recovered { keeper, .. } = plan.fates[&SHARD] else { panic!() };
    assert_eq!(keeper, all[1]);
    assert_eq!(plan.missing, all[2..].iter().copied().collect());
    assert_eq!(plan.recovery.gone, plan.missing);
    // Those that are left have the data, so all of them stay voters.
    assert_eq!(plan.recovery.groups[&SHARD], (given.iter().copied().collect(), false));
}

#[test]
fn two_recoveries_of_the_same_replicas_write_in_different_terms() {
    let all = nodes(3);
    let copies = || vec![copy(all[0], (4, 9), &[&all])];
    let terms: BTreeSet<u64> = (0..8)
        .map(|random| {
            let leap = leap(random * 1_000_003);
            let plan = plan(&found(&all, &all[..1], copies(), copies()), leap).unwrap();
            let Fate::Recovered { term, .. } = plan.fates[&SHARD] else { panic!() };
            assert!(Term(term).may_follow(Some(Term(4))), "{term}");
            term
        })
        .collect();
    assert_eq!(terms.len(), 8);
}

#[test]
fn a_replica_that_the_shard_no_longer_counts_on_is_named() {
    let all = nodes(5);
    let mut found = found(
        &all,
        &all[3..],
        vec![copy(all[3], (4, 9), &[&all])],
        vec![copy(all[4], (2, 7), &[&all[..1], &all[4..]])],
    );
    assert!(plan(&found, LEAP).unwrap().stale.is_empty());
    // The shard was moved to the first three nodes later.
    let (voters, learners) = (all[..3].iter().copied().collect(), BTreeSet::new());
    let moved = DirectoryCommand::SetMembers { group: SHARD, voters, learners };
    found.directory.execute(&DirectoryEntry { time_ms: 1, command: moved });
    found.directory.execute(&DirectoryEntry {
        time_ms: 1,
        command: DirectoryCommand::Settle { group: SHARD, seen: Revision(u64::MAX) },
    });
    let plan = plan(&found, LEAP).unwrap();
    assert_eq!(plan.stale, [SHARD]);
}

#[test]
fn a_shard_whose_beginning_only_lost_nodes_may_know_has_not_just_never_begun() {
    let all = nodes(3);
    let mut found = found(&all, &all[..1], vec![copy(all[0], (1, 5), &[&all])], Vec::new());
    let shards = found.directory.groups().keys().copied().filter(|group| group.is_shard());
    let groups = shards.map(|shard| (shard, (BTreeSet::from([all[1]]), true))).collect();
    let anew = DirectoryCommand::Recover(Recovery { groups, ..Recovery::default() });
    let entry = DirectoryEntry { time_ms: 1, command: anew };
    assert_eq!(found.directory.execute(&entry), DirectoryResult::Done);
    let fate = plan(&found, LEAP).unwrap().fates[&SHARD];
    assert!(matches!(fate, Fate::Nowhere { .. }), "{fate:?}");
}

#[test]
fn a_majority_of_every_half_is_needed() {
    let all = nodes(5);
    let have = |halves: &[&[NodeId]], here: &[NodeId]| {
        let halves: Vec<BTreeSet<NodeId>> =
            halves.iter().map(|half| half.iter().copied().collect()).collect();
        have_majority(&halves, &here.iter().copied().collect())
    };
    assert!(have(&[&all[..3]], &all[..2]) && !have(&[&all[..3]], &all[..1]));
    assert!(!have(&[&all[..4]], &all[..2]), "a half is no majority");
    let joint: &[&[NodeId]] = &[&all[..3], &all[2..]];
    assert!(!have(joint, &all[..3]) && have(joint, &all[1..4]));
    assert!(!have(&[], &all), "nobody votes in a group that has not begun");
}

#[test]
fn with_all_majorities_there_is_nothing_to_recover() {
    let all = nodes(3);
    let copies = || vec![copy(all[0], (1, 5), &[&all]), copy(all[1], (1, 5), &[&all])];
    let found = found(&all, &all[..2], copies(), copies());
    assert!(matches!(plan(&found, LEAP), Err(RecoveryError::NothingLost)));
}

#[test]
fn a_lost_shard_takes_the_control_group_along() {
    let all = nodes(5);
    let control = all[..3].iter().map(|node| copy(*node, (4, 9), &[&all])).collect();
    // The shard is on the last three nodes, of which one is left.
    let shard = vec![copy(all[2], (3, 7), &[&all[2..]])];
    let plan = plan(&found(&all, &all[..3], control, shard), LEAP).unwrap();
    assert!(matches!(plan.fates[&GroupId::CONTROL], Fate::Recovered { .. }));
    let Fate::Recovered { keeper, .. } = plan.fates[&SHARD] else { panic!() };
    assert_eq!(keeper, all[2]);
}

#[test]
fn an_incomplete_replica_never_goes_on() {
    let all = nodes(3);
    let control = || vec![copy(all[0], (1, 5), &[&all])];
    let refilled = Copy { is_whole: false, ..copy(all[0], (9, 9), &[&all]) };
    for shard in [vec![refilled], vec![copy(all[0], (0, 0), &[])], Vec::new()] {
        let plan = plan(&found(&all, &all[..1], control(), shard), LEAP).unwrap();
        let fate = plan.fates[&SHARD];
        assert!(matches!(fate, Fate::Nowhere { term } if term >= LEAP), "{fate:?}");
        assert_eq!(plan.recovery.groups[&SHARD], (BTreeSet::from([all[0]]), true));
    }
}

#[test]
fn the_term_is_later_than_what_the_server_has_confirmed() {
    let all = nodes(3);
    let copies = || vec![copy(all[0], (1, 5), &[&all])];
    let mut plan = plan(&found(&all, &all[..1], copies(), copies()), LEAP).unwrap();
    let term_of = |plan: &Plan| match plan.fates[&GroupId::CONTROL] {
        Fate::Recovered { term, .. } => Term(term),
        fate => panic!("{fate:?}"),
    };
    let before = term_of(&plan);
    plan.raise_control_term(Some(Term(3)));
    assert_eq!(term_of(&plan), before);
    plan.raise_control_term(Some(before));
    assert!(term_of(&plan) > before && term_of(&plan).may_follow(Some(before)));
}
