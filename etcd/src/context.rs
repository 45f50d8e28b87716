//! What a request says beside its message.

use std::time::{Duration, Instant};

/// Who asks, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The token of etcd's own authentication: metadata `token`, or header `authorization`.
    pub token: Option<String>,
    /// The common name of the verified client certificate. The JSON gateway has none, as with etcd.
    pub certificate_name: Option<String>,
    /// Whether the caller wants an error while there is no leader: metadata `hasleader: true`.
    pub requires_leader: bool,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

impl Context {
    /// Returns the time that is left to answer; `None` if the caller set no limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
