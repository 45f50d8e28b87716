//! Tests of the JSON form of messages.

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use super::{body_error, method_at, parse};
use crate::error::EtcdError;
use crate::http::BodyError;
use crate::method::Method;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::SortOrder;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader, TxnRequest};
use crate::proto::mvccpb::KeyValue;

#[test]
fn an_answer_has_the_names_of_the_proto_files_and_no_defaults() {
    let header = ResponseHeader { cluster_id: u64::MAX, revision: 7, ..ResponseHeader::default() };
    let pair = KeyValue {
        key: Bytes::from_static(b"foo"),
        value: Bytes::from_static(b"\xff\x00bar"),
        create_revision: 3,
        mod_revision: 4,
        version: 2,
        lease: 0,
    };
    let answer = RangeResponse { header: Some(header), kvs: vec![pair], more: false, count: 1 };
    let found = serde_json::to_value(&answer).expect("a message");
    let expected = json!({
        "header": { "cluster_id": "18446744073709551615", "revision": "7" },
        "kvs": [{
            "key": "Zm9v",
            "value": "/wBiYXI=",
            "create_revision": "3",
            "mod_revision": "4",
            "version": "2",
        }],
        "count": "1",
    });
    assert_eq!(found, expected);
}

#[test]
fn a_request_may_have_numbers_as_strings_and_unknown_fields() {
    let body = br#"{"key":"Zm9v","range_end":"AA==","limit":"10","sort_order":"DESCEND",
        "keys_only":true,"min_mod_revision":5,"something_new":[1]}"#;
    let request: RangeRequest = parse(body).expect("a request");
    assert_eq!(request.key, "foo");
    assert_eq!(request.range_end, Bytes::from_static(&[0]));
    assert_eq!((request.limit, request.min_mod_revision), (10, 5));
    assert_eq!(request.sort_order(), SortOrder::Descend);
    assert!(request.keys_only);
}

#[test]
fn an_empty_body_is_an_empty_message() {
    let request: RangeRequest = parse(b" \n").expect("a request");
    assert_eq!(request, RangeRequest::default());
    parse::<RangeRequest>(b"[").expect_err("no message");
    parse::<RangeRequest>(b"{} {}").expect_err("two messages");
}

#[test]
fn a_transaction_of_patroni_parses() {
    let body = br#"{"compare":[{"key":"a2V5","target":"CREATE","create_revision":"0",
        "result":"EQUAL"}],"success":[{"request_put":{"key":"a2V5","value":"dg==",
        "lease":"123456789012345678"}}],"failure":[{"request_range":{"key":"a2V5"}}]}"#;
    let request: TxnRequest = parse(body).expect("a request");
    let compare = &request.compare[0];
    assert_eq!(compare.target(), CompareTarget::Create);
    assert_eq!(compare.result(), CompareResult::Equal);
    assert_eq!(compare.target_union, Some(TargetUnion::CreateRevision(0)));
    let Some(Request::RequestPut(put)) = &request.success[0].request else {
        panic!("not a put: {request:?}");
    };
    assert_eq!(put.lease, 123_456_789_012_345_678);
}

#[test]
fn paths_of_older_gateways_are_known() {
    assert_eq!(method_at("/v3/kv/range"), Some(Method::Range));
    assert_eq!(method_at("/v3beta/kv/txn"), Some(Method::Txn));
    assert_eq!(method_at("/v3alpha/lease/grant"), Some(Method::LeaseGrant));
    assert_eq!(method_at("/v3/kv/lease/revoke"), Some(Method::LeaseRevoke));
    assert_eq!(method_at("/v3/kv"), None);
    assert_eq!(method_at("/v2/keys"), None);
}

#[tokio::test]
async fn a_body_that_breaks_off_says_why() {
    let frames = |error: Option<BodyError>| {
        let first = Ok(Frame::data(Bytes::from_static(b"{\"key\"")));
        StreamBody::new(stream::iter([Some(first), error.map(Err)].into_iter().flatten()))
    };
    let said = async |error: Option<BodyError>, most| {
        body_error(Limited::new(frames(error), most).collect().await.expect_err("an error"))
    };
    assert_eq!(said(None, 3).await, EtcdError::REQUEST_TOO_LARGE);
    let too_many = EtcdError::REQUEST_TOO_MANY_REQUESTS;
    assert_eq!(said(Some(too_many.clone().into()), 100).await, too_many);
    assert_eq!(said(Some("gone".into()), 100).await.message(), "gone");
}
