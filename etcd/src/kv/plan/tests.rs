//! Tests of plans.

use bytes::Bytes;
use dkv_api::{KeyRange, Revision};

use super::{ANY, Order, Part, RangePlan, bounds, key_range};
use crate::error::EtcdError;
use crate::proto::etcdserverpb::RangeRequest;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};

fn request() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(b"a"), ..RangeRequest::default() }
}

#[test]
fn ends_mean_what_etcd_says() {
    let bytes = Bytes::from_static;
    let range = |key, end| key_range(&bytes(key), &bytes(end));
    assert_eq!(range(b"a", b""), Some(KeyRange::Key(bytes(b"a"))));
    assert_eq!(range(b"a", b"\0"), Some(KeyRange::Range(bytes(b"a"), Bytes::new())));
    assert_eq!(range(b"\0", b"\0"), Some(KeyRange::Range(bytes(b"\0"), Bytes::new())));
    assert_eq!(range(b"a", b"b"), Some(KeyRange::Range(bytes(b"a"), bytes(b"b"))));
    assert_eq!(range(b"b", b"a"), None);
    assert_eq!(range(b"a", b"a"), None);
}

#[test]
fn a_target_without_an_order_is_ascending() {
    let plan = |target: SortTarget, order: SortOrder| {
        let sort = (target as i32, order as i32);
        let request = RangeRequest { sort_target: sort.0, sort_order: sort.1, ..request() };
        RangePlan::new(&request).expect("a plan").order
    };
    assert_eq!(plan(SortTarget::Key, SortOrder::None), None);
    assert_eq!(plan(SortTarget::Key, SortOrder::Ascend), None);
    let by = |target, descending| Some(Order { target, descending });
    assert_eq!(plan(SortTarget::Mod, SortOrder::None), by(SortTarget::Mod, false));
    assert_eq!(plan(SortTarget::Key, SortOrder::Descend), by(SortTarget::Key, true));
}

#[test]
fn what_etcd_does_not_know_is_refused() {
    let error = |request| RangePlan::new(&request).expect_err("no plan");
    assert_eq!(error(RangeRequest::default()), EtcdError::EMPTY_KEY);
    let unknown = RangeRequest { sort_order: 9, ..request() };
    assert_eq!(error(unknown), EtcdError::INVALID_SORT_OPTION);
    let unknown = RangeRequest { sort_target: -1, ..request() };
    assert_eq!(error(unknown), EtcdError::INVALID_SORT_OPTION);
}

#[test]
fn revisions_are_those_of_the_shard_plus_one() {
    let plan = RangePlan::new(&RangeRequest { revision: 8, ..request() }).expect("a plan");
    assert_eq!(plan.at, Some(Revision(7)));
    for latest in [0, -1] {
        let plan = RangePlan::new(&RangeRequest { revision: latest, ..request() });
        assert_eq!(plan.expect("a plan").at, None);
    }
    assert_eq!(bounds(0, 0), Some(ANY));
    assert_eq!(bounds(5, 6), Some((Revision(4), Revision(5))));
    assert_eq!(bounds(-5, i64::MAX), Some((Revision(0), Revision(i64::MAX as u64 - 1))));
    assert_eq!(bounds(0, -1), None, "no revision is below zero");
}

#[test]
fn a_limit_below_one_is_none() {
    let limit = |limit| RangePlan::new(&RangeRequest { limit, ..request() }).map(|it| it.limit);
    assert_eq!(limit(0), Ok(None));
    assert_eq!(limit(-3), Ok(None));
    assert_eq!(limit(3), Ok(Some(3)));
    let both = RangeRequest { count_only: true, keys_only: true, ..request() };
    assert_eq!(RangePlan::new(&both).map(|plan| plan.part), Ok(Part::Count));
}
