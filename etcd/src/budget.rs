//! The bytes of requests in progress and of their answers, which are bounded over all connections.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use dkv_base::sync::lock;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::EtcdError;
use crate::limits::{ANSWERS_BYTES_MAX, MESSAGE_BYTES_MAX, REQUESTS_BYTES_MAX};

/// Bytes of answers that one permit stands for.
const PERMIT_BYTES: usize = 1024;

/// The bytes that all requests may have.
#[derive(Clone)]
pub(crate) struct Budget {
    messages: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(REQUESTS_BYTES_MAX, ANSWERS_BYTES_MAX)
    }
}

impl Budget {
    /// Creates a budget for the messages of requests, and one for their answers.
    pub(crate) fn new(messages: usize, answers: usize) -> Self {
        let answers = Arc::new(Semaphore::new(answers / PERMIT_BYTES));
        Self { messages: Arc::new(Semaphore::new(messages)), answers }
    }

    /// Returns the bytes that are left for messages.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.messages.available_permits()
    }
}

/// The bytes that a request holds: those of its message until it is handled, and those of its
/// answer until it has been sent. Clones are the same request.
#[derive(Clone)]
pub(crate) struct RequestBytes {
    held: Arc<Held>,
}

struct Held {
    message: Mutex<Option<OwnedSemaphorePermit>>,
    answer: Mutex<Option<OwnedSemaphorePermit>>,
    budget: Budget,
}

impl std::fmt::Debug for RequestBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBytes").finish_non_exhaustive()
    }
}

impl RequestBytes {
    /// Begins without bytes.
    pub(crate) fn new(budget: Budget) -> Self {
        let (message, answer) = Default::default();
        Self { held: Arc::new(Held { message, answer, budget }) }
    }

    /// Takes bytes for a part of the body. A request pays for one message at most: those of a
    /// stream are handled as they come.
    ///
    /// # Errors
    /// All requests together have too many.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), EtcdError> {
        let Held { message, budget, .. } = &*self.held;
        take(message, &budget.messages, bytes, MESSAGE_BYTES_MAX)
    }

    /// Takes bytes so that an answer may have this many.
    ///
    /// # Errors
    /// All answers together have too many.
    pub(crate) fn take_answer(&self, bytes: usize) -> Result<(), EtcdError> {
        let Held { answer, budget, .. } = &*self.held;
        let permits = bytes.div_ceil(PERMIT_BYTES);
        let before = lock(answer).as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        take(answer, &budget.answers, permits.saturating_sub(before), usize::MAX)
    }

    /// Gives the bytes of the message back: it is handled, or will wait for long.
    pub(crate) fn free(&self) {
        *lock(&self.held.message) = None;
    }
}

type Taken = Mutex<Option<OwnedSemaphorePermit>>;

/// Takes permits, so that no more than `most` are taken.
fn take(taken: &Taken, all: &Arc<Semaphore>, more: usize, most: usize) -> Result<(), EtcdError> {
    let mut taken = lock(taken);
    let before = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = u32::try_from(more.min(most.saturating_sub(before))).unwrap_or(u32::MAX);
    let permit = Arc::clone(all).try_acquire_many_owned(more);
    let permit = permit.map_err(|_| EtcdError::REQUEST_TOO_MANY_REQUESTS)?;
    match &mut *taken {
        Some(taken) => taken.merge(permit),
        none => *none = Some(permit),
    }
    Ok(())
}

/// Frees the bytes of each message of a stream once the next one is asked for. A stream may stay
/// open for days, and would otherwise keep what its requests had. A part of the next message may
/// have come with the one before; it is at most a frame of HTTP/2, and not counted.
pub(crate) fn freed_when_handled<S: Stream + Unpin>(
    mut messages: S,
    bytes: Option<RequestBytes>,
) -> impl Stream<Item = S::Item> {
    let mut is_handled = false;
    futures::stream::poll_fn(move |context| {
        if std::mem::take(&mut is_handled)
            && let Some(bytes) = &bytes
        {
            bytes.free();
        }
        let polled = messages.poll_next_unpin(context);
        is_handled = polled.is_ready();
        polled
    })
}
