//! The page at `/`: the network at a glance, and a browser for keys.
//!
//! The gateway samples the network once a second while a page is open, and less often otherwise
//! ([`sampler`]). It keeps a bounded history ([`history`]), so that a page opened after a failover
//! shows that failover too, and sends news to every open page as server-sent events
//! ([`broadcast`]). Plain code decides what the state is ([`health`]) and what counts as an event
//! ([`events`]).
//!
//! `/page/events` belongs to the page and may change with it; programs use `/v1/status` and
//! `/metrics`.

mod health;
mod events;
mod history;
mod broadcast;
mod sampler;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, Response};
use axum::routing::any;

pub(crate) use self::broadcast::Broadcaster;
pub(crate) use self::sampler::sample;
use crate::access::Recheck;
use crate::problem::Problem;
use crate::response::get_document;

/// The policy of the page: it may load its own files, and ask this gateway.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The stream of news for pages.
const STREAM: &str = "/page/events";

/// The files of the page, below `/page/`.
const FILES: [(&str, &str); 13] = [
    ("base.css", include_str!("page/web/base.css")),
    ("parts.css", include_str!("page/web/parts.css")),
    ("keys.css", include_str!("page/web/keys.css")),
    ("base.js", include_str!("page/web/base.js")),
    ("api.js", include_str!("page/web/api.js")),
    ("charts.js", include_str!("page/web/charts.js")),
    ("overview.js", include_str!("page/web/overview.js")),
    ("nodes.js", include_str!("page/web/nodes.js")),
    ("keys.js", include_str!("page/web/keys.js")),
    ("versions.js", include_str!("page/web/versions.js")),
    ("follow.js", include_str!("page/web/follow.js")),
    ("stream.js", include_str!("page/web/stream.js")),
    ("tabs.js", include_str!("page/web/tabs.js")),
];

/// Returns the routes of this module.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(broadcaster: Arc<Broadcaster>) -> Router<S> {
    let stream = async move |recheck: Option<Extension<Recheck>>, method: Method| {
        stream(&broadcaster, recheck.map(|Extension(recheck)| recheck), &method)
    };
    Router::new()
        .route("/", any(page))
        .route("/page/{name}", any(page_file))
        .route(STREAM, any(stream))
}

/// Whether a path is one of the page's files, which reveal nothing of the store.
pub(crate) fn is_file(path: &str) -> bool {
    path.strip_prefix("/page/").is_some_and(|name| FILES.iter().any(|(known, _)| *known == name))
}

/// Whether the answer at a path goes on until its reader leaves.
pub(crate) fn is_stream(path: &str) -> bool {
    path == STREAM
}

async fn page(method: Method) -> Result<Response<Body>, Problem> {
    let html = include_str!("page/web/page.html");
    let mut response = get_document(&method, "text/html; charset=utf-8", html)?;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

async fn page_file(method: Method, Path(name): Path<String>) -> Result<Response<Body>, Problem> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    let (name, text) = file.ok_or_else(Problem::no_such_path)?;
    let kind = match name.ends_with(".css") {
        true => "text/css; charset=utf-8",
        false => "text/javascript; charset=utf-8",
    };
    get_document(&method, kind, *text)
}

fn stream(
    broadcaster: &Arc<Broadcaster>,
    recheck: Option<Recheck>,
    method: &Method,
) -> Result<Response<Body>, Problem> {
    if *method != Method::GET {
        return Err(Problem::method("GET"));
    }
    let Some(body) = broadcaster.subscribe(recheck) else {
        return Err(Problem::unavailable("too many pages are open"));
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Asks proxies not to buffer the stream.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    Ok(response)
}
