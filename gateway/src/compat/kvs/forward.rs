//! An instance without a store: it asks the main instance, over HTTP, and says what that says.
//!
//! A request is forwarded once and never again, since a PUT that was sent twice would say that it
//! replaced something. A main instance that cannot be reached, says nothing in time, or ends in the
//! middle of its answer, is down. Connections are kept while it is up, and made anew when it is
//! back.
//!
//! A request that a forwarding instance has sent is not forwarded again (its `Via` tells, RFC 9110,
//! section 7.6.3), so that instances which name each other, or one itself, do not ask in circles.

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
use crate::app::App;
use crate::body::{BodyError, Budget};
use crate::limits::{
    FORWARD_ANSWER_BYTES_MAX, FORWARD_CONNECT_TIMEOUT, FORWARD_IDLE_TIMEOUT, FORWARD_TIMEOUT,
    KVS_FORM_BYTES_MAX,
};
use crate::problem::Problem;
use crate::v1;

/// How a forwarding instance signs what it has forwarded.
const SIGNATURE: &str = "1.1 dkv-kvs";

#[derive(Clone)]
struct Forwarder {
    main: Arc<str>,
    client: Client<HttpConnector, Full<Bytes>>,
    budget: Budget,
}

/// `/kvs` as the instance at `main` has it, and `/livez`.
pub fn forwarder(main: SocketAddr) -> App {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(FORWARD_CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(FORWARD_IDLE_TIMEOUT)
        .build(connector);
    let forwarder = Forwarder { main: main.to_string().into(), client, budget: Budget::default() };
    let router = Router::new()
        .route("/kvs", any(serve))
        .route(super::PREFIX, any(serve))
        .route("/kvs/{*key}", any(serve))
        .route("/livez", any(v1::lives))
        .fallback(async || Problem::no_such_path().into_response())
        .with_state(forwarder);
    App::of(router, Arc::default())
}

async fn serve(State(forwarder): State<Forwarder>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let came_round = head.headers.get_all(VIA).iter().any(|via| via == SIGNATURE);
    if came_round {
        return Reply::unavailable().into_response();
    }
    let (body, held) = match forwarder.budget.read(&head, body, KVS_FORM_BYTES_MAX).await {
        Ok(read) => read,
        Err(error) => return refuse_body(error).into_response(),
    };
    let asked = tokio::time::timeout(FORWARD_TIMEOUT, forwarder.ask(&head, body)).await;
    drop(held);
    match asked {
        Ok(Ok(response)) => response,
        _ => Reply::unavailable().into_response(),
    }
}

/// The main instance is down, in whichever way.
struct Down;

impl Forwarder {
    async fn ask(&self, head: &Parts, body: Bytes) -> Result<Response<Body>, Down> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{}{path}", self.main).parse().map_err(|_| Down)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        request.headers_mut().insert(VIA, HeaderValue::from_static(SIGNATURE));
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
