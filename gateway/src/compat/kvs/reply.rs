//! The answers of `/kvs`: a status and a JSON object, as specified.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

/// An answer of `/kvs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    status: StatusCode,
    body: ReplyBody,
}

/// The body of an answer; its members have the order of the specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum ReplyBody {
    Written { replaced: u8, msg: &'static str },
    Value { msg: &'static str, value: String },
    Deleted { msg: &'static str },
    Error { msg: &'static str, error: String },
}

const SUCCESS: &str = "success";

impl Reply {
    /// The answer to a PUT.
    pub(super) fn written(replaced: bool) -> Self {
        let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
        Self { status, body: ReplyBody::Written { replaced: u8::from(replaced), msg: SUCCESS } }
    }

    /// The answer to a GET.
    pub(super) fn value(value: String) -> Self {
        Self { status: StatusCode::OK, body: ReplyBody::Value { msg: SUCCESS, value } }
    }

    /// The answer to a DELETE.
    pub(super) fn deleted() -> Self {
        Self { status: StatusCode::OK, body: ReplyBody::Deleted { msg: SUCCESS } }
    }

    /// The answer to a failed request.
    pub(super) fn error(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ReplyBody::Error { msg: "error", error: error.into() } }
    }

    /// The answer to a GET or DELETE of a missing key.
    pub(super) fn no_such_key() -> Self {
        Self::error(StatusCode::NOT_FOUND, "key does not exist")
    }

    /// The answer while the main instance or the network is down. A PUT or DELETE may have taken
    /// effect.
    pub(super) fn unavailable() -> Self {
        Self::error(StatusCode::NOT_FOUND, "service is not available")
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        // Strings and numbers always have a JSON form.
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
