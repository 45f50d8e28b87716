//! The command line: what may be written, and its help.
//!
//! The first argument is the address of a network's server or, for what needs no network yet, a
//! word (`local`, `drill`, `server`, `node`, `gateway`, `completions`). After an address come commands, or one of the
//! words that do more than one request (`status`, `load`, `token` and so on).

mod data;
mod local;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use dkv_api::{Level, Region, RunChoice};

use crate::human::parse_time;

pub(crate) use data::{Format, Load, Token, TokenAction, Transfer};
pub(crate) use local::{Drill, Fault, Local, Rehearse};

const EXAMPLES: &str = "\
Commands, upper case; several are run in order:
  R,<key>          print the value of a key
  W,<key>,<value>  store a value, which may hold commas
  D,<key>          remove a key
  T,<ms>           wait
or the words of the prompt, as in: get KEY, put KEY VALUE [if-absent]

Examples:
  dkv local --nodes 3                             a network on this machine
  dkv 127.0.0.1:4400 W,color,blue R,color         write, then read
  dkv 127.0.0.1:4400                              a prompt; from a pipe, commands line by line
  dkv 127.0.0.1:4400 put \"a key\" \"some value\"     words, with quotes as the shell has them
  dkv 127.0.0.1:4400 status                       how the network is
  dkv 127.0.0.1:4400 scan user/ --limit 10        keys in order, with their values
  dkv 127.0.0.1:4400 load words.txt --verify      store a file, and compare

Exit status: 0 if everything succeeded, 1 if something failed, 2 if the command line is wrong.";

/// A replicated key-value store: its client, server, nodes and local networks
///
/// With an address and nothing more, `dkv` shows a prompt, or reads commands from a pipe.
#[derive(Debug, Parser)]
#[command(
    name = "dkv",
    version,
    after_help = EXAMPLES,
    override_usage = "dkv [OPTIONS] <ADDRESS> [COMMAND]...\n       dkv [OPTIONS] <ADDRESS> \
        status|scan|load|verify|token|holders|remove|keep|revoke ...\n       dkv local|drill|server|node|completions ...",
    subcommand_value_name = "WORD",
    subcommand_help_heading = "Words",
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Where the registration server is: host or host:port (4400 unless named); several with
    /// commas between them
    #[arg(value_parser = addresses)]
    pub(crate) address: Option<Addresses>,

    /// Commands to run in order
    #[arg(value_name = "COMMAND", allow_negative_numbers = true)]
    pub(crate) commands: Vec<OsString>,

    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) word: Option<Word>,
}

/// How to connect.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connect {
    /// What requests guarantee: strong (never older than what was finished before), session (what the
    /// nearest replica has, never older than what these commands have written and read), eventual (what
    /// the nearest replica has) or all (strong, and every replica has it) [default: strong]
    #[arg(long, value_parser = level, visible_alias = "consistency")]
    pub(crate) level: Option<Level>,

    /// Time that each request may take, as in 500ms or 5s [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// Region that you are in: eventual reads are answered there if they can be [default: whoever is
    /// reached soonest]
    #[arg(long, env = "DKV_REGION")]
    pub(crate) region: Option<Region>,

    /// File with a join token [default: what a server of this machine has left for you]
    #[arg(long, value_name = "FILE", env = "DKV_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl Connect {
    /// These options, and where they are silent those of the other.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            level: self.level.or(other.level),
            timeout: self.timeout.or(other.timeout),
            region: self.region.or(other.region),
            token_file: self.token_file.or(other.token_file),
        }
    }
}

