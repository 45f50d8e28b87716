//! Pages of keys, compared with a sorted list.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{Number, Stamp};
use dkv_wire::message::{Condition, Operation, Span};
use proptest::prelude::*;

use super::super::Waiting;
use super::super::shard::ShardState;
use super::{batch, open, session, write};

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 255]), 1..5)
}

proptest! {
    #[test]
    fn pages_are_what_a_sorted_list_has(
        writes in prop::collection::vec((key(), prop::option::weighted(0.8, 0..300_usize)), 0..40),
        deposits in prop::collection::btree_map(
            key(),
            (prop::sample::select(vec![0, u64::MAX]), prop::option::weighted(0.6, 0..300_usize)),
            0..10,
        ),
        prefix in prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 255]), 0..3),
        after in prop_oneof![Just(Vec::new()), key()],
        keys_max in 0..8_u32,
        bytes_max in 0..500_u32,
        values: bool,
    ) {
        let (mut state, mut twin) = (ShardState::new(), BTreeMap::new());
        state.apply(&batch(1, &[open(session('s'))])).unwrap();
        for (serial, (key, put)) in (1..).zip(writes) {
            let value = put.map(|length| vec![7; length]);
            let operation = value.as_deref().map_or(Operation::Delete, Operation::Put);
            let write = write(session('s'), serial, serial, Condition::Always, &key, operation);
            state.apply(&batch(serial, &[write])).unwrap();
            match value {
                Some(value) => drop(twin.insert(key, value)),
                None => drop(twin.remove(&key)),
            }
        }
        // A waiting write shows if it is later than the stored one.
        let mut waiting = Vec::new();
        for (number, (key, (stamp, put))) in (1..).zip(deposits) {
            let value = put.map(|length| vec![9; length]);
            let (stamp, number) = (Stamp(stamp), Number(number));
            let deposit = |value| Waiting { key: key.clone().into(), stamp, number, value };
            waiting.push(deposit(value.clone().map(Bytes::from)));
            match value {
                _ if stamp == Stamp(0) => {}
                Some(value) => drop(twin.insert(key, value)),
                None => drop(twin.remove(&key)),
            }
        }
        let mut span = Span {
            prefix: Bytes::from(prefix.clone()),
            after: Bytes::from(after.clone()),
            keys_max,
            bytes_max,
            values,
        };
        let mut expected: Vec<_> =
            twin.into_iter().filter(|(key, _)| key.starts_with(&prefix) && *key > after).collect();
        loop {
            waiting.retain(|it| it.key.starts_with(&prefix) && it.key > span.after);
            let listed = state.list(&span, &waiting);
            let size = |(key, value): &(Vec<u8>, Vec<u8>)| {
                key.len() + if values { value.len() } else { 0 }
            };
            // Pages are full, but never over their limits.
            let count = listed.keys.len();
            let bytes = expected[..count].iter().map(size).sum::<usize>();
            prop_assert!(count <= 1 || count <= keys_max as usize && bytes <= bytes_max as usize);
            if keys_max == 0 {
                // Only its receipt was asked for: it does not even tell whether there are keys.
                prop_assert_eq!((count, listed.more, listed.pending), (0, false, None));
                break;
            }
            prop_assert_eq!(listed.more, expected.len() > count);
            if listed.more {
                let full = bytes + size(&expected[count]) > bytes_max as usize;
                prop_assert!(count >= 1 && (full || count >= keys_max as usize));
            }
            // The page accounts for every visible write, including deletes, which show as missing
            // keys.
            let shows = |it: &&Waiting| {
                let last = listed.keys.last().map_or(&span.after[..], |last| &last.key[..]);
                it.stamp > Stamp(0) && (!listed.more || &it.key[..] <= last)
            };
            let shown = waiting.iter().filter(shows).map(|it| it.number).max();
            prop_assert!(shown <= listed.pending, "{shown:?} {:?}", listed.pending);
            let all = waiting.iter().filter(|it| it.stamp > Stamp(0)).map(|it| it.number).max();
            prop_assert!(listed.pending <= all);
            let latest = if listed.pending.is_some() { Stamp(u64::MAX) } else { state.stamp() };
            prop_assert_eq!(listed.stamp, latest);
            for (listed, (key, value)) in listed.keys.iter().zip(expected.drain(..count)) {
                prop_assert_eq!(&listed.key[..], &key[..]);
                prop_assert_eq!(listed.value.here(), Some(Bytes::from(value)));
                span.after = key.into();
            }
            if !listed.more {
                break;
            }
        }
    }
}
