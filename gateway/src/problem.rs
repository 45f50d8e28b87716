//! Errors as problem details (RFC 9457).
//!
//! A problem has no type of its own (`about:blank`), so its title is that of the status. Beside the
//! standard members it has `code`, a word for programs, and `effect`: `none`; `unknown` where the
//! request may have had an effect, or may yet; or `done` where a write was done but another part of
//! the request was not.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use dkv_api::{Error, Receipt, Revision};
use serde_json::json;

use crate::body::BodyError;
use crate::limits::RETRY_AFTER_S;
use crate::preconditions::{self, PreconditionError};
use crate::query::QueryError;
use crate::receipt;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// A line for people.
    pub detail: String,
    /// Whether the request had an effect.
    pub effect: Effect,
    receipt: Option<Box<Receipt>>,
    current: Option<Revision>,
    fact: Option<Fact>,
    /// Value of `Allow`.
    allowed: Option<&'static str>,
    /// Seconds of `Retry-After`, if it is sent.
    retry: Option<u32>,
}

/// A number for programs, of some kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    /// The first revision of the history, if the request was about an earlier one.
    Floor(Revision),
    /// The latest revision, if the request was about a later one.
    Latest(Revision),
    /// The operation that could not be executed, counted from one.
    Operation(u32),
}

/// Whether a failed request has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has not and will not.
    None,
    /// It may have, or may yet.
    Unknown,
    /// It has.
    Done,
}

impl Effect {
    /// Returns the value of the member `effect`.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}

impl Problem {
    /// Creates a problem without an effect.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            effect: Effect::None,
            receipt: None,
            current: None,
            fact: None,
            allowed: None,
            retry: None,
        }
    }

    /// 400: the request is malformed.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 404: the path does not exist.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no-such-path", "this path does not exist")
    }

    /// 405, with the allowed methods.
    pub fn method(allowed: &'static str) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut problem = Self::new(status, "method", format!("method not allowed; use {allowed}"));
        problem.allowed = Some(allowed);
        problem
    }

    /// 412: a precondition does not hold.
    pub fn precondition(current: Option<Revision>, receipt: Option<Receipt>) -> Self {
        let status = StatusCode::PRECONDITION_FAILED;
        let detail = conflict_text(current);
        Self {
            current,
            receipt: receipt.map(Box::new),
            ..Self::new(status, "precondition-failed", detail)
        }
    }

    /// 503: nothing has changed, and a retry may succeed.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.retry = Some(RETRY_AFTER_S);
        problem
    }

    /// 429: the user asks for more than its policies let it.
    pub fn limited(detail: impl Into<String>, retry_after: Duration) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "limited", detail);
        // Rounded up, so that a caller who waits is not refused again.
        problem.retry =
            Some(u32::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(1).max(1));
        problem
    }

    /// Adds the receipt of the answer.
    pub(crate) fn with_receipt(self, receipt: Receipt) -> Self {
        Self { receipt: Some(Box::new(receipt)), ..self }
    }

    /// Converts the error of a body that could not be read.
    pub(crate) fn of_body(error: BodyError) -> Self {
        match error.status() {
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(error.to_string()),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(error.status(), "value-too-large", error.to_string())
            }
            status => Self::new(status, "body", error.to_string()),
        }
    }

    /// Converts an error of the client library. `conditional` says whether the header had a
    /// precondition.
    pub fn from_error(error: Error, conditional: bool) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound { receipt } => {
                let problem =
                    Self::new(StatusCode::NOT_FOUND, "key-not-found", "the key does not exist");
                Self { receipt: Some(Box::new(receipt)), ..problem }
            }
            Error::Conflict { current, receipt } if conditional => {
                Self::precondition(current, Some(receipt))
            }
            Error::Conflict { current, receipt } => {
                let problem = Self::new(StatusCode::CONFLICT, "conflict", conflict_text(current));
                Self { current, receipt: Some(Box::new(receipt)), ..problem }
            }
            Error::Compacted { floor } => {
                let problem = Self::new(StatusCode::GONE, "compacted", text);
                Self { fact: Some(Fact::Floor(floor)), ..problem }
            }
            Error::NotYet { latest, .. } => {
                let problem = Self::new(StatusCode::BAD_REQUEST, "not-yet", text);
                Self { fact: Some(Fact::Latest(latest)), ..problem }
            }
            Error::Invalid(why) => Self::invalid(why),
            Error::TooLarge { ref what, .. } if what == "key" => {
                Self::new(StatusCode::URI_TOO_LONG, "key-too-long", text)
            }
            Error::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "value-too-large", text)
            }
            Error::Unavailable(why) => Self::unavailable(why),
            Error::Limited { why, retry_after } => Self::limited(why, retry_after),
            Error::Unknown(why) => {
                let detail = format!(
                    "the write may or may not have taken effect, or may yet: {why}; read the key to find out"
                );
                let problem = Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", detail);
                Self { effect: Effect::Unknown, ..problem }
            }
            Error::Incomplete { written, .. } => {
                let problem = Self::new(StatusCode::GATEWAY_TIMEOUT, "incomplete", text);
                let receipt = Some(Box::new(written.receipt));
                Self { receipt, effect: Effect::Done, ..problem }
            }
            Error::OverQuota { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "over-quota", text)
            }
            Error::NoKeyspace { .. } => {
                Self::new(StatusCode::NOT_FOUND, "keyspace-not-found", text)
            }
            Error::Unfit { operation, why } => {
                let number = operation.saturating_add(1);
                let text = format!("nothing was changed: operation {number}: {why}");
                let problem = Self::new(StatusCode::CONFLICT, "unfit", text);
                Self { fact: Some(Fact::Operation(number)), ..problem }
            }
            Error::NoLease { .. } => Self::new(StatusCode::CONFLICT, "no-lease", text),
            Error::TooManyLeases { .. } => Self::new(StatusCode::CONFLICT, "too-many-leases", text),
            Error::TtlOutOfBounds { .. } => Self::invalid(text),
            Error::SeveralShards => Self::new(StatusCode::BAD_REQUEST, "several-shards", text),
            Error::Denied(why) => Self::new(StatusCode::FORBIDDEN, "denied", why),
            other => {
                let effect = match other.may_have_had_effect() {
                    true => Effect::Unknown,
                    false => Effect::None,
                };
                let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text);
                Self { effect, ..problem }
            }
        }
    }

    /// Returns the JSON document.
    pub fn document(&self) -> serde_json::Value {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "effect": self.effect.word(),
        });
        if let Some(current) = self.current {
            document["current_revision"] = current.0.into();
        }
        match self.fact {
            Some(Fact::Floor(floor)) => document["floor_revision"] = floor.0.into(),
            Some(Fact::Latest(latest)) => document["latest_revision"] = latest.0.into(),
            Some(Fact::Operation(number)) => document["operation"] = number.into(),
            None => {}
        }
        document
    }
}

fn conflict_text(current: Option<Revision>) -> String {
    match current {
        Some(revision) => format!("the key is at revision {revision}"),
        None => "the condition does not hold: the key has no value with this entity tag".to_owned(),
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<PreconditionError> for Problem {
    fn from(error: PreconditionError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.document().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(receipt) = &self.receipt {
            receipt::insert(headers, receipt);
        }
        if let Some(current) = self.current
            && let Ok(tag) = HeaderValue::from_str(&preconditions::entity_tag(current))
        {
            headers.insert(ETAG, tag);
        }
        if let Some(allowed) = self.allowed {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(seconds) = self.retry {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
