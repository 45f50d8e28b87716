//! Where answers go: from wherever a request is decided back to the stream it came on.
//!
//! A request's [`ReplyTo`] holds its share of what its connection may have under way. The share is
//! given back when the answer has been written to the stream, so that a client that does not read
//! its answers is soon not read from either, and nothing grows.

use std::sync::Arc;

use dkv_wire::frame::FrameWriter;
use dkv_wire::message::{Answer, Refusal, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::common::counters::Counters;
use crate::net::quota::Part;

/// Bytes of answers that are written together at the most.
const FLUSH_BYTES: usize = 256 * 1024;
/// Answers that are taken from the queue together at the most.
const TAKE_MAX: usize = 1024;

pub(crate) type Queued = (Reply, Part, Begun);

/// What a request was for, and when it came.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) kind: usize,
    pub(crate) at: Instant,
}

/// The answers of one stream.
#[derive(Clone)]
pub(crate) struct Replies {
    // Unbounded, for it must never block whoever decides a request; its bound is the permits.
    sender: mpsc::UnboundedSender<Queued>,
}

/// The one answer of one request. Dropped without one, it answers that the outcome is unknown.
pub(crate) struct ReplyTo {
    /// Nowhere once it is answered.
    to: Option<Destination>,
}

enum Destination {
    Stream { id: u64, sender: mpsc::UnboundedSender<Queued>, permit: Part, begun: Begun },
    Here(oneshot::Sender<Result<Answer, Refusal>>),
}

impl Begun {
    /// For a test that looks at answers only.
    #[cfg(test)]
    pub(crate) fn now() -> Self {
        Self { kind: 0, at: Instant::now() }
    }
}

impl Replies {
    /// The answers of a stream, and the task that writes them.
    pub(crate) fn new(
        writer: FrameWriter<quinn::SendStream>,
        counters: Arc<Counters>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, write(receiver, writer, counters))
    }

    /// The answers, for a test to look at.
    #[cfg(test)]
    pub(crate) fn collected() -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// The answer of the request with this id.
    pub(crate) fn to(&self, id: u64, permit: Part, begun: Begun) -> ReplyTo {
        let sender = self.sender.clone();
        ReplyTo { to: Some(Destination::Stream { id, sender, permit, begun }) }
    }
}

impl ReplyTo {
    /// An answer for this node itself, which makes one of its own of it.
    pub(crate) fn here() -> (Self, oneshot::Receiver<Result<Answer, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { to: Some(Destination::Here(sender)) }, receiver)
    }

    /// Answers.
    pub(crate) fn send(mut self, result: Result<Answer, Refusal>) {
        self.answer(result);
    }

    /// Answers that the request was refused.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.send(Err(refusal));
    }

    fn answer(&mut self, result: Result<Answer, Refusal>) {
        // Whoever asked may be gone.
        match self.to.take() {
            Some(Destination::Stream { id, sender, permit, begun }) => {
                let _ = sender.send((Reply { id, result }, permit, begun));
            }
            Some(Destination::Here(sender)) => {
                let _ = sender.send(result);
            }
            None => {}
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.answer(Err(Refusal::Unknown("the node is stopping".into())));
    }
}

async fn write(
    mut receiver: mpsc::UnboundedReceiver<Queued>,
    mut writer: FrameWriter<quinn::SendStream>,
    counters: Arc<Counters>,
) {
    let mut queued: Vec<Queued> = Vec::new();
    while receiver.recv_many(&mut queued, TAKE_MAX).await > 0 {
        let mut permits = Vec::with_capacity(queued.len());
        // One look at the clock for all that are written together.
        let now = Instant::now();
        for (reply, permit, begun) in queued.drain(..) {
            counters.answered(begun.kind, &reply.result, now.saturating_duration_since(begun.at));
            writer.push(&reply);
            permits.push(permit);
            if writer.pending() >= FLUSH_BYTES {
                counters.sent(writer.pending());
                if writer.flush().await.is_err() {
                    return;
                }
                permits.clear();
            }
        }
        counters.sent(writer.pending());
        if writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.into_inner().finish();
}
