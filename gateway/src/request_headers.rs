//! Header fields that change what a request means.
//!
//! The gateway honours each of them or refuses the request; it ignores a field that RFC 9110 allows
//! to be ignored only where that cannot make an answer wrong. These rules hold for every path:
//!
//! | field | rule |
//! |---|---|
//! | `Content-Encoding` | 415 unless `identity`: values are stored and returned as they were sent |
//! | `Transfer-Encoding` | 501 unless `chunked`; beside `Content-Length` it wins, and the connection ends |
//! | `Content-Range` of a PUT | 400, as RFC 9110, section 14.5, requires: values are written whole |
//! | `Expect` | 417 unless `100-continue` |
//! | `X-HTTP-Method-Override` and the like | 400 if it differs from the method of the request |
//! | `If-Match`, `If-None-Match` | for keys, see [`crate::preconditions`]; nothing else has an entity tag |
//!
//! Ignored, because a value has one representation and no date: `Accept` and the like, `Range`,
//! `If-Range`, `If-Modified-Since`, `If-Unmodified-Since` (RFC 9110, sections 12.4.1, 14.2, 13.1.3
//! and 13.1.4), `Content-Type`, `Content-Language`, `Content-Location`, `Prefer`, `TE`, `Trailer`,
//! `Upgrade`, `Cache-Control`, `Pragma`, `Max-Forwards`, `From`, `Via`, and digests.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, EXPECT, IF_MATCH, IF_NONE_MATCH,
    TRANSFER_ENCODING,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;

use crate::body::drain;
use crate::problem::Problem;

/// Fields by which some programs ask for a method other than the one they send.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method-override", "x-http-method", "x-method-override"];

/// Passes a request on, or refuses it.
pub(crate) async fn check(request: Request, next: Next) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Err(problem) = check_head(&head) {
        // A client that expects 100-continue has not sent the body yet.
        if !head.headers.contains_key(EXPECT) {
            drain(body).await;
        }
        let is_encoded = problem.status == StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let mut response = problem.into_response();
        if is_encoded {
            let identity = HeaderValue::from_static("identity");
            response.headers_mut().insert(ACCEPT_ENCODING, identity);
        }
        return response;
    }
    let has_tag = is_key(head.uri.path());
    let (method, headers) = (head.method.clone(), head.headers.clone());
    let response = next.run(Request::from_parts(head, body)).await;
    if has_tag || !is_safe(&method) || !response.status().is_success() {
        return response;
    }
    apply_preconditions_without_tag(&headers, response)
}

fn check_head(head: &Parts) -> Result<(), Problem> {
    let Parts { method, headers, .. } = head;
    let is = |name: &HeaderName, accepted: &str| {
        let mut parts =
            headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|it| *it == b','));
        parts.all(|part| {
            let part = part.trim_ascii();
            part.is_empty() || part.eq_ignore_ascii_case(accepted.as_bytes())
        })
    };
    let refuse = |status, code, why: &str| Err(Problem::new(status, code, why));
    if !is(&EXPECT, "100-continue") {
        let why = "the only supported expectation is 100-continue";
        return refuse(StatusCode::EXPECTATION_FAILED, "expectation", why);
    }
    if !is(&TRANSFER_ENCODING, "chunked") {
        let why = "the only supported Transfer-Encoding is chunked";
        return refuse(StatusCode::NOT_IMPLEMENTED, "transfer-encoding", why);
    }
    let is_method =
        |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(method.as_str().as_bytes());
    for name in METHOD_OVERRIDES {
        if !headers.get_all(name).iter().all(is_method) {
            return Err(Problem::invalid(format!(
                "{name} is not supported; send that method itself"
            )));
        }
    }
    if is_safe(method) {
        return Ok(());
    }
    if !is(&CONTENT_ENCODING, "identity") {
        let why = "Content-Encoding is not supported; send the body uncompressed";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding", why);
    }
    if method == Method::PUT && headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::invalid("Content-Range is not supported: values are written whole"));
    }
    let path = head.uri.path();
    let writes =
        matches!(path, "/v1/batch" | "/set" | "/fetch" | "/query") || path.starts_with("/kvs/");
    if writes && (headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH)) {
        return Err(Problem::invalid("If-Match and If-None-Match apply only to /v1/kv/KEY"));
    }
    Ok(())
}

fn is_key(path: &str) -> bool {
    path.starts_with("/v1/kv/")
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Applies the preconditions of a read to an existing resource that has no entity tag.
fn apply_preconditions_without_tag(
    headers: &HeaderMap,
    response: Response<Body>,
) -> Response<Body> {
    let is_any = |value: &HeaderValue| value.as_bytes().trim_ascii() == b"*";
    if headers.get_all(IF_MATCH).iter().any(|value| !is_any(value)) {
        let status = StatusCode::PRECONDITION_FAILED;
        let why = "this resource has no entity tag";
        return Problem::new(status, "precondition-failed", why).into_response();
    }
    if headers.get_all(IF_NONE_MATCH).iter().any(is_any) {
        let (mut parts, _) = response.into_parts();
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(axum::http::header::CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    response
}

#[cfg(test)]
mod tests;
