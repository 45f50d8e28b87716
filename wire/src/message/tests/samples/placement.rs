//! Samples of messages about the placement of replicas.

use dkv_base::id::{GroupId, Revision, Term};

use super::node;
use crate::message::*;

pub(super) fn placement() -> Placement {
    let steps = [MoveStep::Waiting, MoveStep::Learning, MoveStep::Promoting, MoveStep::Removing];
    let under_way = |step| Move {
        group: GroupId(2),
        from: Some(node('a')),
        to: None,
        step,
        matched_index: 3,
        last_index: 500,
        bytes: 1 << 30,
    };
    let planned = PlannedMove { group: GroupId(3), from: None, to: Some(node('b')), bytes: 7 };
    Placement {
        nodes: vec![NodePlaces {
            node: node('a'),
            shards: 5,
            primaries: 2,
            bytes: 1 << 33,
            draining: true,
            retiring: false,
            may_stop: false,
            obstacle: Some("no room".into()),
        }],
        moves: steps.map(under_way).into(),
        planned: vec![planned],
        transfers: vec![planned],
    }
}

pub(super) fn measures() -> Measures {
    let led = LedGroup {
        group: GroupId(1),
        term: Term(7),
        voters: vec![node('a'), node('b')],
        learners: vec![node('c')],
        is_joint: true,
        bytes: 1 << 20,
        last_index: 300,
        members: vec![MemberProgress { node: node('b'), matched_index: 299, is_ready: true }],
        is_changing: true,
    };
    Measures {
        holds: vec![GroupId(0), GroupId(1)],
        leads: vec![led],
        free_bytes: 1 << 40,
        keeps_writes: true,
        directory: Revision(12),
    }
}
