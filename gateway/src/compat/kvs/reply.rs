//! What `/kvs` answers: a status and a JSON object, as its document has them.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    status: StatusCode,
    body: Said,
}

/// Its body, with the members in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Said {
    Written { replaced: u8, msg: &'static str },
    Value { msg: &'static str, value: String },
    Deleted { msg: &'static str },
    Error { msg: &'static str, error: String },
}

const SUCCESS: &str = "success";

impl Reply {
    /// To a PUT.
    pub(super) fn written(replaced: bool) -> Self {
        let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
        Self { status, body: Said::Written { replaced: u8::from(replaced), msg: SUCCESS } }
    }

    /// To a GET.
    pub(super) fn value(value: String) -> Self {
        Self { status: StatusCode::OK, body: Said::Value { msg: SUCCESS, value } }
    }

    /// To a DELETE.
    pub(super) fn deleted() -> Self {
        Self { status: StatusCode::OK, body: Said::Deleted { msg: SUCCESS } }
    }

    /// That something went wrong.
    pub(super) fn error(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: Said::Error { msg: "error", error: error.into() } }
    }

    /// To a GET or DELETE of a key that is not there.
    pub(super) fn no_such_key() -> Self {
        Self::error(StatusCode::NOT_FOUND, "key does not exist")
    }

    /// The main instance, or the network, does not answer. A PUT or DELETE may have been done.
    pub(super) fn unavailable() -> Self {
        Self::error(StatusCode::NOT_FOUND, "service is not available")
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        // It has no map with keys of its own, so that nothing can be wrong with it.
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
