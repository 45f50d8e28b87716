//! The activity of a connection, by which idle ones are closed.
//!
//! Only requests count: the start of one, each part of a body that moves either way, and the time
//! until the answer. Bytes do not count: those of HTTP/2 alone, above all pings and their answers,
//! would keep a connection without requests, or one whose answers its peer never reads, for as long
//! as the peer likes. Heads and bodies that arrive too slowly have time limits elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dkv_base::slots::{Busy, BusyFlag};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// The activity of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    /// Time of the last activity, in milliseconds since `begun`.
    last_ms: AtomicU64,
    /// Requests without an answer yet.
    running: AtomicU64,
    /// Marked busy by each request in progress: a busy connection keeps its slot.
    slot: Option<BusyFlag>,
}

impl Activity {
    /// Starts to track a new connection in a slot.
    pub(crate) fn new(slot: Option<BusyFlag>) -> Arc<Self> {
        let (last_ms, running) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { begun: Instant::now(), last_ms, running, slot })
    }

    /// Records a new request, which is answered once the returned value is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> RunningRequest {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.touch();
        RunningRequest {
            activity: Arc::clone(self),
            _busy: self.slot.as_ref().and_then(BusyFlag::begin),
        }
    }

    fn touch(&self) {
        let since_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since_ms, Ordering::Relaxed);
    }

    /// Completes once the connection has been idle for `timeout`.
    pub(crate) async fn idle(&self, timeout: Duration) {
        loop {
            let last = self.begun + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let is_running = self.running.load(Ordering::Relaxed) > 0;
            let end = if is_running { Instant::now() } else { last } + timeout;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A request in progress.
pub(crate) struct RunningRequest {
    activity: Arc<Activity>,
    /// Keeps the connection's slot.
    _busy: Option<Busy>,
}

impl RunningRequest {
    /// Wraps the body of this request or of its answer.
    pub(crate) fn body<B>(&self, body: B) -> TrackedBody<B> {
        TrackedBody { body, activity: Arc::clone(&self.activity) }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body whose frames count as activity.
pub(crate) struct TrackedBody<B> {
    body: B,
    activity: Arc<Activity>,
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if poll.is_ready() {
            self.activity.touch();
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
