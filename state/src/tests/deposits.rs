//! Eventual writes mixed with strong ones, compared with a naive model: whatever the order of
//! arrival and the number of repeats, the latest write of each key wins, and each write is applied
//! once.

use std::collections::BTreeMap;

use dkv_base::id::{Number, Revision, SessionId, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Condition, Deposited, Operation};
use proptest::prelude::*;

use super::super::command::CommandResult;
use super::super::shard::ShardState;
use super::{batch_at, node, open, session, write};

/// The writes of an outbox, from number one on: stamps, keys, values.
type Outbox = Vec<(u64, u8, Option<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    /// Sends a window of an outbox again: `count` writes, from `back` before the next one due.
    Send {
        outbox: usize,
        back: u64,
        count: u64,
    },
    Strong {
        key: u8,
        value: Option<u8>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..3_u64, 0..4_u64)
            .prop_map(|(outbox, back, count)| Step::Send { outbox, back, count }),
        1 => (0..3_u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::Strong { key, value }),
    ]
}

fn outbox() -> impl Strategy<Value = Outbox> {
    proptest::collection::vec((1..200_u64, 0..3_u8, any::<Option<u8>>()), 0..12)
}

fn deposited(letter: char, number: u64, (stamp, key, value): (u64, u8, Option<u8>)) -> Vec<u8> {
    let value = value.map(|value| [value]);
    let operation = value.as_ref().map_or(Operation::Delete, |value| Operation::Put(value));
    let (node, number, stamp) = (node(letter), Number(number), Stamp(stamp));
    let (key, after) = ([key], Number(number.0 - 1));
    let deposited = Deposited { node, number, after, stamp, key: &key, operation };
    codec::encode_vec(&Command::Deposited(deposited))
}

const A: SessionId = SessionId(uuid::Uuid::from_bytes([b'a'; 16]));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_latest_of_each_key_stays(
        outboxes in proptest::collection::vec(outbox(), 2),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut state = ShardState::new();
        state.apply(&batch_at(1, Stamp(0), &[open(A)])).unwrap();
        // The latest stamp of each key and the value it stored; the first of equal stamps wins.
        let mut latest: BTreeMap<u8, (u64, Option<u8>)> = BTreeMap::new();
        let mut taken = [0_u64; 2];
        let (mut wall, mut serial, mut last) = (0_u64, 0, 0_u64);
        for step in steps {
            wall += 3;
            match step {
                Step::Send { outbox, back, count } => {
                    let first = (taken[outbox] + 1).saturating_sub(back).max(1);
                    for number in first..first + count {
                        let Some(entry) = outboxes[outbox].get(number as usize - 1) else { break };
                        let letter = ['m', 'n'][outbox];
                        let command = deposited(letter, number, *entry);
                        let results = state.apply(&batch_at(1, Stamp(wall), &[command])).unwrap();
                        let taken_now = matches!(results[0], CommandResult::Written { .. });
                        prop_assert!(taken_now);
                        if number == taken[outbox] + 1 {
                            taken[outbox] = number;
                            let (stamp, key, value) = *entry;
                            last = last.max(stamp);
                            let is_later = latest.get(&key).is_none_or(|(other, _)| stamp > *other);
                            if is_later {
                                latest.insert(key, (stamp, value));
                            }
                        }
                    }
                    // A write that comes too early is not applied, and can come again later.
                    let ahead = taken[outbox] + 2;
                    if let Some(entry) = outboxes[outbox].get(ahead as usize - 1) {
                        let command = deposited(['m', 'n'][outbox], ahead, *entry);
                        let before = state.hash();
                        let results = state.apply(&batch_at(1, Stamp(wall), &[command])).unwrap();
                        prop_assert_eq!(results[0], CommandResult::TooEarly);
                        prop_assert_eq!(state.hash(), before);
                    }
                }
                Step::Strong { key, value } => {
                    serial += 1;
                    let stored = value.map(|value| [value]);
                    let operation =
                        stored.as_ref().map_or(Operation::Delete, |value| Operation::Put(value));
                    let key_bytes = [key];
                    let command =
                        write(A, serial, serial, Condition::Always, &key_bytes, operation);
                    state.apply(&batch_at(1, Stamp(wall), &[command])).unwrap();
                    // A strong write is later than all writes before it.
                    last = (last + 1).max(wall);
                    latest.insert(key, (last, value));
                }
            }
            prop_assert_eq!(state.stamp(), Stamp(last));
            for key in 0..3_u8 {
                let found = state.row(&[key]).map(|row| (row.origin.stamp.0, row.value[0]));
                let expected = latest.get(&key).copied();
                prop_assert_eq!(found, expected.and_then(|(stamp, value)| Some((stamp, value?))));
                if let Some((stamp, None)) = expected {
                    prop_assert_eq!(state.deleted_at(&[key]), Stamp(stamp));
                }
            }
            for (outbox, letter) in ['m', 'n'].into_iter().enumerate() {
                prop_assert_eq!(state.taken(node(letter)), Number(taken[outbox]));
            }
        }
    }
}

