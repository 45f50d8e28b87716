//! What the caller may choose about a local network.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::Region;

/// Time in which a network has to start, unless the caller says otherwise.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What to start, where, and how to connect to it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes to start; `None` starts as many as the directory has, or three.
    pub nodes: Option<u16>,
    /// The network's directory, kept at the end; `None` makes a temporary one.
    pub dir: Option<PathBuf>,
    /// Preferred port of the server.
    pub port: Option<u16>,
    /// Address that the server and the nodes listen on.
    pub listen: IpAddr,
    /// Shards of a new network.
    pub shards: Option<u32>,
    /// Voters of each shard of a new network.
    pub replication: Option<u32>,
    /// Regions of a new network; the nodes take turns in them.
    pub regions: Vec<Region>,
    /// Delays between the regions, as `--delays` gives them.
    pub delays: Option<String>,
    /// Whether each delay varies between zero and twice its average.
    pub delays_vary: bool,
    /// Time in which the network has to start.
    pub start_timeout: Duration,
    /// Bytes of log that a node of a new network keeps; `None` is the usual number.
    pub log_bytes_max: Option<u64>,
    /// Time that a request of the network's clients may take; `None` is the library's default.
    pub request_timeout: Option<Duration>,
    /// Region of the network's clients; `None` is the first region.
    pub client_region: Option<Region>,
}

impl Options {
    /// A network of so many nodes in a temporary directory, on any free port of loopback.
    pub fn temporary(nodes: u16) -> Self {
        Self { nodes: Some(nodes), port: Some(0), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: None,
            dir: None,
            port: None,
            listen: Ipv4Addr::LOCALHOST.into(),
            shards: None,
            replication: None,
            regions: Vec::new(),
            delays: None,
            delays_vary: false,
            start_timeout: START_TIMEOUT,
            log_bytes_max: None,
            request_timeout: None,
            client_region: None,
        }
    }
}
