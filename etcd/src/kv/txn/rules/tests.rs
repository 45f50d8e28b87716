use super::*;
use crate::proto::etcdserverpb::RangeRequest;

fn put(key: &'static str) -> RequestOp {
    let request = Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() });
    RequestOp { request: Some(request) }
}

fn delete(key: &'static str, end: &'static str) -> RequestOp {
    let (key, range_end) = (key.into(), end.into());
    let request = DeleteRangeRequest { key, range_end, prev_kv: false };
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

fn either(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    let nested = TxnRequest { compare: Vec::new(), success, failure };
    RequestOp { request: Some(Request::RequestTxn(nested)) }
}

fn checked(success: Vec<RequestOp>) -> Result<(), EtcdError> {
    check(&TxnRequest { compare: Vec::new(), success, failure: Vec::new() })
}

#[test]
fn no_key_is_put_and_written_again_on_one_way() {
    let duplicate = Err(EtcdError::DUPLICATE_KEY);
    assert_eq!(checked(vec![put("a"), put("a")]), duplicate);
    assert_eq!(checked(vec![put("b"), delete("a", "c")]), duplicate);
    assert_eq!(checked(vec![delete("a", "\0"), put("b")]), duplicate);
    assert_eq!(checked(vec![delete("a", "c"), delete("b", "")]), Ok(()));
    assert_eq!(checked(vec![delete("a", "c"), put("c")]), Ok(()));
    assert_eq!(checked(vec![delete("c", "a"), put("b")]), Ok(()));
    assert_eq!(checked(vec![either(vec![put("a")], vec![put("a")])]), Ok(()));
    assert_eq!(checked(vec![either(vec![put("a")], vec![delete("a", "")])]), Ok(()));
    let nested = || either(vec![], vec![put("a")]);
    assert_eq!(checked(vec![nested(), nested()]), duplicate);
    assert_eq!(checked(vec![nested(), put("a")]), duplicate);
    assert_eq!(checked(vec![nested(), either(vec![delete("a", "b")], vec![])]), duplicate);
}

#[test]
fn sizes_are_bounded_as_etcd_bounds_them() {
    let range = || {
        let request = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        RequestOp { request: Some(Request::RequestRange(request)) }
    };
    let many = |count| (0..count).map(|_| range()).collect::<Vec<_>>();
    assert_eq!(checked(many(128)), Ok(()));
    assert_eq!(checked(many(129)), Err(EtcdError::TOO_MANY_OPS));
    // A nested list counts against what its parent has left.
    assert_eq!(checked(vec![either(many(127), vec![])]), Ok(()));
    assert_eq!(checked(vec![either(many(128), vec![])]), Err(EtcdError::TOO_MANY_OPS));
    assert_eq!(checked(vec![RequestOp { request: None }]), Err(EtcdError::KEY_NOT_FOUND));
    assert_eq!(checked(vec![put("")]), Err(EtcdError::EMPTY_KEY));
    let keeps = PutRequest {
        key: "k".into(),
        value: "v".into(),
        ignore_value: true,
        ..PutRequest::default()
    };
    assert_eq!(check_put(&keeps), Err(EtcdError::VALUE_PROVIDED));
    let keeps = PutRequest { key: "k".into(), lease: 7, ignore_lease: true, ..keeps };
    assert_eq!(
        check_put(&PutRequest { ignore_value: false, ..keeps }),
        Err(EtcdError::LEASE_PROVIDED)
    );
}
