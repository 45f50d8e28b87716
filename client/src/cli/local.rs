//! Arguments of the words that try things out: networks on this machine, rehearsals and drills.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dkv_api::Region;

use super::Connect;
use crate::human::parse_time;

/// Arguments of `local`.
///
/// Everything happens in one directory: configuration, data, logs, credentials. Without --dir it is
/// a temporary one that is removed at the end; with --dir it is kept, and the same command goes on
/// with it.
#[derive(Args, Debug)]
pub(crate) struct Local {
    /// Nodes to start [default: 3, or as many as the directory has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) nodes: Option<u16>,

    /// Directory of the network, kept at the end [default: a temporary one, removed at the end]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,

    /// Port that the server should have; if it is taken, another one
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Address that server and nodes listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) listen: std::net::IpAddr,

    /// Shards of the network, fixed when it is created [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u32>,

    /// Voters of each shard [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) replication: Option<u32>,

    /// Regions, with commas between them; the nodes take turns. What is sent from one to another is
    /// held back: 200 ms between the first two, 600 ms between any others. The prompt is in the first
    /// one unless --region says otherwise
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) regions: Vec<Region>,

    /// Other delays between the regions, one way, in milliseconds: a row for each, as in 0,200/180,0
    #[arg(long, value_name = "MATRIX")]
    pub(crate) delays: Option<String>,

    /// Let the delays wander between zero and twice as much
    #[arg(long)]
    pub(crate) delays_vary: bool,

    /// Time that the network may take to come up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub(crate) start_timeout: Duration,

    /// Log that a node of a new network keeps, in bytes; the default if there is none
    #[arg(skip)]
    pub(crate) log_bytes_max: Option<u64>,

    #[command(flatten)]
    pub(crate) connect: Connect,

    /// Commands to run instead of the prompt, each in one argument, as in W,a,1 "kill coordinator"
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) commands: Vec<OsString>,
}

impl Local {
    /// A network of so many nodes in a temporary directory.
    pub(crate) fn temporary(nodes: u16, connect: Connect) -> Self {
        Self {
            nodes: Some(nodes),
            dir: None,
            port: Some(0),
            listen: std::net::Ipv4Addr::LOCALHOST.into(),
            shards: None,
            replication: None,
            regions: Vec::new(),
            delays: None,
            delays_vary: false,
            start_timeout: Duration::from_secs(60),
            log_bytes_max: None,
            connect,
            commands: Vec::new(),
        }
    }
}

/// Arguments of `rehearse`.
///
/// Brings up a network of its own on this machine, whose regions are kept apart as they would be on
/// the globe, and prints what reads and writes cost from each of them. The network is gone afterwards.
#[derive(Args, Clone, Debug)]
pub(crate) struct Rehearse {
    /// Regions, with commas between them; the nodes take turns
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "us-east,us-west,singapore"
    )]
    pub(crate) regions: Vec<Region>,

    /// Delays between the regions, one way, in milliseconds: a row for each, as in 0,200/180,0
    /// [default: 200 between the first two, 600 between any others]
    #[arg(long, value_name = "MATRIX")]
    pub(crate) delays: Option<String>,

    /// Let the delays wander between zero and twice as much
    #[arg(long)]
    pub(crate) delays_vary: bool,

    /// Nodes of the network [default: one in each region, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: Option<u16>,

    /// Shards of the network [default: one for each region]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u32>,

    /// Requests of each kind that are measured, from each region
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) samples: u32,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Arguments of `drill`.
///
/// Clients read and write, something is done to the network meanwhile, all that they saw is
/// recorded, and two checkers judge it. Without an address it happens to a network of its own on
/// this machine, which is gone afterwards. With the address of a network, do to it what you want to
/// try while `dkv ADDRESS drill by-hand` runs; the keys that it writes begin with dkv-drill/ and are
/// removed at the end.
#[derive(Args, Clone, Debug)]
pub(crate) struct Drill {
    /// What is done
    #[arg(value_enum)]
    pub(crate) fault: Fault,

    /// Time from the first request to the last; the fault takes up the middle of it
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_time)]
    pub(crate) time: Duration,

    /// Nodes of the network of its own [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: Option<u16>,

    /// Directory for the report: a page, pictures and what the clients saw
    #[arg(long, value_name = "DIR", default_value = "dkv-drill")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// What a drill does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The coordinator's process is killed, and started again later
    CoordinatorKill,
    /// The coordinator stands still for longer than an election takes, and goes on
    Pause,
    /// The coordinator does not reach the other nodes, nor they it; clients reach all
    Partition,
    /// The coordinator's disk does not come back from a sync for a while
    DiskStall,
    /// The coordinator's disk is full for a while
    DiskFull,
    /// The clocks of the nodes jump apart by an hour and a half, and the coordinator is killed
    ClockJump,
    /// All processes are killed at once, the server's too, and started again
    RestartAll,
    /// Nodes are added, and the first ones removed for good
    Churn,
    /// Somebody with a stolen node token attacks every node and the server, as a leader, as a candidate and as
    /// the coordinator, and waits for clients that are misled
    Intruder,
    /// A copy of the coordinator's data directory is started beside it, until an administrator says
    /// which goes on
    Clone,
    /// The coordinator's data directory is put back as it was a while ago
    OldCopy,
    /// Nothing is done: you do it, to a network that you name
    ByHand,
    /// All that can be done to a network of its own, one after the other
    All,
}