#[test]
fn a_strong_write_is_later_than_what_its_client_has_seen() {
    let mut state = ShardState::new();
    let write = dkv_wire::message::Write {
        session: session('a'),
        serial: dkv_base::id::Serial(1),
        settled: dkv_base::id::Serial(1),
        after: Stamp(1000),
        condition: Condition::Always,
        key: b"k",
        operation: Operation::Put(b"strong"),
    };
    let write = codec::encode_vec(&Command::Write(write));
    state.apply(&batch_at(1, Stamp(10), &[open(session('a')), write])).unwrap();
    // The client had seen this eventual write elsewhere; it arrives after the strong one and loses.
    let late = Deposited {
        node: node('n'),
        number: Number(1),
        after: Number(0),
        stamp: Stamp(1000),
        key: b"k",
        operation: Operation::Put(b"eventual"),
    };
    let late = codec::encode_vec(&Command::Deposited(late));
    state.apply(&batch_at(1, Stamp(20), &[late])).unwrap();
    let row = state.row(b"k").unwrap();
    assert_eq!(
        (row.value.as_ref(), row.origin.revision, row.origin.stamp),
        (&b"strong"[..], Revision(1), Stamp(1001))
    );
}

#[test]
fn what_a_node_takes_after_it_has_lost_the_end_of_its_outbox_is_new() {
    let mut state = ShardState::new();
    let mut take = |number, after, stamp: u64, key: &'static [u8]| {
        let deposited = Deposited {
            node: node('n'),
            number: Number(number),
            after: Number(after),
            stamp: Stamp(stamp),
            key,
            operation: Operation::Put(key),
        };
        let command = codec::encode_vec(&Command::Deposited(deposited));
        state.apply(&batch_at(1, Stamp(1000), &[command])).unwrap().remove(0)
    };
    let written = |result| matches!(result, CommandResult::Written { .. });
    for number in 1..=3 {
        assert!(written(take(number, number - 1, number, b"a")));
    }
    // The node remembers only its first write, and begins again at a much higher number.
    assert!(written(take(1 << 20, 1, 9, b"b")));
    assert!(written(take((1 << 20) + 1, 1 << 20, 10, b"c")));
    assert_eq!(take(1 << 21, (1 << 20) + 2, 11, b"d"), CommandResult::TooEarly);
    // A second copy is not applied again.
    assert!(written(take(1 << 20, 1, 9, b"b")));
    for (key, is_there) in [(b"b", true), (b"c", true), (b"d", false)] {
        assert_eq!(state.row(key).is_some(), is_there, "{key:?}");
    }
}

#[test]
fn a_clock_on_the_wall_that_is_set_ahead_ends_no_tombstone() {
    const HOUR_MS: u64 = 3_600_000;
    let wall = |ms| Stamp::at(std::time::Duration::from_millis(ms));
    let delete = |serial, key| write(A, serial, serial, Condition::Always, key, Operation::Delete);
    let mut state = ShardState::new();
    state.apply(&batch_at(1, wall(10), &[open(A), delete(1, b"k")])).unwrap();
    let deleted = state.deleted_at(b"k");
    assert_ne!(deleted, Stamp(0));
    // A batch of another primary, whose wall clock is two hours ahead.
    state.apply(&batch_at(2, wall(2 * HOUR_MS), &[delete(2, b"other")])).unwrap();
    assert_eq!(state.deleted_at(b"k"), deleted);
    // A measured hour ends the tombstone, whatever the wall clock shows.
    state.apply(&batch_at(HOUR_MS + 2, wall(11), &[delete(3, b"other")])).unwrap();
    assert_eq!(state.deleted_at(b"k"), Stamp(0));
}
