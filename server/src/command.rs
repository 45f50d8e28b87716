//! The server as a command: arguments, output and signals.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dkv_base::audit::{self, AuditArgs};
use dkv_base::id::NodeId;
use dkv_base::logging::{self, Format, Targets};
use dkv_base::signals::{Signals, Starting};
use dkv_base::{complain, durable};
use dkv_wire::identity::Role;
use tracing::info;

use crate::config::Config;
use crate::server::{Server, StartError};

/// The configuration file that is read if it exists and no other is named.
const DEFAULT_FILE: &str = "config.json";

/// Starts the registration server of a network
///
/// The first start in a data directory creates the network; later starts continue it. The server
/// prints the command that starts a node. It stops on Ctrl-C and SIGTERM; nodes keep serving
/// without it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Configuration file [default: config.json, if there is one here]
    #[arg(short, long, value_name = "FILE", env = "DKV_CONFIG")]
    pub config: Option<PathBuf>,

    /// Address to listen on, instead of the file's; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", env = "DKV_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Directory of the network's authority, tokens and registry, instead of the file's
    #[arg(long, value_name = "DIR", env = "DKV_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where others reach it, if that is not where it listens
    #[arg(long, value_name = "IP:PORT", env = "DKV_ADVERTISE")]
    pub advertise: Option<SocketAddr>,

    /// Join the network of a running server as another one, if the data directory is empty; several
    /// addresses are separated by commas
    #[arg(long, value_name = "SERVER", env = "DKV_JOIN")]
    pub join: Option<String>,

    /// File with the text of a server token, to join with [default: the variable DKV_TOKEN]
    #[arg(long, value_name = "FILE", env = "DKV_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Trust reports of this node; `dkv NODE:PORT status` shows its id. Needed only if all voters
    /// of the control group that the server knew were replaced while it was down
    #[arg(long, value_name = "NODE")]
    pub trust_voter: Option<NodeId>,

    /// The audit log, instead of the file's.
    #[command(flatten)]
    pub audit: AuditArgs,

    /// Form of the log's lines: text, or json for one object per line
    #[arg(long, value_name = "FORM", env = "DKV_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
}

impl Args {
    /// Merges the arguments into the configuration file, or into the defaults.
    pub fn into_config(self) -> Result<Config, StartError> {
        let named = self.config.or_else(|| {
            let default = Path::new(DEFAULT_FILE);
            // One that cannot be looked at may be there: reading it says what is wrong.
            default.try_exists().unwrap_or(true).then(|| default.to_owned())
        });
        let mut config = match named {
            Some(file) => Config::load(&file)?,
            None => Config::default(),
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(data_dir) = self.data_dir {
            config.data_dir = data_dir;
        }
        if self.advertise.is_some() {
            config.advertise = self.advertise;
        }
        config.trust_voter = self.trust_voter;
        config.join = self.join;
        config.token_file = self.token_file;
        config.audit = self.audit.over(config.audit)?;
        Ok(config)
    }
}

/// Runs a server until a signal stops it.
///
/// Logs go to standard error, filtered by `DKV_LOG` (default `info`); a log that cannot be written
/// stops nothing. Standard output shows what to do next, and ends with the line `ready IP:PORT`
/// once the server accepts connections. If standard output cannot be written, the server warns on
/// standard error and keeps serving.
pub async fn run(args: Args) -> Result<(), StartError> {
    // First, so that no signal is lost.
    let mut signals = Signals::watch().map_err(StartError::Signals)?;
    let starting = Starting::begin().map_err(StartError::Signals)?;
    let _log = logging::start("info", Targets::Shown, args.log_format)?;
    durable::keep_files_private();
    let config = args.into_config()?;
    let _audit = audit::start(config.audit.as_ref(), "server")?;
    let server = Server::start(config).await?;
    drop(starting);
    if let Err(error) = greet(&server, &mut io::stdout().lock()) {
        complain!(
            "warning: cannot write to standard output: {error}; the server is running at {}",
            server.address()
        );
    }
    let failed = tokio::select! {
        () = signals.stop() => None,
        failed = server.failed() => Some(failed),
    };
    info!("stopping");
    server.shutdown().await;
    failed.map_or(Ok(()), Err)
}

/// Prints the state of the network and the next commands to type; the last line tells programs
/// that the server is ready.
fn greet(server: &Server, out: &mut impl Write) -> io::Result<()> {
    let registry = server.registry();
    let address = server.address();
    let state = match (server.is_new(), registry.coordinator()) {
        (true, None) => "new, no nodes yet".to_owned(),
        (true, Some((name, _))) => {
            format!("joined, {} nodes, coordinator {name}", registry.node_count())
        }
        (false, None) => match registry.node_count() {
            0 => "no nodes yet".to_owned(),
            nodes => format!("{nodes} nodes registered, no coordinator has reported yet"),
        },
        (false, Some((name, term))) => {
            format!("{} nodes, coordinator {name} since term {term}", registry.node_count())
        }
    };
    writeln!(out, "network  {} ({state})", server.network())?;
    writeln!(out, "address  {address}")?;
    writeln!(out, "data     {}", server.data_dir().display())?;
    writeln!(out)?;
    let token = server.token_file(Role::Node);
    if !server.is_founding() {
        writeln!(
            out,
            "To add a node, create a token with dkv token create --role node, and type:"
        )?;
        writeln!(out, "  dkv-node {} --token-file node.token", server.advertised())?;
        writeln!(out)?;
        writeln!(out, "ready {address}")?;
        return out.flush();
    }
    if address.ip().is_loopback() {
        writeln!(out, "To add a node, type on this machine:")?;
        writeln!(out, "  dkv-node {address}")?;
    } else {
        let reachable = server.advertised();
        writeln!(out, "To add a node on this machine, type:")?;
        writeln!(out, "  dkv-node {reachable}")?;
        writeln!(out, "On another machine, copy the join token there and name it:")?;
        writeln!(out, "  scp {} OTHER-MACHINE:node.token", token.display())?;
        writeln!(out, "  dkv-node {reachable} --token-file node.token")?;
    }
    if let Err(why) = server.node_token() {
        writeln!(
            out,
            "The initial node token {why}; create one with dkv token create --role node"
        )?;
    }
    writeln!(out)?;
    writeln!(out, "ready {address}")?;
    out.flush()
}
