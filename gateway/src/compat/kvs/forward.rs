//! An instance of `/kvs` without a store: it forwards each request to the main instance over HTTP,
//! and passes on the answer.
//!
//! It forwards a request once and never retries, because a repeated PUT would report that it
//! replaced a value. A main instance that cannot be reached, does not answer in time, or breaks off
//! its answer counts as down. Connections are kept while it is up, and opened anew when it is back.
//!
//! A forwarded request is never forwarded again (its `Via` field marks it; RFC 9110, section
//! 7.6.3), so instances that name each other, or one that names itself, do not loop.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, VIA};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, Response, Uri};
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{Reply, refuse_body};
use crate::body::{BodyError, Budget};
use crate::limits::{
    FORWARD_ANSWER_BYTES_MAX, FORWARD_CONNECT_TIMEOUT, FORWARD_IDLE_TIMEOUT, FORWARD_TIMEOUT,
    KVS_FORM_BYTES_MAX,
};
use crate::monitoring;
use crate::response::fallback;

/// The `Via` field of a forwarded request.
const VIA_FORWARDER: &str = "1.1 dkv-kvs";

#[derive(Clone)]
struct Forwarder {
    main: Arc<str>,
    client: Client<HttpConnector, Full<Bytes>>,
    budget: Budget,
}

/// Returns the routes of an instance that forwards `/kvs` to the one at `main`, and serves
/// `/livez`.
pub(crate) fn forwarding_routes(main: SocketAddr) -> Router {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(FORWARD_CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(FORWARD_IDLE_TIMEOUT)
        .build(connector);
    let forwarder = Forwarder { main: main.to_string().into(), client, budget: Budget::default() };
    Router::new()
        .route("/kvs", any(serve))
        .route(super::PREFIX, any(serve))
        .route("/kvs/{*key}", any(serve))
        .route("/livez", any(monitoring::live))
        .fallback(fallback)
        .with_state(forwarder)
}

async fn serve(State(forwarder): State<Forwarder>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let was_forwarded = head.headers.get_all(VIA).iter().any(|via| via == VIA_FORWARDER);
    if was_forwarded {
        return Reply::unavailable().into_response();
    }
    let (body, reservation) = match forwarder.budget.read(&head, body, KVS_FORM_BYTES_MAX).await {
        Ok(read) => read,
        Err(error) => return refuse_body(error).into_response(),
    };
    let forwarded = tokio::time::timeout(FORWARD_TIMEOUT, forwarder.forward(&head, body)).await;
    drop(reservation);
    match forwarded {
        Ok(Ok(response)) => response,
        _ => Reply::unavailable().into_response(),
    }
}

/// The main instance is down; the forwarder does not distinguish how.
struct Down;

impl Forwarder {
    async fn forward(&self, head: &Parts, body: Bytes) -> Result<Response<Body>, Down> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{}{path}", self.main).parse().map_err(|_| Down)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        request.headers_mut().insert(VIA, HeaderValue::from_static(VIA_FORWARDER));
        if let Some(kind) = head.headers.get(CONTENT_TYPE) {
            request.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        let answer = self.client.request(request).await.map_err(|_| Down)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, FORWARD_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Down)?.to_bytes();
        let body = self.budget.answer(body).map_err(|_: BodyError| Down)?;
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        Ok(response)
    }
}
