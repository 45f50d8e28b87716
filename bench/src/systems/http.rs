//! Stores over HTTP/1.1: dkv through `dkv gateway`, etcd through its own JSON gateway, and nginx
//! with files as an upper bound for HTTP servers.
//!
//! Each client has its own connection, with one request under way on it. nginx (`dav_methods`)
//! writes a file without syncing or replicating it: the difference to it is what a replicated write
//! costs.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::dkv::Dkv;
use super::etcd::Etcd;
use super::nginx::Nginx;
use super::{Answer, Driver, Leader, Processes, Purpose, Setup, System};
use crate::workload::Operation;

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How requests are expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// One path for each key, with the value as the body.
    Paths,
    /// etcd's JSON bodies with base64.
    Etcd,
}

/// A system behind HTTP.
pub(super) struct Http<S> {
    behind: S,
    address: String,
    dialect: Dialect,
}

impl Http<Dkv> {
    /// Starts a dkv network with a gateway.
    pub(super) async fn dkv(setup: &Setup) -> Result<Self, String> {
        let mut behind = Dkv::start(setup).await?;
        let address = behind.gateway()?;
        Ok(Self { behind, address, dialect: Dialect::Paths })
    }
}

impl Http<Etcd> {
    /// Starts an etcd cluster, whose leader is asked.
    pub(super) async fn etcd(setup: &Setup) -> Result<Self, String> {
        let behind = Etcd::start(setup).await?;
        let address = behind.leading_address().await?;
        Ok(Self { behind, address, dialect: Dialect::Etcd })
    }
}

impl Http<Nginx> {
    /// Starts nginx.
    pub(super) async fn nginx(setup: &Setup) -> Result<Self, String> {
        let behind = Nginx::start(setup).await?;
        let address = behind.address();
        Ok(Self { behind, address, dialect: Dialect::Paths })
    }
}

impl<S: System> System for Http<S> {
    fn processes(&self) -> &Processes {
        self.behind.processes()
    }

    fn processes_mut(&mut self) -> &mut Processes {
        self.behind.processes_mut()
    }

    fn drivers(
        &self,
        clients: usize,
        _purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>> {
        let driver = || HttpDriver {
            address: self.address.clone(),
            dialect: self.dialect,
            connection: Mutex::default(),
        };
        let drivers = (0..clients).map(|_| Arc::new(driver()) as Arc<dyn Driver>).collect();
        Box::pin(async move { Ok(drivers) })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        self.behind.leader()
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        self.behind.restart(name)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        self.behind.wait_whole()
    }
}

struct HttpDriver {
    address: String,
    dialect: Dialect,
    /// `None` before the first request, and after a failed one.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl HttpDriver {
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<StatusCode, String> {
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, self.ask(method, path, body));
        asked.await.map_err(|_| "no answer in time")?
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<StatusCode, String> {
        let mut kept = self.connection.lock().await;
        // The connection is reused only after the whole answer was read.
        let mut connection = match kept.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => connect(&self.address).await?,
        };
        let request = Request::builder().method(method).uri(path).header(HOST, &self.address);
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|error| error.to_string())?;
        *kept = Some(connection);
        Ok(status)
    }

    async fn operate(&self, operation: Operation) -> Result<Answer, String> {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        let status = match (self.dialect, operation) {
            (Dialect::Paths, Operation::Put { key, value }) => {
                self.send(Method::PUT, &format!("/v1/kv/{key}"), value).await?
            }
            (Dialect::Paths, Operation::Get { key }) => {
                self.send(Method::GET, &format!("/v1/kv/{key}"), Bytes::new()).await?
            }
            (Dialect::Paths, Operation::EventualGet { key }) => {
                let path = format!("/v1/kv/{key}?consistency=eventual");
                self.send(Method::GET, &path, Bytes::new()).await?
            }
            (Dialect::Etcd, Operation::Put { key, value }) => {
                let body = json!({ "key": text(key.as_bytes()), "value": text(&value) });
                self.send(Method::POST, "/v3/kv/put", body.to_string().into()).await?
            }
            (Dialect::Etcd, Operation::Get { key }) => {
                let body = json!({ "key": text(key.as_bytes()) });
                self.send(Method::POST, "/v3/kv/range", body.to_string().into()).await?
            }
            (Dialect::Etcd, Operation::EventualGet { key }) => {
                let body = json!({ "key": text(key.as_bytes()), "serializable": true });
                self.send(Method::POST, "/v3/kv/range", body.to_string().into()).await?
            }
            _ => return Err("HTTP is measured with puts and gets only".into()),
        };
        match status {
            StatusCode::NOT_FOUND => Ok(Answer::Missing),
            status if status.is_success() => Ok(Answer::Done),
            status => Err(status.to_string()),
        }
    }
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // The next request learns why the connection ended.
    tokio::spawn(async move { _ = connection.await });
    Ok(sender)
}

impl Driver for HttpDriver {
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(self.operate(operation))
    }
}
