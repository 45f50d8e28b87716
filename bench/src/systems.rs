//! The measured systems, behind one interface.
//!
//! A [`System`] is a set of processes on loopback. It knows their ids, which of them leads, and how
//! to restart one. A [`Driver`] is one client of it. No other module knows which system it
//! measures.
//!
//! Every system keeps three copies and answers a write once a majority has it on disk. The
//! exceptions are the two kinds of Valkey, a single process which either syncs every write or
//! stores nothing, and nginx, which is not a store.

pub(crate) mod dkv;
#[cfg(feature = "peers")]
mod dkv_etcd;
#[cfg(feature = "peers")]
mod etcd;
#[cfg(feature = "peers")]
mod http;
#[cfg(feature = "peers")]
mod nats;
#[cfg(feature = "peers")]
mod nginx;
mod processes;
#[cfg(feature = "peers")]
mod valkey;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::Serialize;

pub(crate) use self::dkv::{Dkv, DkvOptions};
pub(crate) use self::processes::Processes;
use crate::workload::{Operation, Work};

/// Time that a system may take to start, or to recover.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two checks whether it has.
const START_EVERY: Duration = Duration::from_millis(50);

/// The systems that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// This repository's dkv
    Dkv,
    /// etcd, three members
    Etcd,
    /// NATS JetStream, a key-value bucket of three replicas, every write synced
    Nats,
    /// Valkey, one process, every write synced (`appendfsync always`)
    Valkey,
    /// Valkey, one process, nothing on disk
    ValkeyMemory,
    /// This repository's dkv, through etcd's interface and with etcd's clients
    DkvEtcd,
    /// This repository's dkv, over HTTP through a gateway
    DkvHttp,
    /// etcd, over HTTP through its own gateway
    EtcdHttp,
    /// nginx with files that it does not sync: an upper bound for HTTP servers
    Nginx,
}

impl Kind {
    /// The systems that have native clients.
    pub(crate) const ALL: [Self; 5] =
        [Self::Dkv, Self::Etcd, Self::Nats, Self::Valkey, Self::ValkeyMemory];

    /// Returns its name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dkv => "dkv",
            Self::Etcd => "etcd",
            Self::Nats => "nats",
            Self::Valkey => "valkey",
            Self::ValkeyMemory => "valkey-memory",
            Self::DkvEtcd => "dkv-etcd",
            Self::DkvHttp => "dkv-http",
            Self::EtcdHttp => "etcd-http",
            Self::Nginx => "nginx",
        }
    }

    /// Returns whether its clients can do this work.
    pub(crate) fn offers(self, work: Work) -> bool {
        match self {
            Self::Dkv | Self::Etcd | Self::DkvEtcd => true,
            Self::Nats | Self::Valkey | Self::ValkeyMemory => {
                !work.mix().has_scans() && !work.mix().has_transactions()
            }
            Self::DkvHttp | Self::EtcdHttp | Self::Nginx => work.mix().is_puts_and_gets(),
        }
    }

    /// Returns whether another process takes over when one is lost.
    pub(crate) fn fails_over(self) -> bool {
        matches!(self, Self::Dkv | Self::Etcd | Self::DkvEtcd | Self::Nats)
    }
}

/// Where the programs of the systems are, and where their data goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Setup {
    /// Where bench/peers/install has installed etcd, NATS and Valkey
    #[arg(long, global = true, default_value = "target/peers")]
    pub(crate) peers: PathBuf,
    /// Where the data of all systems is [default: the temporary directory]
    #[arg(long, global = true)]
    pub(crate) dir: Option<PathBuf>,
    /// Heartbeat and election time of etcd, in milliseconds [default: etcd's own, 100 and 1000]
    #[arg(long, global = true, value_delimiter = ',', num_args = 2)]
    pub(crate) etcd_times: Option<Vec<u64>>,
    #[command(flatten)]
    pub(crate) dkv_options: DkvOptions,
}

/// What a client of a system is for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only the drivers of peers read it"))]
pub(crate) enum Purpose {
    /// To measure a healthy system: connects to where requests are answered fastest, with long
    /// timeouts.
    Measure,
    /// To notice at once when a system serves again: knows all nodes, and gives up an attempt after
    /// this time.
    Survive(Duration),
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The operation was done.
    Done,
    /// The key does not exist.
    Missing,
    /// The key changed between the read and the write of a read-modify-write.
    Conflict,
}

