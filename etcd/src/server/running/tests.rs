//! Tests of the bounds on requests in progress.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::slots::Slots;
use futures::{FutureExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};

use super::Running;
use crate::budget::{Budget, Shares};
use crate::error::EtcdError;
use crate::http::BodyError;
use crate::limits::{ANSWER_PIECE_BYTES, ANSWER_RATE_GRACE, BODY_TIMEOUT};

type Frame = hyper::body::Frame<Bytes>;

fn running(max: usize, bytes: usize) -> (Running, Arc<Shares>, impl Sized) {
    let slots = Arc::new(Slots::new(1, 1));
    let slot = slots.take(Ipv4Addr::LOCALHOST.into()).expect("a slot");
    // One connection may have a third of it.
    let budget = Budget::new([3 * bytes, 3 * bytes, 0, 0], 0);
    let shares = Arc::new(budget.connection(Ipv4Addr::LOCALHOST.into()));
    (Running::new(max, slot.busy_flag()), shares, (slots, slot))
}

#[test]
fn requests_beyond_the_limit_are_refused_until_one_has_ended() {
    let (running, shares, _slot) = running(2, 0);
    let begin = || running.begin(Arc::clone(&shares));
    let one = begin().expect("the first");
    let _other = begin().expect("the second");
    assert!(begin().is_none());
    assert!(begin().is_none(), "a refused one does not count");
    drop(one);
    assert!(begin().is_some());
}

#[tokio::test]
async fn bytes_count_until_the_request_is_answered() {
    let (running, shares, _slot) = running(10, 100);
    let begin = || running.begin(Arc::clone(&shares)).expect("a request");
    let request = begin();
    let body = Full::new(Bytes::from(vec![0; 60]));
    let collected = request.request_body(body.clone(), true).collect().await.expect("a body");
    assert_eq!(collected.to_bytes().len(), 60);
    let other = begin();
    other.request_body(body.clone(), true).collect().await.expect_err("no room");
    // The reader of an answer may be slow.
    let _answer = request.body(());
    other.request_body(body, true).collect().await.expect("room");
}

/// A body that has sent a part, and sends no more.
fn begun() -> impl hyper::body::Body<Data = Bytes, Error = BodyError> + Unpin {
    let part = Ok(Frame::data(Bytes::from_static(b"part")));
    StreamBody::new(Box::pin(futures::StreamExt::chain(stream::iter([part]), stream::pending())))
}

#[tokio::test(start_paused = true)]
async fn a_message_arrives_in_time_or_not_at_all() {
    let (running, shares, _slot) = running(10, 100);
    let request = running.begin(shares).expect("a request");
    for is_one in [true, false] {
        let started = tokio::time::Instant::now();
        let body = request.request_body(begun(), is_one);
        let error = body.collect().await.expect_err("it is late").to_string();
        assert!(error.contains("took too long"), "{error}");
        assert!(started.elapsed() >= BODY_TIMEOUT, "{:?}", started.elapsed());
    }
    // What a stream has sent was handled, and its next message may come at any time.
    let mut body = request.request_body(begun(), false);
    body.frame().await.expect("a frame").expect("a part");
    assert!(tokio::time::timeout(BODY_TIMEOUT / 2, body.frame()).await.is_err());
    request.bytes().free();
    assert!(tokio::time::timeout(10 * BODY_TIMEOUT, body.frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_comes_in_pieces_that_have_to_be_read_at_a_rate() {
    const LONG: usize = 20 * ANSWER_PIECE_BYTES;
    let (running, shares, _slot) = running(10, LONG);
    let request = running.begin(Arc::clone(&shares)).expect("a request");
    request.bytes().take_answer(LONG).expect("room");
    let whole = Bytes::from(vec![7; LONG]);
    let mut answer = request.body(Full::new(whole.clone()));
    let mut overdue = pin!(running.overdue());
    let (mut read, mut last) = (Vec::new(), Bytes::new());
    while let Some(frame) = answer.frame().await {
        last = frame.expect("a frame").into_data().expect("data");
        assert!(last.len() <= ANSWER_PIECE_BYTES);
        read.extend_from_slice(&last);
        let exact = hyper::body::Body::size_hint(&answer).exact();
        assert_eq!(exact, Some((LONG - read.len()) as u64));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(overdue.as_mut().now_or_never().is_none(), "it is read fast enough");
    }
    assert_eq!(read, whole);
    drop(answer);
    let other = running.begin(shares).expect("a request").bytes();
    assert!(other.take_answer(LONG).is_err(), "a part of it waits to be sent");
    // Which does not go on for ever.
    let late = tokio::time::timeout(10 * ANSWER_RATE_GRACE, overdue).await;
    late.expect("the last piece is not read");
    drop(last);
    other.take_answer(LONG).expect("room");
}

/// A body of parts of equal length.
fn parts(number: usize, bytes: usize) -> impl hyper::body::Body<Data = Bytes> + Unpin {
    let part = move |_| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![7; bytes])));
    StreamBody::new(stream::iter((0..number).map(part)))
}

#[tokio::test]
async fn the_parts_of_a_stream_that_are_not_sent_leave_less_room() {
    const PART: usize = 1024;
    let (running, shares, _slot) = running(10, 10 * PART);
    let begin = || running.begin(Arc::clone(&shares)).expect("a request");
    let (request, other) = (begin(), begin());
    let bytes = request.bytes();
    bytes.begin_stream();
    let mut answer = request.body(parts(100, PART));
    let mut waiting = Vec::new();
    let mut next = async || {
        bytes.take_next_answer(PART)?;
        let frame = answer.frame().await.expect("a frame").map_err(|_| EtcdError::TIMEOUT)?;
        Ok::<_, EtcdError>(frame.into_data().expect("data"))
    };
    while let Ok(part) = next().await {
        waiting.push(part);
    }
    assert!((9..=18).contains(&waiting.len()), "{} parts wait", waiting.len());
    assert!(other.bytes().take_answer(10 * PART).is_err());
    waiting.clear();
    for _ in 0..50 {
        next().await.expect("room");
    }
    other.bytes().take_answer(9 * PART).expect("room");
}

#[tokio::test(start_paused = true)]
async fn many_short_answers_and_parts_of_streams_have_to_be_read_too() {
    const NUMBER: usize = 100;
    const SHORT: usize = 200 * 1024;
    for is_stream in [false, true] {
        let (running, shares, _slot) = running(NUMBER, NUMBER * SHORT);
        let begin = || running.begin(Arc::clone(&shares)).expect("a request");
        let mut overdue = pin!(running.overdue());
        let answer = async || {
            let request = begin();
            let bytes = request.bytes();
            if is_stream {
                bytes.begin_stream();
            }
            bytes.take_next_answer(SHORT).expect("room");
            let mut answer = request.body(parts(1, SHORT));
            let frame = answer.frame().await.expect("a frame").unwrap_or_else(|_| panic!("none"));
            frame.into_data().expect("data")
        };
        // Those that are read do no harm.
        for _ in 0..NUMBER {
            drop(answer().await);
            tokio::time::sleep(ANSWER_RATE_GRACE / 10).await;
            assert!(overdue.as_mut().now_or_never().is_none(), "all are read");
        }
        let mut waiting = Vec::new();
        for _ in 0..NUMBER {
            waiting.push(answer().await);
        }
        assert!(begin().bytes().take_answer(NUMBER * SHORT).is_err());
        let late = tokio::time::timeout(2 * ANSWER_RATE_GRACE, overdue).await;
        late.expect("none of them is read");
    }
}
