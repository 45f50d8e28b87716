//! A node as a process: the node itself and, if it is asked for, a gateway in the same process.
//!
//! The two know each other as everybody else does: the gateway is a client of the network, with a
//! certificate of its own and a client's rights, whatever its node may do. It asks the primaries
//! over QUIC, which for the shards that its own node leads is a way through the loopback. What only
//! the process can know, the node's figures, it adds to `/metrics`.
//!
//! The node never waits for its gateway: it serves while that has no certificate yet, or cannot
//! find a server to join with.
#![forbid(unsafe_code)]

mod figures;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dkv_api::{Client, ConnectError};
use dkv_base::supervise::caught;
use dkv_base::variables;
use dkv_gateway::{App, Listener, Options};
use dkv_node::{NodeError, Observer};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

/// Large values come and go in all sizes, and glibc's allocator gave back little of what they had
/// taken: a node took half as much again as it held (docs/decisions.md, "The allocator").
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status where the command line is wrong.
const USAGE: u8 = 2;
/// Time between two attempts of the gateway to join.
const AGAIN: Duration = Duration::from_secs(2);
/// Time that the gateway has to end after its node.
const END: Duration = Duration::from_secs(5);

/// How a node is started.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// The node.
    #[command(flatten)]
    pub node: dkv_node::Args,

    /// HTTP in front of it.
    #[command(flatten, next_help_heading = "HTTP, as a client of the network")]
    pub http: dkv_gateway::Args,

    /// File with the text of a client token for HTTP [default: the one that a server on this
    /// machine left for its user]
    #[arg(
        long,
        value_name = "FILE",
        env = "DKV_HTTP_TOKEN_FILE",
        help_heading = "HTTP, as a client of the network"
    )]
    pub http_token_file: Option<PathBuf>,
}

impl Args {
    /// What is wrong with options that say how HTTP is served where none is.
    fn misused(&self) -> Option<String> {
        if self.http.http.is_some() {
            return None;
        }
        let host = (!self.http.host.is_empty()).then_some("--host");
        let token_file = self.http_token_file.as_ref().map(|_| "--http-token-file");
        let option = self.http.option_given().or(host).or(token_file)?;
        let name = variables::name_of::<Cli>(option);
        Some(format!(
            "{name} says how HTTP is served, and none is: add --http IP:PORT, or leave it out"
        ))
    }
}

/// All that a process knows of its command line is how the node is started.
#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    _args: Args,
}

/// Runs a node as a process does: until Ctrl-C or SIGTERM. Prints `ready ADDRESS` once it serves,
/// and `http ADDRESS` once HTTP does.
pub fn main(args: Args) -> ExitCode {
    if let Some(why) = args.misused() {
        dkv_base::complain!("error: {why}");
        return ExitCode::from(USAGE);
    }
    dkv_node::process(args.node.threads, run(args))
}

async fn run(args: Args) -> Result<(), NodeError> {
    // Before anything can be told to stop.
    let stop = dkv_node::stop_signal();
    let Some(address) = args.http.http else {
        let ready =
            |serving: dkv_node::Serving| dkv_node::say(&format!("ready {}", serving.address));
        return dkv_node::run(args.node, ready, stop).await;
    };
    // First, so that what is wrong with it is said at once.
    let listener = Listener::bind(address, &args.http).await.map_err(NodeError::new)?;
    let (serving, served) = oneshot::channel();
    let (stopping, stopped) = watch::channel(false);
    let gateway = tokio::spawn(keep_serving(listener, args.clone(), served, stopped));
    let ready = |started: dkv_node::Serving| {
        dkv_node::say(&format!("ready {}", started.address));
        let _ = serving.send(started.observer);
    };
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let ended = dkv_node::run(args.node, ready, stop).await;
    // What it was asked before the node stopped is answered by others.
    if ended.is_ok() && tokio::time::timeout(END, gateway).await.is_err() {
        warn!("HTTP requests were still under way");
    }
    ended
}

/// Serves HTTP, from when the node serves until the process is told to stop. What ends it before
/// does not end the node: it is told, and HTTP begins anew.
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
                    Listener::bind(address, &args.http).await.map_err(|e| e.to_string())
                }
                None => return,
            },
        };
        let ended = match listener {
            Ok(listener) => {
                let serving = serve(listener, &args, observer.clone(), stopped.clone());
                caught(serving).await.unwrap_or_else(|panicked| {
                    Err(format!("serving HTTP {panicked}; this is a fault in dkv"))
                })
            }
            Err(why) => Err(why),
        };
        match ended {
            Err(why) if !*stopped.borrow() => {
                warn!(why, "HTTP is not served, and is tried again");
                tokio::time::sleep(AGAIN).await;
            }
            _ => return,
        }
    }
}

/// Serves HTTP until the process is told to stop.
async fn serve(
    listener: Listener,
    args: &Args,
    observer: Observer,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let server = args.node.server.clone();
    let client = tokio::select! {
        client = join(args, &server) => client,
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let access = dkv_gateway::access(&client, &args.http, listener.address())?;
    let figures = Arc::new(move |text: &mut dkv_gateway::metrics::Exposition| {
        if let Some(figures) = observer.figures() {
            figures::expose(&figures, text);
        }
    });
    let options = Options { network: server, access, figures: Some(figures) };
    let app = App::new(client.clone(), options);
    dkv_node::say(&format!("http {}", listener.address()));
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    listener.serve(app, stop).await;
    client.close().await;
    Ok(())
}

/// Joins the network as a client, however long that takes.
async fn join(args: &Args, server: &str) -> Client {
    let mut said = None;
    loop {
        let mut builder = Client::builder().server(server);
        if let Some(file) = &args.http_token_file {
            builder = builder.token_file(file);
        }
        match builder.connect().await {
            Ok(client) => {
                info!("HTTP has joined as {}", client.identity());
                return client;
            }
            Err(error) => {
                let text = explain(&error);
                if said.as_ref() != Some(&text) {
                    warn!("HTTP waits: {text}");
                    said = Some(text);
                }
                tokio::time::sleep(AGAIN).await;
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
