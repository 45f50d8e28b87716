use std::collections::BTreeMap;

use super::*;

fn operations(work: Work, count: usize, client: usize) -> Vec<Operation> {
    let mut stream = Stream::new(Arc::new(Workload::new(work, 1000, 10, 42)), client);
    (0..count).map(|_| stream.next().0).collect()
}

fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Put { .. } => "put",
        Operation::Get { .. } => "get",
        Operation::EventualGet { .. } => "eventual",
        Operation::Scan { .. } => "scan",
        Operation::ReadModifyWrite { .. } => "rmw",
        Operation::Transaction { .. } => "txn",
    }
}

fn name(operation: &Operation) -> String {
    match operation {
        Operation::Put { key, .. }
        | Operation::Get { key }
        | Operation::EventualGet { key }
        | Operation::Scan { key, .. }
        | Operation::ReadModifyWrite { key, .. } => key.clone(),
        Operation::Transaction { first, .. } => key(*first),
    }
}

#[test]
fn the_same_seed_gives_the_same_operations_and_another_client_others() {
    assert_eq!(operations(Work::YcsbA, 500, 3), operations(Work::YcsbA, 500, 3));
    assert_ne!(operations(Work::YcsbA, 500, 3), operations(Work::YcsbA, 500, 4));
}

#[test]
fn shares_are_those_of_the_mix() {
    let expected: [(Work, &[(&str, f64)]); 11] = [
        (Work::Put, &[("put", 1.0)]),
        (Work::Get, &[("get", 1.0)]),
        (Work::EventualGet, &[("eventual", 1.0)]),
        (Work::YcsbA, &[("get", 0.5), ("put", 0.5)]),
        (Work::YcsbB, &[("get", 0.95), ("put", 0.05)]),
        (Work::YcsbC, &[("get", 1.0)]),
        (Work::YcsbD, &[("get", 0.95), ("put", 0.05)]),
        (Work::YcsbE, &[("put", 0.05), ("scan", 0.95)]),
        (Work::YcsbF, &[("get", 0.5), ("rmw", 0.5)]),
        (Work::Txn, &[("txn", 1.0)]),
        (Work::TxnAcross, &[("txn", 1.0)]),
    ];
    for (work, shares) in expected {
        let mut counts = BTreeMap::new();
        for operation in operations(work, 20_000, 0) {
            *counts.entry(kind(&operation)).or_insert(0.0) += 1.0 / 20_000.0;
        }
        assert_eq!(counts.len(), shares.len(), "{work:?}: {counts:?}");
        for (kind, share) in shares {
            assert!((counts[kind] - share).abs() < 0.01, "{work:?}: {counts:?}");
        }
    }
}

#[test]
fn even_keys_cover_all_records_and_no_other() {
    let mut counts = BTreeMap::new();
    for operation in operations(Work::Get, 50_000, 0) {
        *counts.entry(name(&operation)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 1000);
    assert_eq!(counts.keys().next_back(), Some(&key(999)));
    assert!(counts.values().all(|count| *count < 120));
}

#[test]
fn zipfian_keys_favour_a_few() {
    let mut counts = BTreeMap::new();
    for operation in operations(Work::YcsbC, 50_000, 0) {
        *counts.entry(name(&operation)).or_insert(0_u32) += 1;
    }
    assert!(counts.keys().all(|name| *name < key(1000)));
    let most = counts.values().max().unwrap();
    // The most frequent of a thousand keys gets an eighth of all requests.
    assert!((5500..7500).contains(most), "{most}");
}

#[test]
fn inserts_get_fresh_keys_and_the_latest_of_them_are_read_once_they_are_answered() {
    let workload = Arc::new(Workload::new(Work::YcsbD, 1000, 10, 42));
    let mut streams: Vec<_> = (0..2).map(|n| Stream::new(Arc::clone(&workload), n)).collect();
    let mut inserted = Vec::new();
    let mut newest_read = 0;
    for turn in 0..20_000 {
        let (operation, insert) = streams[turn % 2].next();
        if insert {
            inserted.push(name(&operation));
            workload.note_inserted();
        } else {
            assert!(name(&operation) < key(1000 + inserted.len() as u64));
            newest_read += usize::from(name(&operation) == key(999 + inserted.len() as u64));
        }
    }
    let expected: Vec<_> = (0..inserted.len() as u64).map(|number| key(1000 + number)).collect();
    assert_eq!(inserted, expected);
    assert!(newest_read > 1000, "{newest_read}");
}

#[test]
fn scans_have_1_to_100_records() {
    let counts = operations(Work::YcsbE, 20_000, 0).into_iter().filter_map(|operation| {
        if let Operation::Scan { count, .. } = operation { Some(count) } else { None }
    });
    let counts: Vec<_> = counts.collect();
    assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&1), Some(&100)));
}

#[test]
fn values_have_their_length_and_do_not_compress() {
    let value = value(4096, 1);
    assert_eq!(value.len(), 4096);
    let mut counts = [0; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    assert!(counts.iter().all(|count| (1..60).contains(count)));
}