/// What is not a command.
#[derive(Debug, Subcommand)]
pub(crate) enum Word {
    /// Show how the network is: nodes, shards, lag, how many more may fail
    #[command(override_usage = "dkv <ADDRESS> status [OPTIONS]")]
    Status {
        /// Print a JSON document for programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List keys with their values, in order, as CSV that load takes
    #[command(override_usage = "dkv <ADDRESS> scan [PREFIX] [OPTIONS]")]
    Scan {
        /// Keys that begin with this [default: all]
        prefix: Option<OsString>,
        /// Keys after this one, which need not exist
        #[arg(long, value_name = "KEY")]
        after: Option<OsString>,
        /// So many at most
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Print the keys alone
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Store the records of a file, many at a time
    #[command(override_usage = "dkv <ADDRESS> load <FILE> [OPTIONS]")]
    Load(Load),
    /// Read the records of a file back and compare
    #[command(override_usage = "dkv <ADDRESS> verify <FILE> [OPTIONS]")]
    Verify(Transfer),
    /// Make, list and revoke join tokens
    #[command(override_usage = "dkv <ADDRESS> token create|list|revoke [OPTIONS]")]
    Token(Token),
    /// Empty a node, and say when it may be switched off
    #[command(override_usage = "dkv <ADDRESS> drain <NODE> [OPTIONS]")]
    Drain {
        /// Name or id of the node, or the beginning of its id
        node: String,
        /// Take it back: use the node again
        #[arg(long)]
        undo: bool,
        /// Do not wait until it is empty
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Even out what the nodes hold and lead, now
    #[command(override_usage = "dkv <ADDRESS> rebalance [OPTIONS]")]
    Rebalance {
        /// Show what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove a node from the network for good
    #[command(override_usage = "dkv <ADDRESS> remove <NODE> [OPTIONS]")]
    Remove {
        /// Name or id of the node, or the beginning of its id
        node: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// List everybody who was let in: nodes, administrators, clients, readers, bearer tokens
    #[command(override_usage = "dkv <ADDRESS> holders [OPTIONS]")]
    Holders {
        /// Print a JSON document for programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Say which of a node's processes goes on, where two run or one has an older copy of its data
    #[command(override_usage = "dkv <ADDRESS> keep <NODE> <IP:PORT|START> [OPTIONS]")]
    Keep {
        /// Name or id of the node, or the beginning of its id
        node: String,
        /// Where the process that goes on listens, or the number of its start, as status shows them
        #[arg(value_name = "IP:PORT|START", value_parser = run_choice)]
        run: RunChoice,
        #[command(flatten)]
        connect: Connect,
    },
    /// Refuse the holder of a certificate or bearer token from now on
    #[command(override_usage = "dkv <ADDRESS> revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the holder, as holders and the logs show it, or the beginning of it
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Run a server and nodes on this machine, and a prompt to play with them
    Local(Local),
    /// Break a network on purpose, and see whether it keeps its promises
    Drill(Drill),
    /// Measure what each level costs from each region of a network that is far apart
    Rehearse(Rehearse),
    /// Run a registration server (the same as dkv-server)
    Server(dkv_server::Args),
    /// Run a node (the same as dkv-node)
    Node(dkv_daemon::Args),
    /// Put HTTP in front of a network
    Gateway(Gateway),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Word {
    /// Its word, and whether it needs a network.
    pub(crate) fn needs_address(&self) -> Option<&'static str> {
        match self {
            Self::Status { .. } => Some("status"),
            Self::Scan { .. } => Some("scan"),
            Self::Load(_) => Some("load FILE"),
            Self::Verify(_) => Some("verify FILE"),
            Self::Token(_) => Some("token list"),
            Self::Drain { .. } => Some("drain NODE"),
            Self::Rebalance { .. } => Some("rebalance"),
            Self::Remove { .. } => Some("remove NODE"),
            Self::Holders { .. } => Some("holders"),
            Self::Keep { .. } => Some("keep NODE IP:PORT"),
            Self::Revoke { .. } => Some("revoke ID"),
            Self::Local(_)
            | Self::Drill(_)
            | Self::Rehearse(_)
            | Self::Server(_)
            | Self::Node(_)
            | Self::Gateway(_)
            | Self::Completions { .. } => None,
        }
    }
}

/// Arguments of `gateway`.
///
/// Serves HTTP/1.1 and HTTP/2. On loopback whoever reaches it reads and writes with the rights of a
/// client; elsewhere it takes TLS and tokens, unless it is told otherwise. It stops on Ctrl-C and
/// SIGTERM.
///
/// Without SERVER and --http, the variables IP and PORT say where it listens, and there is a network
/// of one node behind it, in a temporary directory; with MAINIP=IP:PORT it forwards /kvs to the
/// instance there.
#[derive(Args, Clone, Debug)]
pub(crate) struct Gateway {
    /// Where the registration server is
    #[arg(value_name = "SERVER", value_parser = addresses)]
    pub(crate) server: Option<Addresses>,

    #[command(flatten)]
    pub(crate) http: dkv_gateway::Args,

    /// Directory of its own network, kept at the end [default: a temporary one, removed at the end]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Addresses of the server, in the order to try them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<String>);

fn addresses(text: &str) -> Result<Addresses, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let first = parts.first().copied().unwrap_or_default();
    if parts.len() > 1 && ["R", "W", "D", "T"].contains(&first.to_uppercase().as_str()) {
        return Err(format!(
            "this is a command; the address of the server comes before it, as in dkv \
             127.0.0.1:4400 {text}"
        ));
    }
    for part in &parts {
        let port = match part.rsplit_once(':') {
            // An IPv6 address without brackets has colons and no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some(port),
            _ => None,
        };
        let good = |it: char| it.is_alphanumeric() || "-._:[]%".contains(it);
        if part.is_empty()
            || (part.starts_with(':') && !part.starts_with("::"))
            || !part.chars().all(good)
        {
            return Err(format!(
                "{part:?} is neither an address nor a word that dkv knows; an address is a host or \
                 host:port, as in 127.0.0.1:4400"
            ));
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(format!("{part:?} has no port from 0 to 65535 after its colon"));
        }
    }
    Ok(Addresses(parts.into_iter().map(str::to_owned).collect()))
}

fn run_choice(text: &str) -> Result<RunChoice, String> {
    let address = text.parse().map(RunChoice::Address);
    let choice = address.or_else(|_| text.parse().map(RunChoice::Start));
    choice.map_err(|_| "write an address as in 10.0.0.2:4401, or the number of a start".to_owned())
}

fn level(text: &str) -> Result<Level, String> {
    crate::grammar::level(text.as_bytes())
        .ok_or_else(|| format!("write {}", crate::grammar::LEVELS))
}

#[cfg(test)]
mod tests;
