//! The command line: what may be written, and its help.
//!
//! The first argument is the address of a network's server or, for what needs no network yet, a
//! word (`local`, `drill`, `server`, `node`, `gateway`, `completions`). After an address come commands, or one of the
//! words that do more than one request (`status`, `load`, `token` and so on).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dkv_api::{HolderId, Level, Region, Role, Uuid};

use crate::human::parse_time;

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
        status|scan|load|verify|token|remove|revoke ...\n       dkv local|drill|server|node|completions ...",
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
    /// Refuse the holder of a certificate from now on
    #[command(override_usage = "dkv <ADDRESS> revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the holder, as token list and the logs show it
        id: HolderId,
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

/// Arguments of `load`.
#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) transfer: Transfer,

    /// Afterwards, read every record back and compare
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Arguments of `load` and `verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Transfer {
    /// File of records, one a line
    pub(crate) file: PathBuf,

    /// How a line is a record [default: by the name of the file, .tsv or .csv, else lines]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Requests that are under way at the same time
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) in_flight: u16,

    /// Time that one record may go on being tried while the network does not answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub(crate) retry: Duration,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// How a line is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Key, tab, value
    Tsv,
    /// Key, comma, value; either may be in double quotes
    Csv,
    /// The line is the key, its number the value
    Lines,
}

/// Arguments of `token`.
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it; it is shown this once only
    #[command(override_usage = "dkv <ADDRESS> token create [OPTIONS]")]
    Create {
        /// What its bearers become: node, client or admin
        #[arg(long, default_value = "node", value_parser = token_role)]
        role: Role,
        /// A token that a program shows to a gateway, as in Authorization: Bearer TOKEN. It is not kept
        /// and not listed; revoke ID ends it early
        #[arg(long, conflicts_with_all = ["role", "uses"])]
        http: bool,
        /// One that may only read
        #[arg(long, requires = "http")]
        read_only: bool,
        /// Time that it lives, as in 1h or 7d [default: for good]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        life: Option<Duration>,
        /// How often it may be used [default: any number of times]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List all tokens, without their secrets
    #[command(override_usage = "dkv <ADDRESS> token list [OPTIONS]")]
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a token admit nobody any more
    #[command(override_usage = "dkv <ADDRESS> token revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the token, as list shows it
        id: Uuid,
        #[command(flatten)]
        connect: Connect,
    },
}

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

    /// Nodes of the network
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: u16,

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
    /// Nothing is done: you do it, to a network that you name
    ByHand,
    /// All that can be done to a network of its own, one after the other
    All,
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

fn level(text: &str) -> Result<Level, String> {
    crate::grammar::level(text.as_bytes())
        .ok_or_else(|| format!("write {}", crate::grammar::LEVELS))
}

fn token_role(text: &str) -> Result<Role, String> {
    match text.parse() {
        Ok(role @ (Role::Node | Role::Client | Role::Admin)) => Ok(role),
        _ => Err("write node, client or admin".into()),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
