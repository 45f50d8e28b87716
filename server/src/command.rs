//! The server as a command: arguments, what it prints, signals.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use dkv_base::id::NodeId;
use dkv_base::logging::{self, Targets};
use dkv_base::signals::{Signals, Starting};
use dkv_base::{complain, durable};
use dkv_wire::identity::Role;
use tracing::info;

use crate::config::Config;
use crate::server::{Server, StartError};

/// The file that is read if it is there and none was named.
const DEFAULT_FILE: &str = "config.json";

/// Starts the registration server of a network
///
/// The first start in a data directory creates the network; every later one goes on from it. The
/// server prints the command that starts a node. It stops on Ctrl-C and SIGTERM; a network that
/// has nodes serves on without it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Configuration file [default: config.json, if there is one here]
    #[arg(short, long, value_name = "FILE", env = "DKV_CONFIG")]
    pub config: Option<PathBuf>,

    /// Address to listen on, instead of the file's; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", env = "DKV_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Directory of the network's authority, tokens and books, instead of the file's
    #[arg(long, value_name = "DIR", env = "DKV_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Take reports from this node, whose id `dkv NODE:PORT status` shows: only if all the voters
    /// of the control group that the server knew were replaced while it was down
    #[arg(long, value_name = "NODE")]
    pub trust_voter: Option<NodeId>,
}

impl Args {
    /// The configuration that the arguments come to.
    pub fn into_config(self) -> Result<Config, StartError> {
        let named = self.config.or_else(|| {
            let default = Path::new(DEFAULT_FILE);
            default.exists().then(|| default.to_owned())
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
        config.trust_voter = self.trust_voter;
        Ok(config)
    }
}

/// Runs a server until it is told to stop.
///
/// Logs go to standard error, as far as `DKV_LOG` asks for them (`info` if it is not set); that
/// they cannot be written stops nothing. Standard output tells people what to do next, and ends
/// with the line `ready IP:PORT` once the server can be connected to; if that cannot be written, a
/// line on standard error says so, and the server serves.
pub async fn run(args: Args) -> Result<(), StartError> {
    // Before anything can be told to stop us.
    let mut signals = Signals::watch().map_err(StartError::Signals)?;
    let starting = Starting::begin().map_err(StartError::Signals)?;
    let _log = logging::start("info", Targets::Shown)?;
    durable::keep_files_private();
    let config = args.into_config()?;
    let server = Server::start(config).await?;
    drop(starting);
    if let Err(error) = greet(&server, &mut io::stdout().lock()) {
        complain!(
            "warning: cannot write to standard output: {error}; the server serves all the same, at {}",
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

/// Tells people what is there and what to type next, and programs that the server is ready.
fn greet(server: &Server, out: &mut impl Write) -> io::Result<()> {
    let registry = server.registry();
    let address = server.address();
    let state = match (server.is_new(), registry.coordinator()) {
        (true, _) => "new, without nodes".to_owned(),
        (false, None) => match registry.node_count() {
            0 => "without nodes".to_owned(),
            nodes => format!("{nodes} registered, none has reported as coordinator yet"),
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
    if address.ip().is_loopback() {
        writeln!(out, "To add a node, type on this machine:")?;
        writeln!(out, "  dkv-node {address}")?;
    } else {
        let reachable = reachable_address(address);
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

/// The address that other machines most likely reach a wildcard address at.
fn reachable_address(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it makes the system choose the address that it would
    // send from. The destinations are those set aside for documentation (RFC 5737, RFC 3849).
    let chosen = |from: &str, to: &str| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let ip = chosen("0.0.0.0", "192.0.2.1").or_else(|error| match address {
        SocketAddr::V6(_) => chosen("::", "2001:db8::1"),
        SocketAddr::V4(_) => Err(error),
    });
    match ip {
        Ok(ip) if !ip.is_unspecified() => SocketAddr::new(ip, address.port()),
        _ => SocketAddr::from(([127, 0, 0, 1], address.port())),
    }
}
