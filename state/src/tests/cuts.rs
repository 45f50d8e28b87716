//! Snapshots over several shards, whose primaries' clocks differ: what a cut shows is compared with
//! a list of all writes.

use std::collections::BTreeMap;

use dkv_base::id::{Number, Revision, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Condition, Cut, Deposited, Operation, Span};
use proptest::prelude::*;

use super::super::{CommandResult, NotKept, ShardState, VersionValue};
use super::{batch_at, list_at, node, open, session, write};

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

#[derive(Clone, Debug)]
enum Step {
    /// Puts or deletes a key of a shard whose primary's clock shows so much more.
    Write { shard: usize, key: usize, value: Option<u8>, clock: u64 },
    /// Begins a snapshot: each shard tells its latest stamp.
    Begin,
    /// Cuts a shard at the moment of the snapshot that has begun.
    Cut { shard: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..3_usize, 0..3_usize, any::<Option<u8>>(), 0..40_u64);
    prop_oneof![
        8 => write.prop_map(|(shard, key, value, clock)| Step::Write { shard, key, value, clock }),
        1 => Just(Step::Begin),
        4 => (0..3_usize).prop_map(|shard| Step::Cut { shard }),
    ]
}

/// A write that had an effect: its place in the order of all, its key and value, and its stamp.
type Write = (usize, usize, Option<u8>, Stamp);

#[derive(Default)]
struct Shard {
    state: ShardState,
    entries: u64,
    clock: u64,
    writes: Vec<Write>,
}

impl Shard {
    fn apply(&mut self, command: Vec<u8>) -> CommandResult {
        self.entries += 1;
        let stamp = Stamp(self.clock);
        let entry = batch_at(self.entries, stamp, &[open(session('s')), command]);
        self.state.apply(&entry).expect("a batch")[1]
    }

    fn write(&mut self, order: usize, key: usize, value: Option<u8>) {
        let before = self.state.revision();
        let bytes = value.map(|value| [value]);
        let operation = bytes.as_ref().map_or(Operation::Delete, |value| Operation::Put(value));
        let serial = self.entries + 1;
        self.apply(write(session('s'), serial, serial, Condition::Always, KEYS[key], operation));
        if self.state.revision() > before {
            self.writes.push((order, key, value, self.state.stamp()));
        }
    }

    fn content(&self, cut: Cut) -> BTreeMap<Vec<u8>, u8> {
        let span = Span {
            prefix: Default::default(),
            after: Default::default(),
            keys_max: 100,
            bytes_max: 1000,
            values: true,
        };
        let listed = list_at(&self.state, &span, cut).expect("kept");
        let keys = listed.keys.iter().map(|listed| {
            let found = self.state.get_at(&listed.key, cut).expect("kept").expect("it is listed");
            let VersionValue::Here(value) = found.value else { panic!("nothing is evicted") };
            (listed.key.to_vec(), value[0])
        });
        keys.collect()
    }
}

/// A snapshot under way or complete.
struct Taken {
    began: usize,
    moment: Stamp,
    /// For each shard its cut, and the place in the order of all writes at which it was made.
    cuts: BTreeMap<usize, (Cut, usize)>,
}

