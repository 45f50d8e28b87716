//! Request and response bodies, within bounds.
//!
//! A request body is read as it arrives, with or without a length, up to a limit and within a time.
//! All bodies in memory together, responses included, share one budget. A body that exceeds it is
//! refused at once: a body that waited for room would occupy what it has.

mod caller;
mod response_parts;

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::caller::{Caller, CallerQuotas};
pub(crate) use self::response_parts::{ResponseParts, reserved};
use crate::limits::{BODIES_BYTES_MAX, BODY_TIMEOUT, DRAIN_BYTES_MAX, DRAIN_TIMEOUT};

/// The memory budget for bodies. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
}

/// A reserved part of a [`Budget`]; dropping it returns the memory.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
    /// The same bytes in the quotas of the caller.
    of_caller: Vec<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Whether anything is reserved.
    fn is_some(&self) -> bool {
        self.permit.is_some()
    }

    /// Merges another reservation of the same caller into this one.
    fn merge(&mut self, more: Self) {
        match (&mut self.permit, more.permit) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit @ None, more) => *permit = more,
            (Some(_), None) => {}
        }
        if self.of_caller.len() == more.of_caller.len() {
            let both = self.of_caller.iter_mut().zip(more.of_caller);
            both.for_each(|(permit, more)| permit.merge(more));
        } else {
            self.of_caller.extend(more.of_caller);
        }
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It exceeds the limit, in bytes.
    #[error("the body is over the limit of {0} bytes")]
    TooLong(usize),
    /// It did not arrive in time.
    #[error("the body was not complete within {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    /// The budget is exhausted; a retry may succeed.
    #[error("too many bodies are in progress")]
    NoRoom,
    /// The connection ended before the body did, or it is not valid HTTP.
    #[error("the body is not complete")]
    Broken,
}

impl BodyError {
    /// Returns the status of the answer.
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
    /// Reserves memory, for the current caller.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`].
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reservation, BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::NoRoom)?;
        let of_caller = Caller::reserve(bytes)?;
        match self.bytes.clone().try_acquire_many_owned(bytes) {
            Ok(permit) => Ok(Reservation { permit: Some(permit), of_caller }),
            Err(_) => Err(BodyError::NoRoom),
        }
    }

    /// Reads the body of a request, of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub(crate) async fn read(
        &self,
        head: &Parts,
        mut body: Body,
        limit: usize,
    ) -> Result<(Bytes, Reservation), BodyError> {
        let expects_continue = head.headers.contains_key(EXPECT);
        let reading = tokio::time::timeout(BODY_TIMEOUT, self.collect(&mut body, limit));
        let read = reading.await.unwrap_or(Err(BodyError::TooSlow));
        // A client that expects 100-continue has not sent the body yet.
        if matches!(read, Err(BodyError::TooLong(_) | BodyError::NoRoom)) && !expects_continue {
            drain(body).await;
        }
        read
    }

    async fn collect(
        &self,
        body: &mut Body,
        limit: usize,
    ) -> Result<(Bytes, Reservation), BodyError> {
        if body.size_hint().lower() > limit as u64 {
            return Err(BodyError::TooLong(limit));
        }
        let mut reservation = Reservation::default();
        // Copied, because a frame of one byte may keep a whole buffer of the connection alive.
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(BodyError::TooLong(limit));
            }
            if data.is_empty() {
                continue;
            }
            reservation.merge(self.reserve(data.len())?);
            match body.size_hint().exact() {
                // Allocates for the announced rest, but no more than 15 times what has arrived: the
                // announcement may be false.
                Some(rest) => {
                    let believed = 15 * (whole.len() + data.len());
                    whole.reserve_exact(data.len() + believed.min(rest as usize));
                }
                None => whole.reserve(data.len()),
            }
            whole.extend_from_slice(&data);
        }
        debug_assert!(whole.len() <= limit, "the limit is checked before each frame is added");
        Ok((Bytes::from(whole), reservation))
    }

    /// Creates a response body that keeps its reservation until it is sent.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`].
    pub(crate) fn answer(&self, bytes: Bytes) -> Result<Body, BodyError> {
        let mut parts = ResponseParts::default();
        let reservation = self.reserve(bytes.len())?;
        parts.push_reserved(bytes, reservation);
        Ok(parts.into_body())
    }
}

/// Reads and discards the rest of a body, so that its sender gets to read the answer.
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
    // A sender that takes longer is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

#[cfg(test)]
mod tests;
