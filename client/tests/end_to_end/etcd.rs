//! etcd's interface of real networks, asked with etcd's own messages over gRPC and JSON.

mod auth;
mod complaints;
mod elections;
mod histories;
mod keys;
mod leases;
mod listener;
mod members;
mod moving;
mod rights;
mod sharing;
mod snapshots;
mod watches;

use std::net::SocketAddr;

use dkv_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use dkv_etcd::proto::etcdserverpb::kv_client::KvClient;
use dkv_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use dkv_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use dkv_etcd::proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, ResponseHeader};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tonic::body::Body;

use crate::gateway::http::Http;
use crate::harness::process::spawn;
use crate::harness::{Network, Process};

/// A connection for the generated clients.
type Channel = Client<HttpConnector, Body>;

/// A gateway that serves etcd's interface.
struct Face {
    process: Process,
    address: SocketAddr,
}

impl Face {
    async fn start(network: &Network) -> Self {
        Self::start_with(network, &[]).await
    }

    async fn start_with(network: &Network, more: &[&str]) -> Self {
        let (server, home) = (network.address.to_string(), network.home());
        let arguments = [&["gateway", &server, "--etcd", "127.0.0.1:0"], more].concat();
        let mut process = spawn(&arguments, &home, &network.path("etcd.log"));
        let address = process.ready().await.unwrap();
        Self { process, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn channel(&self) -> (Channel, hyper::Uri) {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        (client, self.url("").parse().unwrap())
    }

    fn kv(&self) -> KvClient<Channel> {
        let (channel, origin) = self.channel();
        KvClient::with_origin(channel, origin).max_decoding_message_size(usize::MAX)
    }

    fn lease(&self) -> LeaseClient<Channel> {
        let (channel, origin) = self.channel();
        LeaseClient::with_origin(channel, origin)
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        let (channel, origin) = self.channel();
        ClusterClient::with_origin(channel, origin)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        let (channel, origin) = self.channel();
        MaintenanceClient::with_origin(channel, origin)
    }

    /// Puts a key and returns the header.
    async fn put(&self, key: &str, value: &str) -> ResponseHeader {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.kv().put(request).await.unwrap().into_inner().header.unwrap()
    }

    /// Sends a request in JSON; returns the status and the answer.
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let body = body.to_string();
        let answer = Http::new(false).send("POST", &self.url(path), &[], body).await;
        (answer.status, answer.json())
    }
}

fn prefix(of: &str) -> RangeRequest {
    let mut end = of.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    RangeRequest { key: of.to_owned().into(), range_end: end.into(), ..Default::default() }
}

fn keys(answer: &RangeResponse) -> Vec<&str> {
    answer.kvs.iter().map(|pair| std::str::from_utf8(&pair.key).unwrap()).collect()
}
