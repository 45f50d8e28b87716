use std::net::SocketAddr;

use dkv_base::id::{NetworkId, Term};
use dkv_wire::network::Settings;

use super::*;
use dkv_state::placement::{GroupMeasure, NodeMeasure, NodeReport};
use dkv_state::{Announcement, DirectoryEntry, DirectoryResult};

fn announcement(id: NodeId, name: &str) -> Announcement {
    let address = SocketAddr::from(([127, 0, 0, 1], 4401));
    Announcement { id, name: name.into(), address, region: None }
}

/// A network of two nodes whose groups do not count on the second.
fn network(orders: impl Fn(NodeId) -> Vec<DirectoryCommand>) -> (Directory, Measured, NodeId) {
    let (stays, goes) = (NodeId::random(), NodeId::random());
    let settings = Settings { shards: 1, replication: 1, ..Settings::default() };
    let mut directory = Directory::new();
    let mut commands = vec![
        DirectoryCommand::Create {
            network: NetworkId::random(),
            settings,
            founder: announcement(stays, "n1"),
        },
        DirectoryCommand::ShardStarted(GroupId(1)),
        DirectoryCommand::Announce(announcement(goes, "n2")),
        DirectoryCommand::SetMembers {
            group: GroupId::CONTROL,
            voters: BTreeSet::from([stays]),
            learners: BTreeSet::from([goes]),
        },
    ];
    commands.extend(orders(goes));
    for command in commands {
        let entry = DirectoryEntry { time_ms: 1, command };
        assert_eq!(directory.execute(&entry), DirectoryResult::Done);
    }
    let group = |learners: &[NodeId]| GroupMeasure {
        leader: stays,
        term: Term(1),
        ready: BTreeSet::from([stays]),
        voters: BTreeSet::from([stays]),
        learners: learners.iter().copied().collect(),
        is_joint: false,
        is_changing: false,
        bytes: 0,
    };
    let node = NodeMeasure { live: true, silent_ms: 0, report: None };
    let measured = Measured {
        nodes: BTreeMap::from([(stays, node.clone()), (goes, node)]),
        groups: BTreeMap::from([(GroupId::CONTROL, group(&[goes])), (GroupId(1), group(&[]))]),
    };
    (directory, measured, goes)
}

const EMPTY: Remainder = Remainder { takes_writes: false, keeps_writes: false, shards: 0 };

#[test]
fn a_node_may_be_switched_off_by_its_own_word_alone() {
    for order in
        [|node| DirectoryCommand::Drain { node, on: true }, |node| DirectoryCommand::Retire(node)]
    {
        let (directory, mut measured, node) = network(|node| vec![order(node)]);
        let may_stop = |measured: &Measured, word: Option<Word>| {
            places(&directory, measured, node, word.as_ref()).may_stop
        };
        // A coordinator that has just begun has received the reports of the shards, and not yet
        // that of the node itself.
        assert!(!may_stop(&measured, None), "it has not said yet that it keeps no writes");
        assert!(may_stop(&measured, Some(Ok(EMPTY))));
        for left in [
            Remainder { takes_writes: true, ..EMPTY },
            Remainder { keeps_writes: true, ..EMPTY },
            Remainder { shards: 1, ..EMPTY },
        ] {
            assert!(!may_stop(&measured, Some(Ok(left))), "{left:?}");
        }
        assert!(!may_stop(&measured, Some(Err(NoWord::WrongAnswer))));
        // A report from before the question counts for nothing.
        let report = NodeReport { keeps_writes: false, ..NodeReport::default() };
        measured.nodes.insert(node, NodeMeasure { report: Some(report), ..NodeMeasure::default() });
        assert!(!may_stop(&measured, None));
        // The node's word does not outweigh that a group counts on it.
        measured.groups.get_mut(&GroupId(1)).unwrap().learners.insert(node);
        assert!(!may_stop(&measured, Some(Ok(EMPTY))));
    }
}

#[test]
fn a_node_that_is_to_stay_may_not_be_switched_off() {
    let (directory, measured, node) = network(|_| Vec::new());
    assert!(!places(&directory, &measured, node, Some(&Ok(EMPTY))).may_stop);
}

#[test]
fn a_silent_node_that_is_being_emptied_is_named_as_the_obstacle() {
    let (directory, measured, node) =
        network(|node| vec![DirectoryCommand::Drain { node, on: true }]);
    let silent = Refusal::Unavailable("no answer in 250 ms".into());
    let places = places(&directory, &measured, node, Some(&Err(NoWord::Refused(silent))));
    assert_eq!(
        places.obstacle.as_deref(),
        Some("it does not say whether it is empty: unavailable: no answer in 250 ms")
    );
}
