//! The way of answers back to the streams on which their requests came.
//!
//! The [`ReplyTo`] of a request holds the request's share of its connection's quota, and returns it
//! when the answer has been written to the stream. A node therefore soon stops reading from a
//! client that does not read its answers, and no queue grows without bound. Long values take room
//! of their own; without room, the answer is that the sender is to try again.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::audit::{Act, Outcome};
use dkv_wire::frame::FrameWriter;
use dkv_wire::identity::Identity;
use dkv_wire::limits::SCAN_BYTES_MAX;
use dkv_wire::message::{Answer, OperationResult, Refusal, Reply, Stored, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::common::counters::Counters;
use crate::common::timeline::{Returned, Stage, Timeline};
use crate::net::quota::QuotaPermit;
use crate::net::user_limits::Charged;

/// Largest number of bytes of answers that are written together.
const FLUSH_BYTES: usize = 256 * 1024;
/// Largest number of answers that are taken from the queue together.
const TAKE_MAX: usize = 1024;
/// Time after which to read again if there is no room for the value, in milliseconds.
const ROOM_RETRY_MS: u32 = 50;

pub(crate) type Queued = (Reply, QuotaPermit, Begun);

/// The kind of a request, its time of arrival, and where its time has gone.
pub(crate) struct Begun {
    pub(crate) kind: usize,
    pub(crate) at: Instant,
    pub(crate) timeline: Timeline,
    /// Who pays for the bytes of the answer.
    pub(crate) charged: Charged,
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
    /// The timeline of a part that is answered in this node, once it is.
    part: Option<Returned>,
    /// What the audit log tells of it.
    act: Act,
}

enum Destination {
    Stream {
        id: u64,
        sender: mpsc::UnboundedSender<Queued>,
        permit: QuotaPermit,
        begun: Begun,
    },
    Here(oneshot::Sender<Result<Answer, Refusal>>),
    /// The same, for a part of a request that is measured.
    Part(oneshot::Sender<Result<Answer, Refusal>>, Timeline, Returned),
}

impl Begun {
    /// Returns a placeholder for tests that examine answers only.
    #[cfg(test)]
    pub(crate) fn now() -> Self {
        use crate::common::timeline::Subject;
        let at = Instant::now();
        let timeline = Timeline::new(Subject::Other, at, at);
        Self { kind: 0, at, timeline, charged: Charged::new() }
    }
}

impl Replies {
    /// Returns the handle for the answers of a stream, and the task that writes them.
    pub(crate) fn new(
        peer: Identity,
        writer: FrameWriter<quinn::SendStream>,
        counters: Arc<Counters>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, write(peer, receiver, writer, counters))
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
        let to = Some(Destination::Stream { id, sender, permit, begun });
        ReplyTo { to, part: None, act: Act::default() }
    }
}

impl ReplyTo {
    /// Returns a handle for an answer that stays in this node, which builds its own answer from it.
    pub(crate) fn here() -> (Self, oneshot::Receiver<Result<Answer, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        let to = Some(Destination::Here(sender));
        (Self { to, part: None, act: Act::default() }, receiver)
    }

    /// Returns a handle as [`here`](Self::here) does, for a part of this request: where its time
    /// goes counts for this request.
    pub(crate) fn part(&mut self) -> (Self, oneshot::Receiver<Result<Answer, Refusal>>) {
        let Some(timeline) = self.timeline() else { return Self::here() };
        let timeline = timeline.part();
        let returned = Returned::default();
        self.part = Some(Arc::clone(&returned));
        let (sender, receiver) = oneshot::channel();
        let to = Some(Destination::Part(sender, timeline, returned));
        (Self { to, part: None, act: Act::default() }, receiver)
    }

    /// Has the outcome of an act told with the answer.
    pub(crate) fn for_act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    /// Has users pay for the bytes of the answer.
    pub(crate) fn charged(mut self, charged: Charged) -> Self {
        if let Some(Destination::Stream { begun, .. }) = &mut self.to {
            begun.charged = charged;
        }
        self
    }

    /// Notes that the request enters a stage at `at`.
    pub(crate) fn enter(&mut self, stage: Stage, at: Instant) {
        self.rejoin();
        if let Some(timeline) = self.timeline() {
            timeline.enter(stage, at);
        }
    }

    /// Adds the time of a part that was answered to that of this request.
    fn rejoin(&mut self) {
        if let Some(part) = self.part.as_ref().and_then(|part| part.get().cloned()) {
            self.part = None;
            if let Some(timeline) = self.timeline() {
                timeline.adopt(&part);
            }
        }
    }

