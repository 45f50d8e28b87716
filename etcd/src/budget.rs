//! The bytes of requests in progress, which are bounded over all connections.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::EtcdError;
use crate::limits::MESSAGE_BYTES_MAX;

/// The bytes that a request holds, until it is dropped or [`free`](Self::free)s them. Clones are
/// the same request.
#[derive(Clone)]
pub(crate) struct RequestBytes {
    held: Arc<Held>,
}

struct Held {
    taken: Mutex<Option<OwnedSemaphorePermit>>,
    /// The bytes that all requests may have.
    all: Arc<Semaphore>,
}

impl RequestBytes {
    /// Begins without bytes, of those that all requests may have.
    pub(crate) fn new(all: Arc<Semaphore>) -> Self {
        Self { held: Arc::new(Held { taken: Mutex::new(None), all }) }
    }

    /// Takes bytes for a part of the body. A request pays for one message at most: those of a
    /// stream are handled as they come.
    ///
    /// # Errors
    /// All requests together have too many.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), EtcdError> {
        let mut taken = self.taken();
        let before = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.min(MESSAGE_BYTES_MAX.saturating_sub(before));
        let permit = Arc::clone(&self.held.all).try_acquire_many_owned(more as u32);
        let permit = permit.map_err(|_| EtcdError::REQUEST_TOO_MANY_REQUESTS)?;
        match &mut *taken {
            Some(taken) => taken.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }

    /// Gives all bytes back.
    fn free(&self) {
        *self.taken() = None;
    }

    fn taken(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.held.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
