//! Tests of the bytes that streams hold.

use futures::StreamExt;

use super::{Budget, RequestBytes, freed_when_handled};
use crate::error::EtcdError;
use crate::limits::MESSAGE_BYTES_MAX;

#[tokio::test]
async fn a_stream_sends_more_than_all_may_have_while_another_request_is_served() {
    const BUDGET: usize = MESSAGE_BYTES_MAX + 100;
    let all = Budget::new(BUDGET, 0);
    let (stream, other) = (RequestBytes::new(all.clone()), RequestBytes::new(all.clone()));
    // As a body does it: a message comes in frames, and is taken before it is decoded.
    let takes = stream.clone();
    let messages = futures::stream::iter(0..5).map(move |_| {
        takes.take(MESSAGE_BYTES_MAX / 2).and_then(|()| takes.take(MESSAGE_BYTES_MAX / 2))
    });
    let mut messages = freed_when_handled(messages, Some(stream.clone()));
    for _ in 0..5 {
        assert_eq!(messages.next().await, Some(Ok(())));
        assert_eq!(all.left(), BUDGET - MESSAGE_BYTES_MAX, "it is being handled");
    }
    assert_eq!(messages.next().await, None);
    assert_eq!(all.left(), BUDGET, "the stream is open, and holds nothing");
    assert_eq!(other.take(BUDGET), Ok(()));
}

#[test]
fn answers_hold_their_bytes_until_they_are_sent() {
    let all = Budget::new(0, 100 * 1024);
    let (one, other) = (RequestBytes::new(all.clone()), RequestBytes::new(all));
    assert_eq!(one.take_answer(30 * 1024), Ok(()));
    assert_eq!(one.take_answer(60 * 1024), Ok(()), "as much in all");
    assert_eq!(one.take_answer(10 * 1024), Ok(()));
    assert_eq!(other.take_answer(41 * 1024), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    assert_eq!(other.take_answer(40 * 1024), Ok(()));
    drop(one);
    assert_eq!(other.take_answer(100 * 1024), Ok(()));
}
