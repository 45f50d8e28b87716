//! What must be true of the shards at any moment, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use dkv_wire::message::{Command, Resolution};

use super::shards::{prepared, records};
use super::{KEYS, Outcome, SHARDS, World, shard_of};
use crate::tests::commit::encode;
use crate::{CommandResult, HomeRecord};

impl World {
    /// Reads one key after another, as strong reads do: what the first has of a transaction, the
    /// second has too.
    pub(super) fn look(&mut self) {
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let first = self.dice.roll(KEYS.into()) as u8;
        for key in (0..KEYS).map(|next| (first + next) % KEYS) {
            let shard = &self.shards[&shard_of(key)];
            if shard.state.as_shard().expect("a shard").write_locked_at(&[key]).is_some() {
                continue;
            }
            let tokens = tokens(&shard.value(key));
            let here: BTreeSet<usize> = tokens.iter().map(|(of, _)| *of).collect();
            for of in &seen {
                let writes = self.sent[*of].keys.contains(&key);
                assert!(!writes || here.contains(of), "half of transaction {of} at key {key}");
            }
            for (of, sent) in self.sent.iter().enumerate() {
                let done = matches!(sent.outcome, Some(Outcome::Committed(_)));
                let misses = done && sent.keys.contains(&key) && !here.contains(&of);
                assert!(!misses, "transaction {of} is committed and does not show at key {key}");
            }
            seen.extend(here);
        }
    }

    /// Everybody is gone; what is in doubt is resolved.
    pub(super) fn settle(&mut self) {
        self.under_way.clear();
        for number in 1..=SHARDS {
            let shard = self.shards.get_mut(&number).expect("a shard");
            shard.now += 1000;
            for record in records(shard) {
                match record {
                    HomeRecord::Undecided { id, .. } => {
                        shard.apply(&encode(&Command::Resolve { id, abort: false }));
                    }
                    HomeRecord::Unfinished { .. } => {}
                }
            }
        }
        for number in 1..=SHARDS {
            for id in prepared(&self.shards[&number]) {
                let result = self.apply(id.home.0, &encode(&Command::Resolve { id, abort: false }));
                let CommandResult::Resolved(resolution) = result else { panic!("{result:?}") };
                assert_ne!(resolution, Resolution::Pending);
                self.resolved(id, number, resolution);
            }
        }
        for number in 1..=SHARDS {
            let shard = self.shards.get_mut(&number).expect("a shard");
            for record in records(shard) {
                let HomeRecord::Unfinished { id, .. } = record else { panic!("{record:?}") };
                shard.apply(&encode(&Command::Forget(id)));
            }
            assert_eq!(shard.state.as_shard().expect("a shard").locked_keys(), 0);
            assert!(records(shard).is_empty());
            shard.store(true);
        }
    }

    /// Checks what is left, and returns the number of transactions that were committed.
    pub(super) fn check(&self) -> usize {
        let mut places: BTreeMap<(usize, usize), BTreeSet<bool>> = BTreeMap::new();
        let mut found: BTreeMap<usize, Vec<(u8, bool)>> = BTreeMap::new();
        for key in 0..KEYS {
            let value = self.shards[&shard_of(key)].value(key);
            let tokens = tokens(&value);
            for (place, (of, yes)) in tokens.iter().enumerate() {
                found.entry(*of).or_default().push((key, *yes));
                for (other, _) in &tokens[..place] {
                    assert_ne!(other, of, "transaction {of} was executed twice");
                    let order = (*other.min(of), *other.max(of));
                    places.entry(order).or_default().insert(other < of);
                    let (before, after) = (&self.sent[*other], &self.sent[*of]);
                    assert!(after.ended > before.began, "{of} had ended when {other} began");
                }
            }
            for (token, _) in self.singles.iter().filter(|(_, of)| *of == key) {
                assert_eq!(value.matches(token.as_str()).count(), 1, "{token}");
            }
        }
        let mut committed = 0;
        for (of, sent) in self.sent.iter().enumerate() {
            let here = found.get(&of).map_or(&[][..], Vec::as_slice);
            let keys: BTreeSet<u8> = here.iter().map(|(key, _)| *key).collect();
            let wanted: BTreeSet<u8> = sent.keys.iter().copied().collect();
            assert!(keys.is_empty() || keys == wanted, "half of transaction {of}: {keys:?}");
            let branches: BTreeSet<bool> = here.iter().map(|(_, yes)| *yes).collect();
            assert!(branches.len() < 2, "transaction {of} took both branches");
            match sent.outcome {
                Some(Outcome::Committed(succeeded)) => {
                    assert_eq!(branches.first(), Some(&succeeded), "transaction {of}");
                    committed += 1;
                }
                Some(Outcome::Nothing) => assert!(keys.is_empty(), "transaction {of}"),
                None => {}
            }
            assert!(!sent.unfit || keys.is_empty());
        }
        for ((one, other), orders) in places {
            assert_eq!(orders.len(), 1, "{one} and {other} are in both orders");
        }
        committed
    }
}

/// The transactions that have appended their token to a value, in order, with the branch that they
/// took. Tokens of transactions of one shard begin with a letter.
fn tokens(value: &str) -> Vec<(usize, bool)> {
    let mut tokens = Vec::new();
    let mut digits = String::new();
    let mut single = false;
    for letter in value.chars() {
        match letter {
            's' => (single, digits) = (true, String::new()),
            ';' => single = false,
            '+' | '-' => {
                tokens.push((digits.parse().expect("digits"), letter == '+'));
                digits.clear();
            }
            _ if single => {}
            digit => digits.push(digit),
        }
    }
    tokens
}
