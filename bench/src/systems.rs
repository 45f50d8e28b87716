//! The systems that are measured, behind one interface.
//!
//! A [`System`] is a set of processes on loopback: it knows their ids, which of them leads, and how
//! to start one of them again. A [`Driver`] is one client of it. Nothing else in this program knows
//! which system it measures.
//!
//! Every system keeps three copies and answers a write once a majority has it on disk, except the
//! two of Valkey: one process, with every write synced, or with nothing kept at all; and nginx,
//! which is no store.

mod dkv;
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

use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use serde::Serialize;

pub(crate) use self::dkv::{Dkv, Shape};
pub(crate) use self::processes::Processes;
use crate::workload::{Operation, Work};

/// Time that a system may take to come up, or to be whole again.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two looks at whether it has.
const START_EVERY: Duration = Duration::from_millis(50);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// This repository's
    Dkv,
    /// etcd, three members
    Etcd,
    /// NATS JetStream, a key-value bucket of three replicas, every write synced
    Nats,
    /// Valkey, one process, every write synced (`appendfsync always`)
    Valkey,
    /// Valkey, one process, nothing on disk
    ValkeyMemory,
    /// This repository's, asked over HTTP through a gateway
    DkvHttp,
    /// etcd, asked over HTTP through the gateway that it has
    EtcdHttp,
    /// nginx with files, which it does not sync: the limit of what a server of HTTP does
    Nginx,
}

impl Kind {
    /// All that have clients of their own kind.
    pub(crate) const ALL: [Self; 5] =
        [Self::Dkv, Self::Etcd, Self::Nats, Self::Valkey, Self::ValkeyMemory];

    /// Its name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dkv => "dkv",
            Self::Etcd => "etcd",
            Self::Nats => "nats",
            Self::Valkey => "valkey",
            Self::ValkeyMemory => "valkey-memory",
            Self::DkvHttp => "dkv-http",
            Self::EtcdHttp => "etcd-http",
            Self::Nginx => "nginx",
        }
    }

    /// Whether its clients can do this work at all.
    pub(crate) fn offers(self, work: Work) -> bool {
        match self {
            Self::Dkv | Self::Etcd => true,
            Self::Nats | Self::Valkey | Self::ValkeyMemory => !work.mix().has_scans(),
            Self::DkvHttp | Self::EtcdHttp | Self::Nginx => work.mix().is_puts_and_gets(),
        }
    }

    /// Whether another process takes over when one is lost.
    pub(crate) fn fails_over(self) -> bool {
        matches!(self, Self::Dkv | Self::Etcd | Self::Nats)
    }
}

/// Where the systems come from and where their data goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Where bench/peers/install has put etcd, NATS and Valkey
    #[arg(long, global = true, default_value = "target/peers")]
    pub(crate) peers: PathBuf,
    /// Where the data of all systems is [default: the temporary directory]
    #[arg(long, global = true)]
    pub(crate) dir: Option<PathBuf>,
    /// Heartbeat and election time of etcd, in milliseconds [default: etcd's own, 100 and 1000]
    #[arg(long, global = true, value_delimiter = ',', num_args = 2)]
    pub(crate) etcd_times: Option<Vec<u64>>,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// What a client of a system is for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only the drivers of peers read it"))]
pub(crate) enum Purpose {
    /// To measure a healthy system: straight to where requests are answered fastest, and patient.
    Measure,
    /// To notice at once when a system serves again: knows all nodes, and gives an attempt up after
    /// this time.
    Survive(Duration),
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// There is no such key.
    Missing,
    /// The key was changed between the read and the write of an operation that does both.
    Conflict,
}

/// The node that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its process.
    pub(crate) name: String,
    /// What else is to be said of it.
    pub(crate) note: String,
}

/// One client.
pub(crate) trait Driver: Send + Sync {
    /// Does one operation. Several may be under way at once.
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>>;
}

/// A running system. Its processes end when it is dropped.
pub(crate) trait System: Send + Sync {
    /// Its processes.
    fn processes(&self) -> &Processes;

    /// Its processes, to be told to end.
    fn processes_mut(&mut self) -> &mut Processes;

    /// That many clients; whether they share connections is for the system to say.
    fn drivers(
        &self,
        clients: usize,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>>;

    /// The node that leads what writes go to.
    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>>;

    /// Starts a node that has ended.
    fn restart(&mut self, name: &str) -> Result<(), String>;

    /// Waits until all nodes are there and have all data.
    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Starts a system and waits until it is whole.
pub(crate) async fn start(kind: Kind, place: &Place) -> Result<Box<dyn System>, String> {
    let started: Result<Box<dyn System>, String> = match kind {
        Kind::Dkv => Dkv::start(place).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Etcd => etcd::Etcd::start(place).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Nats => nats::Nats::start(place).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Valkey | Kind::ValkeyMemory => {
            let synced = kind == Kind::Valkey;
            valkey::Valkey::start(place, synced).await.map(|system| Box::new(system) as _)
        }
        #[cfg(feature = "peers")]
        Kind::DkvHttp => http::Http::dkv(place).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::EtcdHttp => http::Http::etcd(place).await.map(|system| Box::new(system) as _),
        #[cfg(feature = "peers")]
        Kind::Nginx => http::Http::nginx(place).await.map(|system| Box::new(system) as _),
        #[cfg(not(feature = "peers"))]
        _ => Err("this program was built without `--features peers`".into()),
    };
    started.map_err(|error| format!("{}: {error}", kind.name()))
}

/// What a system says of its version.
pub(crate) fn version(kind: Kind, place: &Place) -> String {
    let program = match kind {
        Kind::Dkv | Kind::DkvHttp => Dkv::program(place),
        Kind::Etcd | Kind::EtcdHttp => Ok(program(place, "etcd")),
        Kind::Nginx => Ok("nginx".into()),
        Kind::Nats => Ok(program(place, "nats-server")),
        Kind::Valkey | Kind::ValkeyMemory => Ok(program(place, "valkey-server")),
    };
    let output = program.and_then(|program| {
        let flag = if kind == Kind::Nginx { "-v" } else { "--version" };
        let run = std::process::Command::new(program).arg(flag).output();
        run.map_err(|error| error.to_string())
    });
    let text = output.map(|output| {
        // nginx calls it an error.
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        String::from_utf8_lossy(&said).into_owned()
    });
    text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// A peer's program.
fn program(place: &Place, name: &str) -> PathBuf {
    place.peers.join("programs").join(name)
}

/// Calls until it succeeds, and returns the last error if it does not in time.
#[cfg(feature = "peers")]
async fn until<T, F>(processes: &Processes, mut attempt: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = std::time::Instant::now() + START_TIMEOUT;
    loop {
        // A library's own time limit may be far longer than what a start takes.
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
