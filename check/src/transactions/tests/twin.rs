//! A checker that tries every order, and random histories on which both must agree.

use std::collections::BTreeMap;

use super::*;
use crate::ListOperation;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

type Lists = BTreeMap<String, Vec<String>>;

/// Executes a transaction. Fills its reads in, or returns whether they are right.
fn execute(transaction: &mut Transaction, lists: &mut Lists, fill: bool) -> bool {
    for operation in &mut transaction.ops {
        let list = lists.entry(operation.key().to_owned()).or_default();
        match operation {
            ListOperation::Append(_, element) => list.push(element.clone()),
            ListOperation::Put(_, element) => *list = vec![element.clone()],
            ListOperation::Read(_, read) if fill => *read = Some(list.clone()),
            ListOperation::Read(_, Some(read)) if read != list => return false,
            ListOperation::Read(..) => {}
        }
    }
    true
}

/// Whether some order of the transactions explains what they saw.
fn is_explained(transactions: &[Transaction]) -> bool {
    fn search(all: &[Transaction], left: &mut Vec<usize>, lists: &Lists) -> bool {
        if left.iter().all(|place| all[*place].result != Fate::Ok) {
            return true;
        }
        for at in 0..left.len() {
            let next = left[at];
            let ended = |place: &usize| match all[*place].result {
                Fate::Ok => all[*place].end_ns.unwrap(),
                _ => u64::MAX,
            };
            if left.iter().any(|before| ended(before) < all[next].start_ns) {
                continue;
            }
            let (mut lists, mut transaction) = (lists.clone(), all[next].clone());
            let is_right = execute(&mut transaction, &mut lists, false);
            if is_right || all[next].result != Fate::Ok {
                left.remove(at);
                if search(all, left, &lists) {
                    return true;
                }
                left.insert(at, next);
            }
        }
        false
    }
    let not_failed = |place: &usize| transactions[*place].result != Fate::Failed;
    let mut left = (0..transactions.len()).filter(not_failed).collect();
    search(transactions, &mut left, &Lists::new())
}

/// Makes a history of some transactions that are executed in order, and then falsifies it or not.
fn history(random: &mut Random, puts: bool) -> Vec<Transaction> {
    let count = 2 + random.below(5);
    let (mut all, mut lists) = (Vec::new(), Lists::new());
    for number in 0..count {
        let ops = (0..1 + random.below(3)).map(|op| {
            let key = ["x", "y"][random.below(2)].to_owned();
            let element = format!("{number}.{op}");
            match random.below(if puts { 7 } else { 6 }) {
                0..3 => ListOperation::Append(key, element),
                6 => ListOperation::Put(key, element),
                _ => ListOperation::Read(key, None),
            }
        });
        let ops = ops.collect();
        let at = 100 + number as u64 * 10;
        let (start_ns, end_ns) = (at - random.below(30) as u64, at + random.below(30) as u64);
        let (client, end_ns, revisions) = (number as u64, Some(end_ns), Default::default());
        let result = match random.below(8) {
            0 => Fate::Failed,
            1 => Fate::Unknown,
            _ => Fate::Ok,
        };
        let snapshot = false;
        let mut transaction =
            Transaction { client, start_ns, end_ns, result, ops, revisions, snapshot };
        let is_done = match result {
            Fate::Ok => true,
            Fate::Failed => false,
            Fate::Unknown => random.below(2) == 0,
        };
        if is_done {
            execute(&mut transaction, &mut lists, true);
        }
        if result != Fate::Ok {
            for operation in &mut transaction.ops {
                if let ListOperation::Read(_, read) = operation {
                    *read = None;
                }
            }
        }
        all.push(transaction);
    }
    for _ in 0..random.below(3) {
        falsify(&mut all, random);
    }
    all
}

fn falsify(all: &mut [Transaction], random: &mut Random) {
    let place = random.below(all.len());
    match random.below(6) {
        0 => {
            let by = random.below(40) as u64;
            all[place].start_ns += by;
            all[place].end_ns = all[place].end_ns.map(|end_ns| end_ns + by);
        }
        1 if all[place].result == Fate::Unknown => all[place].result = Fate::Failed,
        _ => {
            let reads = all[place].ops.iter_mut().filter_map(|operation| match operation {
                ListOperation::Read(_, Some(read)) => Some(read),
                _ => None,
            });
            for read in reads {
                match random.below(5) {
                    0 => _ = read.pop(),
                    1 if read.len() > 1 => read.swap(0, 1),
                    2 => read.extend(read.first().cloned()),
                    3 => read.push("nobody".to_owned()),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn agrees_with_its_twin() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..6000 {
        let all = history(&mut Random(seed), false);
        let found = check(&all);
        assert_eq!(is_explained(&all), found.is_empty(), "seed {seed}: {all:#?}\n{found:#?}");
        if found.is_empty() { right += 1 } else { wrong += 1 }
    }
    assert!(right > 1000 && wrong > 1000, "{right} right, {wrong} wrong");
}

#[test]
fn with_puts_it_finds_nothing_where_there_is_an_order() {
    let (mut missed, mut wrong) = (0, 0);
    for seed in 0..6000 {
        let all = history(&mut Random(seed), true);
        let (found, explained) = (check(&all), is_explained(&all));
        assert!(!explained || found.is_empty(), "seed {seed}: {all:#?}\n{found:#?}");
        if !explained {
            wrong += 1;
            missed += usize::from(found.is_empty());
        }
    }
    assert!(wrong > 1000 && missed * 4 < wrong, "{missed} of {wrong} missed");
}