fn check(taken: &Taken, shards: &[Shard; 3]) {
    let ended = taken.cuts.values().map(|(_, at)| *at).max().unwrap_or_default();
    for (shard, (cut, at)) in &taken.cuts {
        let mut expected = BTreeMap::new();
        for (order, key, value, stamp) in &shards[*shard].writes {
            let is_in = order < at && *stamp <= taken.moment;
            assert!(is_in || *order >= taken.began, "a write that was done before is missing");
            assert!(!is_in || *order < ended, "a write that began later is there");
            if is_in {
                match value {
                    Some(value) => _ = expected.insert(KEYS[*key].to_vec(), *value),
                    None => _ = expected.remove(KEYS[*key]),
                }
            }
        }
        assert_eq!(shards[*shard].content(*cut), expected, "{cut:?}");
        let later = shards[*shard].writes.iter().filter(|(order, ..)| order >= at);
        assert!(later.clone().all(|(.., stamp)| *stamp > taken.moment), "a stamp below the cut");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_is_of_one_moment_and_stays_as_it_is(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut shards: [Shard; 3] = Default::default();
        let mut taken: Vec<Taken> = Vec::new();
        for (order, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { shard, key, value, clock } => {
                    // The clocks run at different rates, and the shards know nothing of each other.
                    shards[shard].clock += clock;
                    shards[shard].write(order, key, value);
                }
                Step::Begin => {
                    let moment = shards.iter().map(|shard| shard.state.stamp()).max();
                    let moment = moment.unwrap_or_default();
                    taken.push(Taken { began: order, moment, cuts: BTreeMap::new() });
                }
                Step::Cut { shard } => {
                    let Some(last) = taken.last_mut() else { continue };
                    let cut = Command::Cut { moment: last.moment };
                    let result = shards[shard].apply(codec::encode_vec(&cut));
                    let CommandResult::Cut(cut) = result else { panic!("{result:?}") };
                    last.cuts.entry(shard).or_insert((cut, order));
                }
            }
            for taken in &taken {
                check(taken, &shards);
            }
        }
    }
}

#[test]
fn a_cut_is_readable_for_as_long_as_the_history_goes_back_to_its_base() {
    let mut shard = Shard { clock: 100, ..Shard::default() };
    shard.write(0, 0, Some(1));
    shard.clock = 200;
    for (order, value) in [(1, 2), (2, 3)] {
        shard.write(order, 0, Some(value));
    }
    let result = shard.apply(codec::encode_vec(&Command::Cut { moment: Stamp(150) }));
    let CommandResult::Cut(cut) = result else { panic!("{result:?}") };
    assert_eq!((cut.base, cut.revision), (Revision(1), Revision(3)));
    assert_eq!(shard.content(cut), BTreeMap::from([(b"a".to_vec(), 1)]));
    shard.apply(codec::encode_vec(&Command::Compact { floor: Revision(1) }));
    assert_eq!(shard.content(cut), BTreeMap::from([(b"a".to_vec(), 1)]));
    shard.apply(codec::encode_vec(&Command::Compact { floor: Revision(2) }));
    let gone = shard.state.get_at(b"a", cut);
    assert_eq!(gone, Err(NotKept::Compacted { floor: Revision(2) }));
}

/// An outbox that was away delivers many writes with early stamps between the moment and the cut.
#[test]
fn early_stamps_do_not_hide_a_later_write_from_a_cut() {
    let mut shard = Shard { clock: 1000, ..Shard::default() };
    shard.write(0, 0, Some(1));
    let moment = shard.state.stamp();
    shard.clock = 2000;
    shard.write(1, 0, Some(2));
    for number in 1..=20_000_u64 {
        let (key, number) = (format!("late {number}"), Number(number));
        let deposited = Deposited {
            node: node('n'),
            number,
            after: Number(number.0 - 1),
            stamp: Stamp(10),
            key: key.as_bytes(),
            operation: Operation::Put(b"v"),
        };
        shard.apply(codec::encode_vec(&Command::Deposited(deposited)));
    }
    let CommandResult::Cut(cut) = shard.apply(codec::encode_vec(&Command::Cut { moment })) else {
        panic!("no cut")
    };
    assert_eq!((cut.base, cut.revision), (Revision(1), Revision(20_002)));
    let found = shard.state.get_at(KEYS[0], cut).expect("kept").expect("it was there");
    assert_eq!(found.origin.revision, Revision(1));
    // Once that is forgotten, the cut says so, and no cut is made there any more.
    shard.apply(codec::encode_vec(&Command::Compact { floor: Revision(2) }));
    assert_eq!(shard.state.get_at(KEYS[0], cut), Err(NotKept::Compacted { floor: Revision(2) }));
    let too_late = shard.apply(codec::encode_vec(&Command::Cut { moment }));
    assert_eq!(too_late, CommandResult::Invalid);
}
