//! Bodies, within bounds.
//!
//! A body is read as it comes, with or without a length, up to a limit of its own and in a time of
//! its own; and all bodies in memory together, those of answers included, have one budget. What is
//! over the budget is refused at once: a body that waited for room would hold what it has.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use bytes::Bytes;
use dkv_api::HolderId;
use dkv_wire::bearer::{Bearer, Rights};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    ANSWER_PIECE_BYTES, BEARER_BODIES_BYTES_MAX, BODIES_BYTES_MAX, BODY_TIMEOUT, DRAIN_BYTES_MAX,
    DRAIN_TIMEOUT, READERS_BODIES_BYTES_MAX,
};

/// Room for bodies.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
}

/// Room that is taken, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// Of the shares of who asks.
    of_asker: Vec<OwnedSemaphorePermit>,
}

tokio::task_local! {
    /// Who asks, while its request is being answered.
    static ASKER: Asker;
}

/// Who asks, as far as bodies are concerned: the bearer of a token.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    shares: Vec<Arc<Semaphore>>,
    only_reads: bool,
}

/// The shares of all bearers of tokens.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Of those who may only read, together.
    readers: Arc<Semaphore>,
    bearers: Mutex<HashMap<HolderId, Weak<Semaphore>>>,
}

impl Default for Shares {
    fn default() -> Self {
        let readers = Arc::new(Semaphore::new(READERS_BODIES_BYTES_MAX));
        Self { readers, bearers: Mutex::default() }
    }
}

impl Shares {
    /// The bearer of a token, who asks something.
    pub(crate) fn of(&self, bearer: &Bearer) -> Asker {
        let mut bearers = self.bearers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bearers.get(&bearer.holder).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            bearers.retain(|_, share| share.strong_count() > 0);
            let own = Arc::new(Semaphore::new(BEARER_BODIES_BYTES_MAX));
            bearers.insert(bearer.holder, Arc::downgrade(&own));
            own
        });
        let only_reads = bearer.rights == Rights::Read;
        let readers = only_reads.then(|| Arc::clone(&self.readers));
        Asker { shares: [own].into_iter().chain(readers).collect(), only_reads }
    }
}

impl Asker {
    /// Has a request answered in its name.
    pub(crate) async fn ask<T>(self, answering: impl Future<Output = T>) -> T {
        ASKER.scope(self, answering).await
    }

    /// Whether who asks here may only read.
    pub(crate) fn only_reads() -> bool {
        ASKER.try_with(|asker| asker.only_reads).unwrap_or(false)
    }

    /// Takes its part of so many bytes.
    fn take(bytes: u32) -> Result<Vec<OwnedSemaphorePermit>, BodyError> {
        let shares = ASKER.try_with(|asker| asker.shares.clone()).unwrap_or_default();
        let take = |share: Arc<Semaphore>| share.try_acquire_many_owned(bytes);
        shares.into_iter().map(take).collect::<Result<_, _>>().map_err(|_| BodyError::NoRoom)
    }
}

impl Held {
    /// Holds that room too.
    fn add(&mut self, more: Self) {
        match (&mut self.permit, more.permit) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit @ None, more) => *permit = more,
            (Some(_), None) => {}
        }
        if self.of_asker.len() == more.of_asker.len() {
            let both = self.of_asker.iter_mut().zip(more.of_asker);
            both.for_each(|(permit, more)| permit.merge(more));
        } else {
            self.of_asker.extend(more.of_asker);
        }
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than this.
    #[error("the body is over the limit of {0} bytes")]
    TooLong(usize),
    /// It did not end in time.
    #[error("the body was not complete within {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    /// There is no room for it now.
    #[error("too many bodies are under way")]
    NoRoom,
    /// The connection ended before it, or it is not HTTP.
    #[error("the body is not complete")]
    Broken,
}

impl BodyError {
    /// The status that says so.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: Arc::new(Semaphore::new(BODIES_BYTES_MAX)) }
    }
}

