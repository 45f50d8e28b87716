//! The requests in progress on a connection: their number is bounded, and tells whether it is busy.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use dkv_base::slots::BusyFlag;
use hyper::body::{Body, Frame, SizeHint};

/// The requests in progress on one connection.
pub(super) struct Running {
    inner: Arc<Inner>,
}

struct Inner {
    number: AtomicUsize,
    max: usize,
    /// Marked busy from the first request in progress to the last: a busy connection keeps its
    /// slot.
    slot: BusyFlag,
}

impl Running {
    /// Begins to count, up to `max` at a time.
    pub(super) fn new(max: usize, slot: BusyFlag) -> Self {
        Self { inner: Arc::new(Inner { number: AtomicUsize::new(0), max, slot }) }
    }

    /// Counts a request until the returned value is dropped; `None` if there are too many.
    pub(super) fn begin(&self) -> Option<RunningRequest> {
        let before = self.inner.number.fetch_add(1, Ordering::Relaxed);
        let request = RunningRequest(Arc::clone(&self.inner));
        if before == 0 {
            self.inner.slot.set_busy(true);
        }
        (before < self.inner.max).then_some(request)
    }
}

/// A request in progress.
pub(super) struct RunningRequest(Arc<Inner>);

impl RunningRequest {
    /// Wraps the body of its answer, until whose end it is in progress.
    pub(super) fn body<B>(self, body: B) -> RunningBody<B> {
        RunningBody { body, _request: self }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        if self.0.number.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.slot.set_busy(false);
        }
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
