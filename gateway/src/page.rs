//! The page at `/`: the network at a glance, and a browser for keys.
//!
//! The gateway looks at the network once a second while somebody has the page open, and more seldom
//! while nobody has. What it sees it keeps within bounds ([`history`]), so that a tab that is
//! opened after a failover shows that too, and tells every tab as it happens ([`broadcast`]), as
//! server-sent events. What a state is, and what an event, is decided in plain code ([`health`],
//! [`events`]).
//!
//! `/page/events` is the page's own and may change with it; programs ask `/v1/status` and
//! `/metrics`.

mod health;
mod events;
mod history;
mod broadcast;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, Response};
use axum::response::IntoResponse;
use axum::routing::any;

pub(crate) use self::broadcast::{Hub, run};
use crate::access::Again;
use crate::app::Gateway;
use crate::monitoring::file;
use crate::problem::Problem;
use crate::store::Store;

/// What the page may load: its own files, and what it asks this gateway.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where it is told what happens.
const STREAM: &str = "/page/events";

/// Its files below `/page/`.
const FILES: [(&str, &str); 10] = [
    ("base.css", include_str!("page/web/base.css")),
    ("parts.css", include_str!("page/web/parts.css")),
    ("base.js", include_str!("page/web/base.js")),
    ("ask.js", include_str!("page/web/ask.js")),
    ("charts.js", include_str!("page/web/charts.js")),
    ("overview.js", include_str!("page/web/overview.js")),
    ("nodes.js", include_str!("page/web/nodes.js")),
    ("keys.js", include_str!("page/web/keys.js")),
    ("feed.js", include_str!("page/web/feed.js")),
    ("tabs.js", include_str!("page/web/tabs.js")),
];

/// The paths of this module.
pub(crate) fn routes<S: Store>() -> Router<Gateway<S>> {
    Router::new()
        .route("/", any(page))
        .route("/page/{name}", any(part))
        .route(STREAM, any(stream::<S>))
}

/// Whether a path is one of the page's files, which tell nothing of the store.
pub(crate) fn is_file(path: &str) -> bool {
    path.strip_prefix("/page/").is_some_and(|name| FILES.iter().any(|(known, _)| *known == name))
}

/// Whether the answer at a path goes on for as long as its reader likes.
pub(crate) fn is_stream(path: &str) -> bool {
    path == STREAM
}

async fn page(method: Method) -> Response<Body> {
    let mut response =
        file(&method, "text/html; charset=utf-8", include_str!("page/web/page.html"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

async fn part(method: Method, Path(name): Path<String>) -> Response<Body> {
    let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        return Problem::no_such_path().into_response();
    };
    let kind = match name.ends_with(".css") {
        true => "text/css; charset=utf-8",
        false => "text/javascript; charset=utf-8",
    };
    file(&method, kind, *text)
}

async fn stream<S: Store>(
    State(gateway): State<Gateway<S>>,
    again: Option<Extension<Again>>,
    method: Method,
) -> Response<Body> {
    if method != Method::GET {
        return Problem::method("GET").into_response();
    }
    let Some(body) = gateway.hub.tell(again.map(|Extension(again)| again)) else {
        return Problem::unavailable("too many pages are open").into_response();
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that collect answers are asked not to.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}
