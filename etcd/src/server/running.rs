//! The requests in progress on a connection: their number is bounded, and tells whether it is busy.
//! Their bytes are bounded over all connections.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use crate::budget::{Budget, RequestBytes};
use crate::http::BodyError;
use bytes::Bytes;
use dkv_base::slots::{Busy, BusyFlag};
use hyper::body::{Body, Frame, SizeHint};

/// The requests in progress on one connection.
pub(super) struct Running {
    number: Arc<Number>,
    budget: Budget,
}

struct Number {
    now: AtomicUsize,
    max: usize,
    /// Marked busy by each request in progress: a busy connection keeps its slot.
    slot: BusyFlag,
}

impl Running {
    /// Begins to count, up to `max` at a time. `budget` is that of all
    /// connections.
    pub(super) fn new(max: usize, slot: BusyFlag, budget: Budget) -> Self {
        Self { number: Arc::new(Number { now: AtomicUsize::new(0), max, slot }), budget }
    }

    /// Counts a request until the returned value is dropped; `None` if there are too many.
    pub(super) fn begin(&self) -> Option<RunningRequest> {
        let before = self.number.now.fetch_add(1, Ordering::Relaxed);
        let number = Arc::clone(&self.number);
        let bytes = RequestBytes::new(self.budget.clone());
        let _busy = self.number.slot.begin();
        let request = RunningRequest { number, bytes, _busy };
        (before < self.number.max).then_some(request)
    }
}

/// A request in progress.
pub(super) struct RunningRequest {
    number: Arc<Number>,
    bytes: RequestBytes,
    /// Keeps the connection's slot.
    _busy: Busy,
}

impl RunningRequest {
    /// Wraps the body of the request, whose bytes count.
    pub(super) fn request_body<B>(&self, body: B) -> RequestBody<B> {
        RequestBody { body, bytes: self.bytes.clone() }
    }

    /// Returns the bytes that the request holds.
    pub(super) fn bytes(&self) -> RequestBytes {
        self.bytes.clone()
    }

    /// Wraps the body of its answer, until whose end it is in progress. The message has been
    /// handled, or is one of a stream.
    pub(super) fn body<B>(self, body: B) -> RunningBody<B> {
        self.bytes.free();
        RunningBody { body, _request: self }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.number.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request in progress.
pub(super) struct RequestBody<B> {
    body: B,
    bytes: RequestBytes,
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into)?;
        if let Some(data) = frame.data_ref()
            && let Err(error) = self.bytes.take(data.len())
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of the answer to a request in progress.
pub(super) struct RunningBody<B> {
    body: B,
    _request: RunningRequest,
}

impl<B: Body + Unpin> Body for RunningBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