impl Budget {
    /// Takes room for so many bytes, if there is any.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`].
    pub(crate) fn take(&self, bytes: usize) -> Result<Held, BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::NoRoom)?;
        let of_asker = Asker::take(bytes)?;
        match self.bytes.clone().try_acquire_many_owned(bytes) {
            Ok(permit) => Ok(Held { permit: Some(permit), of_asker }),
            Err(_) => Err(BodyError::NoRoom),
        }
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub(crate) async fn read(
        &self,
        head: &Parts,
        mut body: Body,
        limit: usize,
    ) -> Result<(Bytes, Held), BodyError> {
        let waits = head.headers.contains_key(EXPECT);
        let reading = tokio::time::timeout(BODY_TIMEOUT, self.collect(&mut body, limit));
        let read = reading.await.unwrap_or(Err(BodyError::TooSlow));
        // Whoever waits for a word before sending is told by the answer.
        if matches!(read, Err(BodyError::TooLong(_) | BodyError::NoRoom)) && !waits {
            drain(body).await;
        }
        read
    }

    async fn collect(&self, body: &mut Body, limit: usize) -> Result<(Bytes, Held), BodyError> {
        if body.size_hint().lower() > limit as u64 {
            return Err(BodyError::TooLong(limit));
        }
        let mut held = Held::default();
        // Copied, because a part may be a byte that keeps a whole buffer of the connection alive.
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(BodyError::TooLong(limit));
            }
            if data.is_empty() {
                continue;
            }
            held.add(self.take(data.len())?);
            match body.size_hint().exact() {
                // Room for what is said to come, as far as enough has come to believe that.
                Some(rest) => {
                    let believed = 15 * (whole.len() + data.len());
                    whole.reserve_exact(data.len() + believed.min(rest as usize));
                }
                None => whole.reserve(data.len()),
            }
            whole.extend_from_slice(&data);
        }
        Ok((Bytes::from(whole), held))
    }

    /// A body of an answer, which holds its room until all of it was sent.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`].
    pub(crate) fn answer(&self, bytes: Bytes) -> Result<Body, BodyError> {
        let mut pieces = Pieces::default();
        let held = self.take(bytes.len())?;
        pieces.push_held(bytes, held);
        Ok(pieces.into_body())
    }
}

/// A body of an answer that is put together piece by piece. A long one would otherwise be there
/// twice before it is sent, once in pieces and once as a whole.
#[derive(Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

/// Bytes that hold their room for as long as they are anywhere. A connection takes a body long
/// before it has sent it.
struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pieces {
    /// Adds a piece so short that it needs no room of its own.
    pub(crate) fn push(&mut self, piece: impl Into<Bytes>) {
        self.push_held(piece.into(), Held::default());
    }

    /// Adds a piece with its room.
    pub(crate) fn push_held(&mut self, bytes: Bytes, held: Held) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        self.pieces.push_back(match held.permit {
            Some(_) => Bytes::from_owner(HeldBytes { bytes, _held: held }),
            None => bytes,
        });
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The body, of which each piece holds its room until it was sent.
    pub(crate) fn into_body(self) -> Body {
        Body::new(Answer(self))
    }
}

/// Reads what is still coming, so that whoever sends it gets to read the answer.
pub(crate) async fn drain(mut body: Body) {
    let reading = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends longer than that is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

/// See [`Pieces::into_body`].
struct Answer(Pieces);

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Pieces { pieces, bytes } = &mut self.0;
        let piece = match pieces.front_mut() {
            Some(long) if long.len() > ANSWER_PIECE_BYTES => {
                Some(long.split_to(ANSWER_PIECE_BYTES))
            }
            _ => pieces.pop_front(),
        };
        *bytes -= piece.as_ref().map_or(0, Bytes::len);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.bytes as u64)
    }
}

#[cfg(test)]
mod tests;
