//! The bytes of requests in progress and of their answers, which are bounded over all connections.

mod shares;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dkv_base::sync::lock;
use futures::{Stream, StreamExt};

pub(crate) use self::shares::{Budget, Resource, Shares, Taken};
use crate::error::EtcdError;
use crate::limits::JSON_BYTES_MAX;

/// The bytes that a request holds: those of its message until it is handled, and those of its
/// answer until it has been sent. Each part of a stream holds its own. Clones are the same request.
#[derive(Clone)]
pub(crate) struct RequestBytes {
    held: Arc<Held>,
}

struct Held {
    message: Mutex<Taken>,
    answer: Mutex<Taken>,
    shares: Arc<Shares>,
    /// Messages that have been handled.
    handled: AtomicUsize,
    /// Whether the answer is a stream, which may be quiet for long.
    is_stream: AtomicBool,
}

impl std::fmt::Debug for RequestBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBytes").finish_non_exhaustive()
    }
}

impl RequestBytes {
    /// Begins without bytes.
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        let message = Mutex::new(Taken::none(&shares, Resource::Message));
        let answer = Mutex::new(Taken::none(&shares, Resource::Answer));
        let (handled, is_stream) = Default::default();
        Self { held: Arc::new(Held { message, answer, shares, handled, is_stream }) }
    }

    /// Takes bytes for a part of the body. A request pays for one message at most: those of a
    /// stream are handled as they come.
    ///
    /// # Errors
    /// The caller has too many, or all requests together.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), EtcdError> {
        let mut message = lock(&self.held.message);
        let more = bytes.min(JSON_BYTES_MAX.saturating_sub(message.number()));
        message.more(more)
    }

    /// Returns whether a message has arrived in part, or is not handled yet.
    pub(crate) fn has_message(&self) -> bool {
        lock(&self.held.message).number() > 0
    }

    /// Returns the number of messages that have been handled.
    pub(crate) fn handled(&self) -> usize {
        self.held.handled.load(Ordering::Relaxed)
    }

    /// Takes bytes so that an answer may have this many.
    ///
    /// # Errors
    /// The caller has too many, or all answers together.
    pub(crate) fn take_answer(&self, bytes: usize) -> Result<(), EtcdError> {
        let mut answer = lock(&self.held.answer);
        let more = bytes.saturating_sub(answer.number());
        answer.more(more)
    }

    /// Takes the bytes of the next message of an answer that is a stream, beside those before it
    /// which have not been [moved to a part](Self::take_part).
    ///
    /// # Errors
    /// As for [`take_answer`](Self::take_answer).
    pub(crate) fn take_next_answer(&self, bytes: usize) -> Result<(), EtcdError> {
        lock(&self.held.answer).more(bytes)
    }

    /// Moves the bytes of a stream's messages so far to the part that has them. Each part holds its
    /// own until it has been sent.
    pub(crate) fn take_part(&self) -> Taken {
        let none = Taken::none(&self.held.shares, Resource::Answer);
        std::mem::replace(&mut *lock(&self.held.answer), none)
    }

    /// Takes the place of a watch, until the returned value is dropped.
    ///
    /// # Errors
    /// The caller has too many, or all callers together.
    pub(crate) fn take_watch(&self) -> Result<Taken, EtcdError> {
        self.held.shares.take(Resource::Watch, 1)
    }

    /// Takes the place of one who shows a password, until the returned value is dropped.
    ///
    /// # Errors
    /// As for [`take_watch`](Self::take_watch).
    pub(crate) fn take_login(&self) -> Result<Taken, EtcdError> {
        self.held.shares.take(Resource::Login, 1)
    }

    /// Returns the address of the caller.
    pub(crate) fn address(&self) -> IpAddr {
        self.held.shares.address()
    }

    /// Gives the bytes of the message back: it is handled, or will wait for long.
    pub(crate) fn free(&self) {
        lock(&self.held.message).clear();
        self.held.handled.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the answer is a stream.
    pub(crate) fn begin_stream(&self) {
        self.held.is_stream.store(true, Ordering::Relaxed);
    }

    /// Returns whether the answer is a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.held.is_stream.load(Ordering::Relaxed)
    }

    /// Returns a part of the answer, for which this request holds what it does until it has been
    /// sent: the connection takes a body long before that. `more` lives as long.
    pub(crate) fn keep(&self, part: Bytes, more: impl Send + Sync + 'static) -> Bytes {
        Bytes::from_owner(Kept { part, _request: self.clone(), _more: more })
    }
}

/// See [`RequestBytes::keep`].
struct Kept<T> {
    part: Bytes,
    _request: RequestBytes,
    _more: T,
}

impl<T> AsRef<[u8]> for Kept<T> {
    fn as_ref(&self) -> &[u8] {
        &self.part
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
