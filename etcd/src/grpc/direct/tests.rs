//! Tests of the messages that are taken from bodies, and of the answers.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use tonic::Code;

use super::{Answer, Parts, method_of};
use crate::http::BodyError;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::method::Method;

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// Returns the message of a body that comes in parts, and the number of parts that it took.
fn taken(body: &[u8], part: usize) -> Option<(Bytes, usize)> {
    let mut parts = Parts::default();
    body.chunks(part).enumerate().find_map(|(at, part)| {
        let whole = parts.add(Bytes::copy_from_slice(part)).expect("a valid part");
        whole.map(|message| (message, at + 1))
    })
}

#[test]
fn a_message_is_the_same_in_whatever_parts_it_comes() {
    for message in [&b""[..], b"m", b"message", &[7; 300]] {
        let body = [&framed(message)[..], b"more"].concat();
        let length = framed(message).len();
        for part in 1..=body.len() {
            let (found, number) = taken(&body, part).expect("a message");
            assert_eq!(found, message, "in parts of {part}");
            assert_eq!(number, length.div_ceil(part), "no part is waited for in vain");
        }
        assert!(taken(&body[..length - 1], 3).is_none());
    }
}

#[tokio::test]
async fn the_end_of_a_request_is_waited_for() {
    let (sender, frames) = futures::channel::mpsc::unbounded();
    let mut taking = std::pin::pin!(super::message(StreamBody::new(frames)));
    let send = |data: &[u8]| {
        let frame = Frame::data(Bytes::copy_from_slice(data));
        sender.unbounded_send(Ok::<_, BodyError>(frame)).expect("somebody who reads");
    };
    send(&framed(b"message"));
    assert!(futures::poll!(&mut taking).is_pending());
    send(b"");
    assert!(futures::poll!(&mut taking).is_pending());
    drop(sender);
    assert_eq!(taking.await.expect("a message"), "message");
}

#[test]
fn a_message_that_cannot_be_read_is_refused() {
    let refused = |body: Vec<u8>| Parts::default().add(body.into()).expect_err("a refusal").code();
    assert_eq!(refused(vec![1, 0, 0, 0, 1, 7]), Code::Internal);
    let long = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
    assert_eq!(refused([&[0][..], &long].concat()), Code::OutOfRange);
}

#[test]
fn only_plain_requests_of_the_busy_methods_are_answered() {
    let of = |path: &str, more: [(&str, &str); 2]| {
        let request = Request::post(path).header(more[0].0, more[0].1).header(more[1].0, more[1].1);
        method_of(&request.body(()).expect("a request"))
    };
    let (grpc, other) = (("content-type", "application/grpc"), ("te", "trailers"));
    assert_eq!(of("/etcdserverpb.KV/Range", [grpc, other]), Some(Method::Range));
    let plain = ("grpc-encoding", "identity");
    assert_eq!(of("/etcdserverpb.KV/Put", [grpc, plain]), Some(Method::Put));
    assert_eq!(of("/etcdserverpb.KV/Put", [grpc, ("grpc-encoding", "gzip")]), None);
    assert_eq!(of("/etcdserverpb.KV/Put", [("content-type", "application/json"), other]), None);
    assert_eq!(of("/etcdserverpb.KV/Compact", [grpc, other]), None);
}

#[tokio::test]
async fn an_answer_is_its_message_and_the_trailers() {
    let mut answer = Answer::Message("m".into());
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "m");
    let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(answer.frame().await.is_none());
}
