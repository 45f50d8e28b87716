//! The way of answers back to the streams on which their requests came.
//!
//! The [`ReplyTo`] of a request holds the request's share of its connection's quota, and returns it
//! when the answer has been written to the stream. A node therefore soon stops reading from a
//! client that does not read its answers, and no queue grows without bound.

use std::sync::Arc;

use dkv_wire::frame::FrameWriter;
use dkv_wire::message::{Answer, Refusal, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::common::counters::Counters;
use crate::net::quota::QuotaPermit;

/// Largest number of bytes of answers that are written together.
const FLUSH_BYTES: usize = 256 * 1024;
/// Largest number of answers that are taken from the queue together.
const TAKE_MAX: usize = 1024;

pub(crate) type Queued = (Reply, QuotaPermit, Begun);

/// The kind of a request, and its time of arrival.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) kind: usize,
    pub(crate) at: Instant,
}

/// The answers of one stream.
#[derive(Clone)]
pub(crate) struct Replies {
    // Unbounded, because it must never block the code that decides a request. The permits bound it.
    sender: mpsc::UnboundedSender<Queued>,
}

/// The single answer to one request. If dropped without one, it answers that the outcome is
/// unknown.
pub(crate) struct ReplyTo {
    /// `None` once the request has been answered.
    to: Option<Destination>,
}

enum Destination {
    Stream { id: u64, sender: mpsc::UnboundedSender<Queued>, permit: QuotaPermit, begun: Begun },
    Here(oneshot::Sender<Result<Answer, Refusal>>),
}

impl Begun {
    /// Returns a placeholder for tests that examine answers only.
    #[cfg(test)]
    pub(crate) fn now() -> Self {
        Self { kind: 0, at: Instant::now() }
    }
}

impl Replies {
    /// Returns the handle for the answers of a stream, and the task that writes them.
    pub(crate) fn new(
        writer: FrameWriter<quinn::SendStream>,
        counters: Arc<Counters>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, write(receiver, writer, counters))
    }

    /// Returns a handle and the receiver from which a test takes the answers.
    #[cfg(test)]
    pub(crate) fn collected() -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// Returns the handle for the answer to the request with this id.
    pub(crate) fn to(&self, id: u64, permit: QuotaPermit, begun: Begun) -> ReplyTo {
        let sender = self.sender.clone();
        ReplyTo { to: Some(Destination::Stream { id, sender, permit, begun }) }
    }
}

impl ReplyTo {
    /// Returns a handle for an answer that stays in this node, which builds its own answer from it.
    pub(crate) fn here() -> (Self, oneshot::Receiver<Result<Answer, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { to: Some(Destination::Here(sender)) }, receiver)
    }

    /// Waits for room for results of `bytes` bytes, until the answer has been written.
    pub(crate) async fn take_results(&mut self, bytes: usize) {
        if let Some(Destination::Stream { permit, .. }) = &mut self.to {
            permit.take_results(bytes).await;
        }
    }

    /// Sends the answer.
    pub(crate) fn send(mut self, result: Result<Answer, Refusal>) {
        self.answer(result);
    }

    /// Answers that the request was refused.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.send(Err(refusal));
    }

    fn answer(&mut self, result: Result<Answer, Refusal>) {
        // The requester may be gone.
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
        // One clock read for all answers that are written together.
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
