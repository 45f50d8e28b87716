//! Tests of the bytes that streams hold.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Semaphore;

use super::{RequestBytes, freed_when_handled};
use crate::limits::MESSAGE_BYTES_MAX;

#[tokio::test]
async fn a_stream_sends_more_than_all_may_have_while_another_request_is_served() {
    const BUDGET: usize = MESSAGE_BYTES_MAX + 100;
    let all = Arc::new(Semaphore::new(BUDGET));
    let (stream, other) = (RequestBytes::new(Arc::clone(&all)), RequestBytes::new(all.clone()));
    // As a body does it: a message comes in frames, and is taken before it is decoded.
    let takes = stream.clone();
    let messages = futures::stream::iter(0..5).map(move |_| {
        takes.take(MESSAGE_BYTES_MAX / 2).and_then(|()| takes.take(MESSAGE_BYTES_MAX / 2))
    });
    let mut messages = freed_when_handled(messages, Some(stream.clone()));
    for _ in 0..5 {
        assert_eq!(messages.next().await, Some(Ok(())));
        assert_eq!(all.available_permits(), BUDGET - MESSAGE_BYTES_MAX, "it is being handled");
    }
    assert_eq!(messages.next().await, None);
    assert_eq!(all.available_permits(), BUDGET, "the stream is open, and holds nothing");
    assert_eq!(other.take(BUDGET), Ok(()));
}
