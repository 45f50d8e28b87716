//! Arguments of the commands that run networks on this machine: local, rehearse and drill.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dkv_api::Region;
use dkv_base::number::whole_number;
use dkv_console::units::parse_duration;
use dkv_drill::Fault;
use dkv_local::Options;
use dkv_wire::limits::{REPLICATION_MAX, SHARDS_MAX};

use super::Connect;

/// Arguments of `local`.
///
/// Configuration, data, logs and credentials are in one directory. Without --dir it is temporary
/// and removed at the end; with --dir it is kept, and the same command resumes the network.
#[derive(Args, Debug)]
pub(crate) struct LocalArgs {
    /// Nodes to start [default: 3, or as many as the directory has]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=256_u16),
        allow_negative_numbers = true)]
    pub(crate) nodes: Option<u16>,

    /// Directory of the network, kept at the end [default: a temporary one, removed at the end]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,

    /// Preferred port of the server; if it is in use, another one
    #[arg(long, value_name = "PORT", value_parser = whole_number(0..=u16::MAX),
        allow_negative_numbers = true)]
    pub(crate) port: Option<u16>,

    /// Address that the server and the nodes listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) listen: std::net::IpAddr,

    /// Shards of the network, fixed when it is created [default: 1]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=SHARDS_MAX),
        allow_negative_numbers = true)]
    pub(crate) shards: Option<u32>,

    /// Voters of each shard [default: 3]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=REPLICATION_MAX),
        allow_negative_numbers = true)]
    pub(crate) replication: Option<u32>,

    /// Regions, separated by commas; the nodes take turns in them. Messages between regions are
    /// delayed: 200 ms between the first two, 600 ms between any others. The prompt is in the first
    /// region unless --region says otherwise
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) regions: Vec<Region>,

    /// Other one-way delays between the regions in milliseconds, a row for each region, as in
    /// 0,200/180,0
    #[arg(long, value_name = "MATRIX")]
    pub(crate) delays: Option<String>,

    /// Vary the delays between zero and twice their value
    #[arg(long)]
    pub(crate) delays_vary: bool,

    /// Time limit for the network to start
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration,
        allow_negative_numbers = true)]
    pub(crate) start_timeout: Duration,

    #[command(flatten, next_help_heading = "etcd's interface")]
    pub(crate) etcd: dkv_etcd::Args,

    #[command(flatten)]
    pub(crate) connect: Connect,

    /// Commands to run instead of the prompt, each one argument, as in W,a,1 "kill coordinator"
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) commands: Vec<OsString>,
}

impl LocalArgs {
    /// Returns the options of the network.
    pub(crate) fn options(&self) -> Options {
        Options {
            nodes: self.nodes,
            dir: self.dir.clone(),
            port: self.port,
            listen: self.listen,
            shards: self.shards,
            replication: self.replication,
            regions: self.regions.clone(),
            delays: self.delays.clone(),
            delays_vary: self.delays_vary,
            start_timeout: self.start_timeout,
            log_bytes_max: None,
            request_timeout: self.connect.timeout,
            client_region: self.connect.region.clone(),
        }
    }
}

/// Arguments of `rehearse`.
///
/// Starts a temporary network on this machine, delays messages between its regions like a real
/// distance, and prints the latency of reads and writes from each region. Removes the network
/// afterwards.
#[derive(Args, Clone, Debug)]
pub(crate) struct RehearseArgs {
    /// Regions, separated by commas; the nodes take turns in them
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "us-east,us-west,singapore"
    )]
    pub(crate) regions: Vec<Region>,

    /// One-way delays between the regions in milliseconds, a row for each region, as in 0,200/180,0
    /// [default: 200 between the first two, 600 between any others]
    #[arg(long, value_name = "MATRIX")]
    pub(crate) delays: Option<String>,

    /// Vary the delays between zero and twice their value
    #[arg(long)]
    pub(crate) delays_vary: bool,

    /// Nodes of the network [default: one in each region, at least 3]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=64_u16),
        allow_negative_numbers = true)]
    pub(crate) nodes: Option<u16>,

    /// Shards of the network [default: one for each region]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=SHARDS_MAX),
        allow_negative_numbers = true)]
    pub(crate) shards: Option<u32>,

    /// Number of requests of each kind to measure from each region
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = whole_number(1..=10_000_u32), allow_negative_numbers = true)]
    pub(crate) samples: u32,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Arguments of `drill`.
///
/// Clients read and write while a fault is injected, and checkers judge everything that the
/// clients saw. A drill runs on a temporary network on this machine. For an existing network, run
/// `dkv ADDRESS drill by-hand` and cause the fault yourself; the drill writes keys that begin with
/// dkv-drill/ and removes them at the end.
#[derive(Args, Clone, Debug)]
pub(crate) struct DrillArgs {
    /// Fault to inject
    #[arg(value_enum)]
    pub(crate) fault: Fault,

    /// Time from the first request to the last; the fault takes the middle third
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_duration,
        allow_negative_numbers = true)]
    pub(crate) time: Duration,

    /// Nodes of the temporary network [default: 3]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=16_u16),
        allow_negative_numbers = true)]
    pub(crate) nodes: Option<u16>,

    /// Directory for the report: a page, charts and the recorded histories
    #[arg(long, value_name = "DIR", default_value = "dkv-drill")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) connect: Connect,
}
