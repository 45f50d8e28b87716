//! The process of a node: the node itself and, optionally, a gateway beside it.
//!
//! The two know each other only as any others do: the gateway is a client of the network, with its
//! own certificate and a client's rights, whatever its node may do. It asks the primaries over
//! QUIC; for the shards that its own node leads that is a way through the loopback. The process
//! adds the metrics of the node, which only it can know, to `/metrics`.
//!
//! The node never waits for its gateway: it serves while the gateway has no certificate yet, or
//! cannot find a server to join with.
#![forbid(unsafe_code)]

mod etcd;
mod metrics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dkv_api::{Client, ConnectError};
use dkv_base::supervise::{Panicked, caught};
use dkv_base::variables;
use dkv_gateway::{App, ListenError, Listener, NoAuthority, Options};
pub use dkv_node::recovery;
use dkv_node::{NodeError, Observer};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Large values come and go in all sizes, and glibc's allocator returned little of their memory: a
/// node used half as much again as it held (docs/decisions.md, "The allocator").
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status for a wrong command line.
const USAGE: u8 = 2;
/// Time between two attempts of the gateway to join or to serve.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Time in which the gateway must stop after its node.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The command line of a node.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// Options of the node.
    #[command(flatten)]
    pub node: dkv_node::Args,

    /// Options of its gateway.
    #[command(flatten, next_help_heading = "HTTP, as a client of the network")]
    pub http: dkv_gateway::Args,

    /// Options of etcd's interface.
    #[command(flatten, next_help_heading = "etcd's interface, as a client of the network")]
    pub etcd: dkv_etcd::Args,

    /// File with a client token for HTTP and etcd's interface [default: the one that a server of
    /// the same user published on this machine]
    #[arg(
        long,
        value_name = "FILE",
        env = "DKV_HTTP_TOKEN_FILE",
        help_heading = "HTTP, as a client of the network"
    )]
    pub http_token_file: Option<PathBuf>,
}

impl Args {
    /// Describes an option that configures HTTP although none is served.
    fn unused_http_option(&self) -> Option<String> {
        if self.http.http.is_some() {
            return None;
        }
        let host = (!self.http.host.is_empty()).then_some("--host");
        let token_file = self.http_token_file.as_ref().map(|_| "--http-token-file");
        let token_file = token_file.filter(|_| self.etcd.etcd.is_none());
        let option = self.http.option_given().or(host).or(token_file)?;
        let name = variables::name_of::<NodeCommandLine>(option);
        Some(format!(
            "{name} configures HTTP, but none is served: add --http IP:PORT, or leave it out"
        ))
    }
}

/// The command line of the process, from which names of options are looked up.
#[derive(clap::Parser)]
struct NodeCommandLine {
    #[command(flatten)]
    _args: Args,
}

/// Runs a node until Ctrl-C or SIGTERM. Prints `ready ADDRESS` once the node serves, and
/// `http ADDRESS` once its gateway does.
pub fn main(args: Args) -> ExitCode {
    if let Some(why) = args.unused_http_option() {
        dkv_base::complain!("error: {why}");
        return ExitCode::from(USAGE);
    }
    let audit = match args.node.audit_options() {
        Ok(audit) => audit,
        Err(unused) => {
            dkv_base::complain!("error: {unused}");
            return ExitCode::from(USAGE);
        }
    };
    dkv_node::process(args.node.threads, args.node.log_format, audit.as_ref(), run(args))
}

