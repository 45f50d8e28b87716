//! What `/kvs` answers: a status and a JSON object, as its document has them.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    status: StatusCode,
    body: Value,
}

impl Reply {
    /// To a PUT.
    pub(super) fn written(replaced: bool) -> Self {
        let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
        Self { status, body: json!({ "replaced": u8::from(replaced), "msg": "success" }) }
    }

    /// To a GET.
    pub(super) fn value(value: &str) -> Self {
        Self { status: StatusCode::OK, body: json!({ "msg": "success", "value": value }) }
    }

    /// To a DELETE.
    pub(super) fn deleted() -> Self {
        Self { status: StatusCode::OK, body: json!({ "msg": "success" }) }
    }

    /// That something went wrong.
    pub(super) fn error(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: json!({ "msg": "error", "error": error.into() }) }
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
        let mut response = Response::new(Body::from(self.body.to_string()));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