/// The node that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The name of its process.
    pub(crate) name: String,
    /// A remark about it.
    pub(crate) note: String,
}

/// One client of a system.
pub(crate) trait Driver: Send + Sync {
    /// Does one operation. Several may be under way at once.
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>>;
}

/// The values that are written, as one watch sees them.
pub(crate) type Changes = BoxStream<'static, Result<Bytes, String>>;

/// A running system. Its processes end when it is dropped.
pub(crate) trait System: Send + Sync {
    /// Returns its processes.
    fn processes(&self) -> &Processes;

    /// Returns its processes, to end some of them.
    fn processes_mut(&mut self) -> &mut Processes;

    /// Returns `clients` clients. The system decides whether they share connections.
    fn drivers(
        &self,
        clients: usize,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>>;

    /// Begins so many watches of all keys that begin with `key-`, each over a connection that it
    /// shares with others as the system's library does. Changes made after this come.
    fn watches(&self, _count: usize) -> BoxFuture<'_, Result<Vec<Changes>, String>> {
        Box::pin(async { Err("its changes cannot be watched by this program".into()) })
    }

    /// Returns the URL at which its leader serves etcd's interface.
    #[cfg(feature = "peers")]
    fn etcd_endpoint(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Err("it does not serve etcd's interface".into()) })
    }

    /// Returns the node that leads what writes go to.
    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>>;

    /// Restarts a node that has ended.
    fn restart(&mut self, name: &str) -> Result<(), String>;

    /// Waits until all nodes are up and have all data.
    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Starts a system and waits until it is complete.
pub(crate) async fn start(kind: Kind, setup: &Setup) -> Result<Box<dyn System>, String> {
    let started: Result<Box<dyn System>, String> = match kind {
        Kind::Dkv => Dkv::start(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Etcd => etcd::Etcd::start(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Nats => nats::Nats::start(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Valkey | Kind::ValkeyMemory => {
            let synced = kind == Kind::Valkey;
            valkey::Valkey::start(setup, synced).await.map(|system| Box::new(system) as _)
        }
        #[cfg(feature = "peers")]
        Kind::DkvEtcd => dkv_etcd::DkvEtcd::start(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::DkvHttp => http::Http::dkv(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::EtcdHttp => http::Http::etcd(setup).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Nginx => http::Http::nginx(setup).await.map(|system| Box::new(system) as _),
        #[cfg(not(feature = "peers"))]
        _ => Err("this program was built without `--features peers`".into()),
    };
    started.map_err(|error| format!("{}: {error}", kind.name()))
}

/// Returns the version that a system reports.
pub(crate) fn version(kind: Kind, setup: &Setup) -> String {
    let program = match kind {
        Kind::Dkv | Kind::DkvEtcd | Kind::DkvHttp => Dkv::program(setup),
        Kind::Etcd | Kind::EtcdHttp => Ok(program(setup, "etcd")),
        Kind::Nginx => Ok("nginx".into()),
        Kind::Nats => Ok(program(setup, "nats-server")),
        Kind::Valkey | Kind::ValkeyMemory => Ok(program(setup, "valkey-server")),
    };
    let output = program.and_then(|program| {
        let flag = if kind == Kind::Nginx { "-v" } else { "--version" };
        let run = std::process::Command::new(program).arg(flag).output();
        run.map_err(|error| error.to_string())
    });
    let text = output.map(|output| {
        // nginx prints it to standard error.
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        String::from_utf8_lossy(&said).into_owned()
    });
    text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// Returns the path of a peer's program.
fn program(setup: &Setup, name: &str) -> PathBuf {
    setup.peers.join("programs").join(name)
}

/// Retries until an attempt succeeds; returns the last error if none does in time.
#[cfg(feature = "peers")]
async fn until<T, F>(processes: &Processes, mut attempt: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = std::time::Instant::now() + START_TIMEOUT;
    loop {
        // A library's own timeout may be far longer than a start takes.
        let error = match tokio::time::timeout(Duration::from_secs(5), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => "no answer".to_owned(),
        };
        if std::time::Instant::now() > deadline {
            return Err(format!("{error}\n{}", processes.logs()));
        }
        tokio::time::sleep(START_EVERY).await;
    }
}