/// Why HTTP is not served. The process logs it and tries again.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("{0}")]
    NoAuthority(#[from] NoAuthority),
    #[error("serving HTTP {0}; this is a bug in dkv")]
    Panicked(#[from] Panicked),
}

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Etcd(#[from] dkv_etcd::ListenError),
}

async fn run(args: Args) -> Result<(), DaemonError> {
    // First, so that no signal is lost.
    let stop = dkv_node::stop_signal();
    if args.http.http.is_none() && args.etcd.etcd.is_none() {
        let ready =
            |serving: dkv_node::Serving| dkv_node::say(&format!("ready {}", serving.address));
        return Ok(dkv_node::run(args.node, ready, stop).await?);
    }
    // Bound first, so that a wrong address is reported at once.
    let http = match args.http.http {
        Some(address) => Some(Listener::bind(address, &args.http).await?),
        None => None,
    };
    let etcd = etcd::bind(&args).await?;
    let (stopping, stopped) = watch::channel(false);
    let (serving, served) = oneshot::channel();
    let (serving_etcd, served_etcd) = oneshot::channel();
    let mut faces = JoinSet::new();
    if let Some(listener) = http {
        faces.spawn(keep_serving(listener, args.clone(), served, stopped.clone()));
    }
    if let Some(listener) = etcd {
        faces.spawn(etcd::keep_serving(listener, args.clone(), served_etcd, stopped));
    }
    let ready = |started: dkv_node::Serving| {
        dkv_node::say(&format!("ready {}", started.address));
        let _ = serving.send(started.observer);
        let _ = serving_etcd.send(());
    };
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let ended = dkv_node::run(args.node, ready, stop).await;
    // Other nodes answer the requests that the faces received before their node stopped.
    let all = async { while faces.join_next().await.is_some() {} };
    if ended.is_ok() && tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        warn!("requests of other protocols were still in progress");
    }
    Ok(ended?)
}

/// Serves HTTP from when the node serves until the process stops. A failure does not end the node:
/// it is logged, and HTTP starts again.
async fn keep_serving(
    listener: Listener,
    args: Args,
    node: oneshot::Receiver<Observer>,
    mut stopped: watch::Receiver<bool>,
) {
    let observer = tokio::select! {
        observer = node => match observer {
            Ok(observer) => observer,
            // The node did not start.
            Err(_) => return,
        },
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    let mut next = Some(listener);
    loop {
        let listener = match next.take() {
            Some(listener) => Ok(listener),
            None => match args.http.http {
                Some(address) => {
                    Listener::bind(address, &args.http).await.map_err(GatewayError::from)
                }
                None => return,
            },
        };
        let ended = match listener {
            Ok(listener) => {
                let serving = serve(listener, &args, observer.clone(), stopped.clone());
                caught(serving).await.unwrap_or_else(|panicked| Err(panicked.into()))
            }
            Err(error) => Err(error),
        };
        match ended {
            Err(error) if !*stopped.borrow() => {
                warn!(%error, "HTTP is not served; trying again");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            _ => return,
        }
    }
}

/// Serves HTTP until the process stops.
async fn serve(
    listener: Listener,
    args: &Args,
    observer: Observer,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), GatewayError> {
    let server = args.node.server.clone();
    let client = tokio::select! {
        client = join("HTTP", args, &server) => client,
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let access = dkv_gateway::access(&client, &args.http, listener.address())?;
    let extra_metrics = Arc::new(move |text: &mut dkv_gateway::metrics::Exposition| {
        if let Some(figures) = observer.figures() {
            metrics::expose(&figures, text);
        }
    });
    let options = Options { network: server, access, extra_metrics: Some(extra_metrics) };
    let app = App::new(client.clone(), options);
    dkv_node::say(&format!("http {}", listener.address()));
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    listener.serve(app, stop).await;
    client.close().await;
    Ok(())
}

/// Joins the network as the client of a face; retries until it succeeds.
async fn join(face: &str, args: &Args, server: &str) -> Client {
    let mut logged = None;
    loop {
        let mut builder = Client::builder().server(server);
        if let Some(file) = &args.http_token_file {
            builder = builder.token_file(file);
        }
        match builder.connect().await {
            Ok(client) => {
                info!("{face} joined as {}", client.identity());
                return client;
            }
            Err(error) => {
                let text = explain(&error);
                if logged.as_ref() != Some(&text) {
                    warn!("{face} waits to join: {text}");
                    logged = Some(text);
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

fn explain(error: &ConnectError) -> String {
    match error {
        ConnectError::NoCredentials { .. } => {
            format!("{error}; give a client token with --http-token-file")
        }
        _ => error.to_string(),
    }
}
