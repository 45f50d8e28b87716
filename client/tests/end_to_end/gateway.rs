//! Gateways of real networks, asked by a real HTTP client, or with raw bytes where a client would
//! be too well-behaved.

mod access;
mod browser;
pub(crate) mod http;
mod kvs;
mod node;
mod page;
mod pairs;
mod schema;
mod scripts;
mod statuses;
mod v1;
mod watch;

use std::net::SocketAddr;

use super::harness::process::spawn;
use super::harness::{Network, Process};

/// A `dkv gateway`.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts a gateway of a network.
    pub(crate) async fn start(network: &Network) -> Self {
        Self::start_with(network, &[]).await
    }

    /// Starts a gateway with more arguments.
    pub(crate) async fn start_with(network: &Network, more: &[&str]) -> Self {
        Self::start_at(network, "127.0.0.1:0", more).await
    }

    /// Starts a gateway at an address.
    pub(crate) async fn start_at(network: &Network, address: &str, more: &[&str]) -> Self {
        let (server, home) = (network.address.to_string(), network.home());
        let arguments = [&["gateway", &server, "--http", address], more].concat();
        let mut process = spawn(&arguments, &home, &network.path("gateway.log"));
        let address = process.ready().await.unwrap();
        Self { process, address }
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
