//! Tests of the room for values in answers.

use dkv_base::id::{GroupId, HolderId, LeaseId, NodeId, Revision, Stamp, Term};
use dkv_wire::limits::HOLDER_RESULT_BYTES_MAX;
use dkv_wire::message::{Level, Page, Pair, RangePage, Reach, Receipt, Versions};
use futures::FutureExt;

use super::*;
use crate::net::quota::{Quota, Quotas};

const KIB: usize = 1024;

fn receipt() -> Receipt {
    let (shard, revision, node) = (GroupId(1), Revision(1), NodeId::random());
    let (term, stamp) = (Term::default(), Stamp::default());
    let (staleness_ms, pending) = (None, None);
    Receipt { shard, revision, level: Level::Strong, node, term, staleness_ms, stamp, pending }
}

fn value(bytes: usize) -> Bytes {
    vec![7; bytes].into()
}

fn version(bytes: usize) -> Version {
    let revision = Revision(1);
    let (stamp, lease, expiry) = (Stamp::default(), LeaseId::default(), None);
    let value = Some(value(bytes));
    Version { revision, created: revision, version: 1, stamp, value, lease, expiry }
}

/// Answers to reads with a value of that many bytes, none of which took room before.
fn reads(bytes: usize) -> [Answer; 3] {
    let stored = || Some(Stored { value: value(bytes), revision: Revision(1) });
    let reach = Reach { mended: Vec::new(), missing: Vec::new() };
    [
        Answer::Value(receipt(), stored()),
        Answer::ValueEverywhere(receipt(), stored(), reach),
        Answer::VersionAt(receipt(), Some(version(bytes))),
    ]
}

/// Pages with two values of that many bytes. Their requests took room for a page.
fn pages(bytes: usize) -> [Answer; 3] {
    let (key, more, at) = (Bytes::from("k"), false, Revision(1));
    let pair = Pair {
        key: key.clone(),
        revision: at,
        value: Some(value(bytes)),
        created: at,
        version: 1,
        lease: LeaseId::default(),
        expiry: None,
    };
    let versions = vec![version(bytes), version(bytes)];
    let keys = vec![(key.clone(), version(bytes)), (key, version(bytes))];
    [
        Answer::Page(receipt(), Page { pairs: vec![pair.clone(), pair], more }),
        Answer::Versions(receipt(), Versions { versions, more, floor: at }),
        Answer::Ranged(receipt(), RangePage { keys, more, count: 2, at }),
    ]
}

fn transacted(results: Vec<OperationResult>) -> Answer {
    let (receipt, results) = (receipt(), Some(results));
    Answer::Transacted { receipt, succeeded: true, changed: true, results, path: 0 }
}

/// Each kind of result with a value of that many bytes.
fn results(bytes: usize) -> Vec<OperationResult> {
    let keys = || vec![(Bytes::from("k"), version(bytes))];
    let (more, count, deleted, revision) = (false, 1, 1, Revision(1));
    vec![
        OperationResult::Got(Some(version(bytes))),
        OperationResult::Replaced { previous: Some(version(bytes)) },
        OperationResult::Changed(version(bytes)),
        OperationResult::Listed { keys: keys(), more },
        OperationResult::Ranged { keys: keys(), more, count, revision },
        OperationResult::Removed { deleted, previous: keys(), revision },
    ]
}

fn permit(quota: &Quota) -> QuotaPermit {
    quota.take(100).now_or_never().flatten().unwrap()
}

#[test]
fn without_room_a_read_is_refused_and_what_was_executed_is_answered_without_its_results() {
    let quota = Quotas::default().of(HolderId::random());
    let mut taken = permit(&quota);
    assert!(taken.try_results(HOLDER_RESULT_BYTES_MAX / 2));
    let answer = |answer: Answer| with_room(Ok(answer), &mut permit(&quota));
    for long in reads(4 * KIB).into_iter().chain(pages(SCAN_BYTES_MAX)) {
        let refused = answer(long);
        let is_refused = matches!(&refused, Err(Refusal::Overloaded { .. }));
        assert!(is_refused, "{:?}", refused.map(|_| ()));
    }
    // Short values need none, and pages have it.
    for short in reads(4 * KIB - 1).into_iter().chain(pages(SCAN_BYTES_MAX / 2)) {
        assert_eq!(answer(short.clone()), Ok(short));
    }
    for one in results(4 * KIB) {
        let full = transacted(vec![one]);
        let mut stripped = full.clone();
        if let Answer::Transacted { results, .. } = &mut stripped {
            *results = None;
        }
        assert_eq!(answer(full), Ok(stripped));
    }
    for one in results(4000) {
        let short = transacted(vec![one]);
        assert_eq!(answer(short.clone()), Ok(short));
    }
    // Together they are long.
    let together = answer(transacted(results(4000)));
    assert!(matches!(together, Ok(Answer::Transacted { results: None, .. })), "{together:?}");
    let refusal = Refusal::Overloaded { retry_after_ms: 1 };
    assert_eq!(with_room(Err(refusal.clone()), &mut permit(&quota)), Err(refusal));

    drop(taken);
    for long in reads(KIB * KIB).into_iter().chain(pages(SCAN_BYTES_MAX)) {
        assert_eq!(answer(long.clone()), Ok(long));
    }
    let all = transacted(results(KIB * KIB));
    assert_eq!(answer(all.clone()), Ok(all));
}
