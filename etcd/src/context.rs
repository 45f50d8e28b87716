//! What a request says beside its message.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::budget::{RequestBytes, Taken};
use crate::error::EtcdError;

/// Who asks, and how.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The token of etcd's own authentication: metadata `token`, or header `authorization`.
    pub token: Option<String>,
    /// The common name of the verified client certificate. The JSON gateway has none, as with etcd.
    pub certificate_name: Option<String>,
    /// Whether the caller wants an error while there is no leader: metadata `hasleader: true`.
    pub requires_leader: bool,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The bytes that the request holds; none of the face's own requests.
    pub(crate) bytes: Option<RequestBytes>,
}

impl Context {
    /// Returns the time that is left to answer; `None` if the caller set no limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Notes that the request will wait for long, and needs its message no more.
    pub(crate) fn begin_to_wait(&self) {
        if let Some(held) = &self.bytes {
            held.free();
        }
    }

    /// Takes the place of a watch, until the returned value is dropped.
    ///
    /// # Errors
    /// The caller has as many as it may, or all callers together.
    pub(crate) fn take_watch(&self) -> Result<Option<Taken>, EtcdError> {
        self.bytes.as_ref().map(RequestBytes::take_watch).transpose()
    }

    /// Takes the place of one who shows a password, until the returned value is dropped.
    ///
    /// # Errors
    /// The caller has as many as it may, or all callers together.
    pub(crate) fn take_login(&self) -> Result<Option<Taken>, EtcdError> {
        self.bytes.as_ref().map(RequestBytes::take_login).transpose()
    }

    /// Returns the address of the caller.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.bytes.as_ref().map(RequestBytes::address)
    }

    /// Takes memory so that the answer may have this many bytes, until it has been sent.
    ///
    /// # Errors
    /// The caller has too many, or all answers together.
    pub(crate) fn take_answer(&self, bytes: usize) -> Result<(), EtcdError> {
        self.bytes.as_ref().map_or(Ok(()), |held| held.take_answer(bytes))
    }
}
