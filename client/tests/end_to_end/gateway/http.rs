//! An HTTP client.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::PATIENCE;

/// A client with persistent connections.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns a header field; empty if it is missing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Parses the body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Http {
    /// Creates a client of HTTP/1.1, or of HTTP/2 only.
    pub(crate) fn new(http2: bool) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        Self { client }
    }

    /// Sends a GET request, whose answer may go on.
    pub(crate) async fn open(&self, url: &str, fields: &[(&str, &str)]) -> Response<Incoming> {
        let mut request = Request::builder().uri(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        tokio::time::timeout(PATIENCE, self.client.request(request)).await.unwrap().unwrap()
    }

    /// Sends a request; returns why it could not be sent.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let asking = async {
            let (head, body) = self.client.request(request).await.map_err(text)?.into_parts();
            let body = body.collect().await.map_err(text)?.to_bytes().to_vec();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, asking).await.map_err(text)?
    }

    /// Sends a request.
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method, url, fields, body).await.unwrap()
    }
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// Sends raw bytes, and reads until the given number of answers has begun or the connection ends.
pub(crate) async fn raw(address: SocketAddr, parts: &[&[u8]], answers: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut said = Vec::new();
    let reading = async {
        while String::from_utf8_lossy(&said).matches("HTTP/1.1 ").count() < answers {
            if stream.read_buf(&mut said).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("no answer");
    String::from_utf8_lossy(&said).into_owned()
}
