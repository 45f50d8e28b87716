//! Whether a connection is of use to anybody.
//!
//! What counts are requests: that one begins, that a piece of a body is taken, either way, and that
//! one is being answered. Bytes do not: those of HTTP/2 alone, pings and their answers above all,
//! would keep a connection on which nothing is asked for as long as its peer likes, and one whose
//! answers nobody takes. That a head or a body comes too slowly is for others to notice.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dkv_base::places::Marker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// What has happened on a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    /// When something last did, in milliseconds since then.
    last_ms: AtomicU64,
    /// Requests that have no answer yet.
    running: AtomicU64,
    /// Told when the first request begins and the last one ends: a connection keeps its place for
    /// as long as it is of use.
    place: Option<Marker>,
}

impl Activity {
    /// Of a connection that has just begun, in that place.
    pub(crate) fn new(place: Option<Marker>) -> Arc<Self> {
        let (last_ms, running) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { begun: Instant::now(), last_ms, running, place })
    }

    /// A request has begun; it is answered when what this returns is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Running {
        if self.running.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(place) = &self.place
        {
            place.set_busy(true);
        }
        self.note();
        Running(Arc::clone(self))
    }

    fn note(&self) {
        let since_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since_ms, Ordering::Relaxed);
    }

    /// Waits until nothing has happened for so long.
    pub(crate) async fn idle(&self, patience: Duration) {
        loop {
            let last = self.begun + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let is_running = self.running.load(Ordering::Relaxed) > 0;
            let end = if is_running { Instant::now() } else { last } + patience;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A request that is being answered.
pub(crate) struct Running(Arc<Activity>);

impl Running {
    /// A body of this request or of its answer.
    pub(crate) fn body<B>(&self, body: B) -> Noted<B> {
        Noted { body, activity: Arc::clone(&self.0) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.note();
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(place) = &self.0.place
        {
            place.set_busy(false);
        }
    }
}

/// A body of which each piece that is taken is noted.
pub(crate) struct Noted<B> {
    body: B,
    activity: Arc<Activity>,
}

impl<B: Body + Unpin> Body for Noted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if poll.is_ready() {
            self.activity.note();
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
