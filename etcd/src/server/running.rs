//! The requests in progress on a connection: their number is bounded, and tells whether it is busy.
//! Their bytes are bounded over all connections. Neither a message nor an answer may take for ever.

mod reading_rate;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dkv_base::slots::{Busy, BusyFlag};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use self::reading_rate::{ReadingRate, ReadingRates};
use crate::budget::{RequestBytes, Shares};
use crate::error::{Code, EtcdError};
use crate::http::BodyError;
use crate::limits::{ANSWER_PIECE_BYTES, ANSWER_SMALL_BYTES, BODY_TIMEOUT};

/// The requests in progress on one connection.
pub(super) struct Running {
    connection: Arc<Connection>,
}

struct Connection {
    now: AtomicUsize,
    max: usize,
    /// Marked busy by each request in progress: a busy connection keeps its slot.
    slot: BusyFlag,
    rates: ReadingRates,
}

impl Running {
    /// Begins to count, up to `max` at a time.
    pub(super) fn new(max: usize, slot: BusyFlag) -> Self {
        let (now, rates) = Default::default();
        Self { connection: Arc::new(Connection { now, max, slot, rates }) }
    }

    /// Counts a request until the returned value is dropped; `None` if there are too many.
    pub(super) fn begin(&self, shares: Arc<Shares>) -> Option<RunningRequest> {
        let before = self.connection.now.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::clone(&self.connection);
        let bytes = RequestBytes::new(shares);
        let _busy = self.connection.slot.begin();
        let request = RunningRequest { connection, bytes, _busy };
        (before < self.connection.max).then_some(request)
    }

    /// Completes once the peer reads its answers too slowly.
    pub(super) async fn overdue(&self) {
        self.connection.rates.overdue().await;
    }
}

/// A request in progress.
pub(super) struct RunningRequest {
    connection: Arc<Connection>,
    bytes: RequestBytes,
    /// Keeps the connection's slot.
    _busy: Option<Busy>,
}

impl RunningRequest {
    /// Wraps the body of the request, whose bytes count. It is one message, or else many, between
    /// which there may be any time.
    pub(super) fn request_body<B>(&self, body: B, is_one: bool) -> RequestBody<B> {
        RequestBody { body, bytes: self.bytes.clone(), is_one, limit: None }
    }

    /// Returns the bytes that the request holds.
    pub(super) fn bytes(&self) -> RequestBytes {
        self.bytes.clone()
    }

    /// Wraps the body of its answer, until whose end it is in progress. The message has been
    /// handled, or is one of a stream.
    pub(super) fn body<B>(self, body: B) -> RunningBody<B> {
        self.bytes.free();
        RunningBody { body, request: self, rest: None }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.connection.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request in progress.
pub(super) struct RequestBody<B> {
    body: B,
    bytes: RequestBytes,
    is_one: bool,
    /// When the message must have arrived, and the number of those before it; none while there is
    /// nothing to wait for.
    limit: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<B> RequestBody<B> {
    /// Returns whether the message has taken too long.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let handled = self.bytes.handled();
        if !self.is_one && !self.bytes.has_message() {
            self.limit = None;
            return false;
        }
        let (limit, of) =
            self.limit.get_or_insert_with(|| (Box::pin(sleep(BODY_TIMEOUT)), handled));
        if *of != handled {
            (*limit, *of) = (Box::pin(sleep(BODY_TIMEOUT)), handled);
        }
        limit.as_mut().poll(context).is_ready()
    }
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
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => frame.map_err(Into::into)?,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if self.is_late(context) => {
                let why = "etcdserver: the message took too long";
                let late = EtcdError::new(Code::DeadlineExceeded, why);
                return Poll::Ready(Some(Err(late.into())));
            }
            Poll::Pending => return Poll::Pending,
        };
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

/// The body of the answer to a request in progress. Its bytes count until they have been sent.
pub(super) struct RunningBody<B> {
    body: B,
    request: RunningRequest,
    /// The rest of a frame.
    rest: Option<(Bytes, Arc<ReadingRate>)>,
}

impl<B> RunningBody<B> {
    /// Returns a part of a frame, and keeps the rest.
    fn part(&mut self, data: Bytes) -> Bytes {
        let bytes = &self.request.bytes;
        // All messages of a stream that have been taken are in this frame.
        let taken = bytes.is_stream().then(|| bytes.take_part());
        if data.len() <= ANSWER_SMALL_BYTES {
            return data;
        }
        // A stream may be quiet for long, so each of its frames has its own.
        let rate = self.request.connection.rates.begin();
        let whole = bytes.keep(data, (taken, Arc::clone(&rate)));
        self.rest = Some((whole, rate));
        self.next_piece().unwrap_or_default()
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let (rest, rate) = self.rest.as_mut()?;
        let piece = rest.split_to(rest.len().min(ANSWER_PIECE_BYTES));
        rate.note(piece.len());
        if rest.is_empty() {
            self.rest = None;
        }
        Some(piece)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RunningBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.part(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |(rest, _)| rest.len() as u64);
        let (of_body, mut hint) = (self.body.size_hint(), SizeHint::new());
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
