//! Response bodies in parts, each with its reserved memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::Reservation;
use crate::limits::ANSWER_PIECE_BYTES;

/// A response body that is assembled part by part. Concatenating the parts would need the memory of
/// a long body twice.
#[derive(Default)]
pub(crate) struct ResponseParts {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

/// Bytes that keep their reservation for as long as any reference to them exists. A connection
/// takes a body long before it has sent it.
struct ReservedBytes {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns bytes that keep their reservation until they are sent.
pub(crate) fn reserved(bytes: Bytes, reservation: Reservation) -> Bytes {
    Bytes::from_owner(ReservedBytes { bytes, _reservation: reservation })
}

impl ResponseParts {
    /// Adds a part that is too short to need a reservation.
    pub(crate) fn push(&mut self, part: impl Into<Bytes>) {
        self.push_reserved(part.into(), Reservation::default());
    }

    /// Adds a part with its reservation.
    pub(crate) fn push_reserved(&mut self, bytes: Bytes, reservation: Reservation) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        self.parts.push_back(match reservation.is_some() {
            true => reserved(bytes, reservation),
            false => bytes,
        });
    }

    /// Returns the number of bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Returns the body. Each part keeps its reservation until it is sent.
    pub(crate) fn into_body(self) -> Body {
        Body::new(PartsBody(self))
    }
}

/// See [`ResponseParts::into_body`].
struct PartsBody(ResponseParts);

impl hyper::body::Body for PartsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let ResponseParts { parts, bytes } = &mut self.0;
        let part = match parts.front_mut() {
            Some(long) if long.len() > ANSWER_PIECE_BYTES => {
                Some(long.split_to(ANSWER_PIECE_BYTES))
            }
            _ => parts.pop_front(),
        };
        *bytes -= part.as_ref().map_or(0, Bytes::len);
        debug_assert!(part.is_some() || *bytes == 0, "the size hint counts every part");
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.bytes as u64)
    }
}
