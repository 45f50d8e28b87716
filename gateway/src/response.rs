//! Responses that several handlers share.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri};
use axum::response::IntoResponse;

use crate::body::ResponseParts;
use crate::problem::Problem;

/// Methods that some path of the gateway supports.
const ALL_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

/// Answers requests for paths that no route serves, and `OPTIONS *`, which asks about the server as
/// a whole (RFC 9110, section 9.3.7).
pub(crate) async fn fallback(method: Method, uri: Uri) -> Response<Body> {
    if method != Method::OPTIONS || uri.path() != "*" {
        return Problem::no_such_path().into_response();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(ALL_METHODS));
    response
}

/// Whether a method asks for a resource.
pub(crate) fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A response that no cache keeps.
pub(crate) fn document(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page of a list, with a link to the next one.
pub(crate) fn page_document(page: ResponseParts, next: Option<String>) -> Response<Body> {
    let mut response = document("application/json", page.into_body());
    // The target holds neither control characters nor angle brackets.
    let link = next.and_then(|next| HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).ok());
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// A document that only GET and HEAD may ask for.
///
/// # Errors
/// 405 for another method.
pub(crate) fn get_document(
    method: &Method,
    kind: &'static str,
    body: impl Into<Body>,
) -> Result<Response<Body>, Problem> {
    if !is_get(method) {
        return Err(Problem::method("GET, HEAD"));
    }
    Ok(document(kind, body))
}
