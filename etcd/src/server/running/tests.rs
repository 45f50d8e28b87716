//! Tests of the bounds on requests in progress.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Running;
use crate::budget::Budget;
use crate::limits::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use dkv_base::slots::Slots;
use http_body_util::{BodyExt, Full};

fn running(max: usize, bytes: usize) -> (Running, Budget, impl Sized) {
    let slots = Arc::new(Slots::new(1, 1));
    let slot = slots.take(Ipv4Addr::LOCALHOST.into()).expect("a slot");
    let budget = Budget::new(bytes, 0);
    (Running::new(max, slot.busy_flag(), budget.clone()), budget, (slots, slot))
}

#[test]
fn requests_beyond_the_limit_are_refused_until_one_has_ended() {
    let (running, _, _slot) = running(2, 0);
    let one = running.begin().expect("the first");
    let _other = running.begin().expect("the second");
    assert!(running.begin().is_none());
    assert!(running.begin().is_none(), "a refused one does not count");
    drop(one);
    assert!(running.begin().is_some());
}

#[tokio::test]
async fn bytes_count_until_the_request_is_answered() {
    let (running, budget, _slot) = running(10, 100);
    let request = running.begin().expect("a request");
    let body = Full::new(Bytes::from(vec![0; 60]));
    let collected = request.request_body(body.clone()).collect().await.expect("a body");
    assert_eq!(collected.to_bytes().len(), 60);
    assert_eq!(budget.left(), 40);
    let other = running.begin().expect("a request");
    other.request_body(body.clone()).collect().await.expect_err("no room");
    // The reader of an answer may be slow.
    let _answer = request.body(());
    assert_eq!(budget.left(), 100);
    other.request_body(body).collect().await.expect("room");
}

#[tokio::test]
async fn a_request_pays_for_one_message() {
    let (running, budget, _slot) = running(10, 2 * MESSAGE_BYTES_MAX);
    let request = running.begin().expect("a request");
    for _ in 0..4 {
        let body = Full::new(Bytes::from(vec![0; MESSAGE_BYTES_MAX]));
        request.request_body(body).collect().await.expect("a body");
    }
    assert_eq!(budget.left(), MESSAGE_BYTES_MAX);
}