    fn timeline(&mut self) -> Option<&mut Timeline> {
        match &mut self.to {
            Some(Destination::Stream { begun, .. }) => Some(&mut begun.timeline),
            Some(Destination::Part(_, timeline, _)) => Some(timeline),
            Some(Destination::Here(_)) | None => None,
        }
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
        if self.to.is_some() {
            std::mem::take(&mut self.act).ended_with(|| outcome(&result));
        }
        self.rejoin();
        // The requester may be gone.
        match self.to.take() {
            Some(Destination::Stream { id, sender, mut permit, mut begun }) => {
                begun.timeline.enter(Stage::Reply, Instant::now());
                let result = with_room(result, &mut permit);
                let _ = sender.send((Reply { id, result }, permit, begun));
            }
            Some(Destination::Here(sender)) => {
                let _ = sender.send(result);
            }
            Some(Destination::Part(sender, mut timeline, returned)) => {
                timeline.enter(Stage::Reply, Instant::now());
                // First, so that the receiver finds it.
                let _ = returned.set(timeline);
                let _ = sender.send(result);
            }
            None => {}
        }
    }
}

/// What an answer says of the outcome of an act.
fn outcome(result: &Result<Answer, Refusal>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(Refusal::Denied(why)) => Outcome::Denied(why.clone()),
        Err(refusal @ (Refusal::Unknown(_) | Refusal::SessionExpired)) => {
            Outcome::Unknown(refusal.to_string())
        }
        Err(refusal) => Outcome::Failed(refusal.to_string()),
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.answer(Err(Refusal::Unknown("the node is stopping".into())));
    }
}

/// Takes room for the values in an answer. Without room they are dropped: a read is refused, and
/// what was executed is answered without its results.
fn with_room(
    mut result: Result<Answer, Refusal>,
    permit: &mut QuotaPermit,
) -> Result<Answer, Refusal> {
    match &mut result {
        Ok(
            Answer::Value(_, Some(Stored { value, .. }))
            | Answer::ValueEverywhere(_, Some(Stored { value, .. }), _)
            | Answer::VersionAt(_, Some(Version { value: Some(value), .. })),
        ) if !permit.try_results(value.len()) => {
            Err(Refusal::Overloaded { retry_after_ms: ROOM_RETRY_MS })
        }
        // The request took room for a page, but one pair may be longer.
        Ok(answer @ (Answer::Page(..) | Answer::Versions(..) | Answer::Ranged(..)))
            if !permit.try_results(page_bytes(answer).saturating_sub(SCAN_BYTES_MAX)) =>
        {
            Err(Refusal::Overloaded { retry_after_ms: ROOM_RETRY_MS })
        }
        Ok(Answer::Transacted { results, .. } | Answer::TransactedOver { results, .. }) => {
            results.take_if(|some| !permit.try_results(some.iter().map(result_bytes).sum()));
            result
        }
        _ => result,
    }
}

/// The bytes of the values in a page.
fn page_bytes(answer: &Answer) -> usize {
    let of = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    match answer {
        Answer::Page(_, page) => page.pairs.iter().map(|pair| of(&pair.value)).sum(),
        Answer::Versions(_, some) => some.versions.iter().map(|it| of(&it.value)).sum(),
        Answer::Ranged(_, page) => page.keys.iter().map(|(_, it)| of(&it.value)).sum(),
        _ => 0,
    }
}

/// The bytes of the values in the result of an operation.
fn result_bytes(result: &OperationResult) -> usize {
    let of = |version: &Version| version.value.as_ref().map_or(0, Bytes::len);
    match result {
        OperationResult::Got(version) | OperationResult::Replaced { previous: version } => {
            version.as_ref().map_or(0, of)
        }
        OperationResult::Changed(version) => of(version),
        OperationResult::Listed { keys, .. }
        | OperationResult::Ranged { keys, .. }
        | OperationResult::Removed { previous: keys, .. } => {
            keys.iter().map(|(key, version)| key.len() + of(version)).sum()
        }
        _ => 0,
    }
}

async fn write(
    peer: Identity,
    mut receiver: mpsc::UnboundedReceiver<Queued>,
    mut writer: FrameWriter<quinn::SendStream>,
    counters: Arc<Counters>,
) {
    let mut queued: Vec<Queued> = Vec::new();
    while receiver.recv_many(&mut queued, TAKE_MAX).await > 0 {
        let mut permits = Vec::with_capacity(queued.len());
        // One clock read for all answers that are written together.
        let now = Instant::now();
        for (reply, permit, mut begun) in queued.drain(..) {
            let time = now.saturating_duration_since(begun.at);
            let result = counters.answered(begun.kind, &reply.result, time);
            if counters.slow().is_slow(time) {
                begun.timeline.enter(Stage::Other, now);
                counters.slow().note(peer, &begun.timeline, result, time, now);
            }
            let before = writer.pending();
            writer.push(&reply);
            for share in &begun.charged {
                share.pay(writer.pending().saturating_sub(before));
            }
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

#[cfg(test)]
mod tests;
