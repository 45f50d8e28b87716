//! The command line and its help.
//!
//! An optional address comes first, then commands: one subcommand with operands and options, as in
//! `get color`, or several commands, each in one argument, as in `W,color,blue R,color`.
//! [`Subcommand`] has all subcommands; `subcommand` says what each needs, `address` parses
//! addresses and finds the default one, and `choices` lists the operands that a shell can complete.

mod address;
mod backup;
mod choices;
mod connect;
mod data;
mod examples;
mod import_etcd;
mod keyspace;
mod lease;
mod local;
mod nodes;
mod policy;
mod recover;
mod seeing;
mod subcommand;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, ValueHint};
use dkv_api::RunChoice;
use dkv_base::number::whole_number;
use dkv_base::variables;

use self::address::addresses;
use self::backup::{IMPORT_HELP, RESTORE_HELP};
use self::choices::{HOW_TO_DELETE, HOW_TO_READ, TOPICS};
use self::data::TRANSACTION_HELP;
use self::examples::EXAMPLES;
use self::lease::LOCK_HELP;

pub(crate) use address::{Addresses, DefaultError, default_addresses};
pub(crate) use backup::{
    BackupAction, BackupArgs, ExportArgs, ExportFormat, ImportAction, ImportArgs, ImportFormat,
    RestoreArgs,
};
pub(crate) use connect::{Connect, Output};
pub(crate) use import_etcd::ImportEtcdArgs;
pub(crate) use subcommand::is_network_word;

pub(crate) use data::{Format, LoadArgs, PutArgs, TokenAction, TokenArgs, TransferArgs};
pub(crate) use keyspace::{HistoryLimit, KeyspaceAction, KeyspaceArgs, Quota};
pub(crate) use lease::{LeaseAction, LeaseArgs, LockArgs};
pub(crate) use local::{DrillArgs, LocalArgs, RehearseArgs};
pub(crate) use nodes::RemoveArgs;
pub(crate) use policy::{CanArgs, PolicyAction, PolicyArgs, RuleKeys};
pub(crate) use recover::{RecoverAction, RecoverArgs, RecoverGroupArgs};
pub(crate) use seeing::{DebugAction, DebugArgs, DoctorArgs, ExplainArgs, LogArgs};

/// A replicated key-value store: its client, server, nodes and local networks
///
/// Without a command, `dkv` shows a prompt, or reads commands from a pipe.
#[derive(Debug, Parser)]
#[command(
    name = "dkv",
    version,
    after_help = EXAMPLES,
    override_usage = "dkv [OPTIONS] [ADDRESS] [COMMAND]...",
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands",
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Address of the registration server [default: see below]
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) address: Option<OsString>,

    /// Commands to run in order
    #[arg(value_name = "COMMAND", allow_negative_numbers = true, value_hint = ValueHint::Other)]
    pub(crate) commands: Vec<OsString>,

    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) subcommand: Option<Subcommand>,
}

/// A subcommand alone, as a prompt reads it.
#[derive(Debug, Parser)]
#[command(name = "dkv", no_binary_name = true, disable_help_subcommand = true)]
pub(crate) struct SingleSubcommand {
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Line {
    /// Address of the server, if given.
    pub(crate) address: Option<Addresses>,
    /// Commands to run in order.
    pub(crate) commands: Vec<OsString>,
    /// How to connect.
    pub(crate) connect: Connect,
    /// A subcommand, which runs after the other commands.
    pub(crate) subcommand: Option<Subcommand>,
}

impl Line {
    /// Parses the arguments of the process, of which the first is its name.
    ///
    /// # Errors
    /// A mistake in them, or the help that they ask for.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let parsed = variables::parse_from(arguments.clone());
        let Cli { address, mut commands, connect, subcommand } =
            parsed.map_err(|error| address::before_alone(&arguments).unwrap_or(error))?;
        let address = match address {
            // The first argument may be a command or an address.
            Some(first) if address::is_command(first.as_bytes()) => {
                commands.insert(0, first);
                None
            }
            Some(first) => {
                let read = addresses(&first.to_string_lossy());
                let wrong = |why| Cli::command().error(ErrorKind::ValueValidation, why);
                Some(read.map_err(wrong)?)
            }
            None => None,
        };
        Ok(Self { address, commands, connect, subcommand })
    }
}

/// A subcommand with its operands and options.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Print the value of a key
    #[command(
        override_usage = "dkv [ADDRESS] get <KEY> [LEVEL] [max-staleness MS] [at-least REVISION]\n       \
            dkv [ADDRESS] get <KEY> --revision <N>",
        after_help = "Examples:\n  \
            dkv get color\n  \
            dkv get color eventual max-staleness 500\n  \
            dkv get color --revision 17          the value as it was at revision 17"
    )]
    Get {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// A level, and bounds for an eventual read
        #[arg(value_name = "HOW", value_parser = HOW_TO_READ)]
        how: Vec<OsString>,
        /// Print the value that the key had at this revision of its shard
        #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
        revision: Option<u64>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Store a value
    #[command(override_usage = "dkv [ADDRESS] put <KEY> <VALUE> [LEVEL] \
        [if-absent|if-present|if-revision N] [--ttl TIME|--lease ID]")]
    Put(PutArgs),
    /// Store a value if the key does not exist
    #[command(
        override_usage = "dkv [ADDRESS] insert <KEY> <VALUE> [LEVEL] [--ttl TIME|--lease ID]"
    )]
    Insert(PutArgs),
    /// Store a value if the key exists
    #[command(
        override_usage = "dkv [ADDRESS] update <KEY> <VALUE> [LEVEL] [--ttl TIME|--lease ID]"
    )]
    Update(PutArgs),
    /// Remove a key
    #[command(override_usage = "dkv [ADDRESS] delete <KEY> [LEVEL] [if-present|if-revision N]")]
    Delete {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// A level and a condition
        #[arg(value_name = "HOW", value_parser = HOW_TO_DELETE)]
        how: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Add to the number that is the value of a key, and print the sum
    #[command(
        override_usage = "dkv [ADDRESS] increment <KEY> [N] [OPTIONS]",
        after_help = "A key that does not exist counts as 0. The command is executed exactly \
            once, even if it is resent.\n\nExamples:\n  \
            dkv increment visits\n  \
            dkv increment stock -5"
    )]
    Increment {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// The number to add
        #[arg(value_name = "N", default_value_t = 1, allow_negative_numbers = true,
            value_hint = ValueHint::Other)]
        by: i64,
        #[command(flatten)]
        connect: Connect,
    },
    /// Append to the value of a key
    #[command(
        override_usage = "dkv [ADDRESS] append <KEY> <VALUE> [OPTIONS]",
        after_help = "A key that does not exist counts as empty. The command is executed \
            exactly once, even if it is resent.\n\nExamples:\n  \
            dkv append log \"a line\"\n  \
            dkv append log @FILE"
    )]
    Append {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// The bytes to append; -, @FILE, @@TEXT and @=TEXT as for put
        #[arg(allow_negative_numbers = true, value_hint = ValueHint::FilePath)]
        value: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// Execute a transaction
    #[command(
        override_usage = "dkv [ADDRESS] txn [FILE] [OPTIONS]",
        after_help = TRANSACTION_HELP
    )]
    Txn {
        /// File of the transaction; - means standard input
        #[arg(default_value = "-", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show how long a key will live
    #[command(override_usage = "dkv [ADDRESS] ttl <KEY> [OPTIONS]")]
    Ttl {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// Grant leases, which keys can belong to, keep them alive, list and end them
    Lease(LeaseArgs),
    /// Run a command while this process has a lock
    #[command(
        override_usage = "dkv [ADDRESS] lock <NAME> [OPTIONS] -- <COMMAND>...",
        after_help = LOCK_HELP
    )]
    Lock(LockArgs),
    /// Show what each replica has of a key
    #[command(override_usage = "dkv [ADDRESS] search <KEY> [OPTIONS]")]
    Search {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// List what one node holds, as CSV
    #[command(override_usage = "dkv [ADDRESS] show-all <NODE> [OPTIONS]")]
    ShowAll {
        /// Name of the node
        #[arg(value_hint = ValueHint::Other)]
        node: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// Wait for some milliseconds
    #[command(override_usage = "dkv [ADDRESS] wait <MS>")]
    Wait {
        /// Number of milliseconds
        #[arg(value_hint = ValueHint::Other, allow_negative_numbers = true)]
        ms: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the nodes
    #[command(override_usage = "dkv [ADDRESS] nodes [OPTIONS]")]
    Nodes {
        /// Commands to run afterwards
        #[arg(hide = true, value_hint = ValueHint::Other)]
        then: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the state of the network: nodes, shards, lag, and how many more failures it tolerates
    #[command(override_usage = "dkv [ADDRESS] status [OPTIONS]")]
    Status {
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        /// Commands to run afterwards
        #[arg(hide = true, value_hint = ValueHint::Other)]
        then: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    Explain(ExplainArgs),
    Doctor(DoctorArgs),
    Debug(DebugArgs),
    Log(LogArgs),
    /// List keys and values in order, as CSV that load accepts
    #[command(override_usage = "dkv [ADDRESS] scan [PREFIX] [OPTIONS]")]
    Scan {
        /// List only keys that begin with this [default: all keys]
        #[arg(value_hint = ValueHint::Other)]
        prefix: Option<OsString>,
        /// List only keys after this one, which need not exist
        #[arg(long, value_name = "KEY", value_hint = ValueHint::Other)]
        after: Option<OsString>,
        /// List at most this many keys
        #[arg(long, value_name = "N", value_parser = whole_number(0..=u64::MAX),
            allow_negative_numbers = true, value_hint = ValueHint::Other)]
        limit: Option<u64>,
        /// Print only the keys
        #[arg(long)]
        keys: bool,
        /// List the keys as they were at this revision; only in a keyspace with one shard
        #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
        revision: Option<u64>,
        /// List the keys as they are at one moment, the same for all shards
        #[arg(long, conflicts_with = "revision")]
        snapshot: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the versions of a key, newest first
    #[command(
        override_usage = "dkv [ADDRESS] history <KEY> [OPTIONS]",
        after_help = "A shard keeps earlier versions for some minutes, or until compact forgets \
            them.\n\nExamples:\n  \
            dkv history color\n  \
            dkv history color --limit 10 --json\n  \
            dkv history color --before 17        versions before revision 17"
    )]
    History {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// List at most this many versions
        #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
        limit: Option<u64>,
        /// List only versions before this revision
        #[arg(long, value_name = "REVISION", value_hint = ValueHint::Other)]
        before: Option<u64>,
        /// Print one JSON object per version; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show changes as they happen, until Ctrl-C
    #[command(
        override_usage = "dkv [ADDRESS] watch [PREFIX] [OPTIONS]\n       \
            dkv [ADDRESS] watch <KEY> --key [OPTIONS]",
        after_help = "On exit it prints the position to resume from. Each \
            change comes once, whichever nodes fail meanwhile.\n\nExamples:\n  \
            dkv watch                            all keys\n  \
            dkv watch user/ --previous           keys that begin with user/, and what they were\n  \
            dkv watch color --key                one key\n  \
            dkv watch user/ --from 1:500,2:33    what changed after that position\n  \
            dkv watch --from 500 --json          after a revision, in a keyspace with one shard"
    )]
    Watch {
        /// Show only keys that begin with this [default: all keys]
        #[arg(value_name = "PREFIX", value_hint = ValueHint::Other)]
        keys: Option<OsString>,
        /// Take PREFIX as one key
        #[arg(long, requires = "keys")]
        key: bool,
        /// Show what changed after this position, which an earlier watch printed, or after this
        /// revision [default: what changes from now on]
        #[arg(long, value_name = "TOKEN|REVISION", value_hint = ValueHint::Other)]
        from: Option<String>,
        /// Show the value before each change too
        #[arg(long)]
        previous: bool,
        /// Print one JSON object per change; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Forget the history of a shard before a revision
    #[command(
        override_usage = "dkv [ADDRESS] compact --revision <N> [--shard <S>] --yes [OPTIONS]",
        after_help = "Earlier revisions can then no longer be read or watched; the newest value of \
            each key stays. History is also forgotten by itself, when it is old or large.\n\n\
            Examples:\n  \
            dkv compact --revision 500 --yes\n  \
            dkv compact --shard 2 --revision 33 --yes"
    )]
    Compact {
        /// The earliest revision that can be read from then on
        #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
        revision: u64,
        /// Number of the shard [default: the only one]
        #[arg(long, value_name = "S", value_hint = ValueHint::Other)]
        shard: Option<u32>,
        /// Confirm it: forgotten history cannot be restored
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Store the records of a file
    #[command(override_usage = "dkv [ADDRESS] load <FILE> [OPTIONS]")]
    Load(LoadArgs),
    /// Compare the records of a file with the network
    #[command(override_usage = "dkv [ADDRESS] verify <FILE> [OPTIONS]")]
    Verify(TransferArgs),
    /// Print keys and values as they are at one moment, as records that import takes
    #[command(override_usage = "dkv [ADDRESS] export [PREFIX] [OPTIONS]")]
    Export(ExportArgs),
    /// Store the records of a file, or the keys of Redis, Consul or etcd
    #[command(override_usage = "dkv [ADDRESS] import <FILE|URL> [OPTIONS]\n       \
        dkv [ADDRESS] import etcd <SOURCE> [OPTIONS]", after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Back up the network, list, check and prune backups
    #[command(override_usage = "dkv [ADDRESS] backup create|follow|list|show|verify|prune <DEST>")]
    Backup(BackupArgs),
    /// Restore keyspaces from a backup, never over what is there
    #[command(override_usage = "dkv [ADDRESS] restore <DEST> [OPTIONS]", after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Recover a network that has permanently lost majorities, from the remaining data directories
    #[command(override_usage = "dkv [ADDRESS] recover group <DATA_DIR>... [OPTIONS]")]
    Recover(RecoverArgs),
    /// Create, list, change and drop keyspaces: sets of keys with shards and settings of their own
    #[command(override_usage = "dkv [ADDRESS] keyspace create|list|show|set|drop [OPTIONS]")]
    Keyspace(KeyspaceArgs),
    /// Create, change, list and drop policies, and grant them to users
    #[command(override_usage = "dkv [ADDRESS] policy create|set|list|show|drop|grant|revoke \
        [OPTIONS]")]
    Policy(PolicyArgs),
    /// Show who you are in the network, and which policies limit you
    #[command(override_usage = "dkv [ADDRESS] whoami [OPTIONS]")]
    Whoami {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show whether a user may do something with a key
    #[command(
        override_usage = "dkv [ADDRESS] can <USER> <RIGHT> <KEY> [--prefix] [OPTIONS]",
        after_help = "The exit status is 0 for yes and 7 for no. The role of a credential bounds \
            its user further: a reader does not write.\n\nExamples:\n  \
            dkv can alice read billing/2031\n  \
            dkv can alice watch billing/ --prefix --keyspace k8s"
    )]
    Can(CanArgs),
    /// Create, list and revoke join tokens
    #[command(override_usage = "dkv [ADDRESS] token create|list|revoke [OPTIONS]")]
    Token(TokenArgs),
    /// Move everything off a node, and report when it may be switched off
    #[command(override_usage = "dkv [ADDRESS] drain <NODE> [OPTIONS]")]
    Drain {
        /// Name of the node, its id, or the beginning of its id
        #[arg(value_hint = ValueHint::Other)]
        node: String,
        /// Put the node back into use
        #[arg(long)]
        undo: bool,
        /// Do not wait until the node is empty
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Balance replicas and primaries over the nodes now
    #[command(override_usage = "dkv [ADDRESS] rebalance [OPTIONS]")]
    Rebalance {
        /// Show what would move, without moving anything
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove a node from the network permanently
    ///
    /// It gives up its replicas, delivers what only it has, and ends. With --at-once, for a node
    /// that is not to be trusted, all others refuse it from then on, and what only it has is lost.
    #[command(override_usage = "dkv [ADDRESS] remove <NODE> [--at-once [--yes <NAME>]] [OPTIONS]")]
    Remove {
        #[command(flatten)]
        which: RemoveArgs,
        #[command(flatten)]
        connect: Connect,
    },
    /// List all admitted nodes, administrators, clients and readers, and all bearer tokens
    #[command(override_usage = "dkv [ADDRESS] holders [OPTIONS]")]
    Holders {
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Choose which process of a node continues, if two run or one has an older copy of its data
    #[command(override_usage = "dkv [ADDRESS] keep <NODE> <IP:PORT|START> [OPTIONS]")]
    Keep {
        /// Name of the node, its id, or the beginning of its id
        #[arg(value_hint = ValueHint::Other)]
        node: String,
        /// Address of the process to keep, or the number of its start, as status shows them
        #[arg(value_name = "IP:PORT|START", value_parser = choices::run_choice, value_hint = ValueHint::Other)]
        run: RunChoice,
        #[command(flatten)]
        connect: Connect,
    },
    /// Revoke the certificate or bearer token of a holder
    #[command(override_usage = "dkv [ADDRESS] revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the holder, as holders and the logs show it, or its beginning
        #[arg(value_hint = ValueHint::Other)]
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Run a network on this machine, with a prompt
    Local(LocalArgs),
    /// Inject a fault into a network and check that it keeps its promises
    Drill(DrillArgs),
    /// Measure the latency of each level across regions
    Rehearse(RehearseArgs),
    /// Run a registration server (the same as dkv-server)
    Server(dkv_server::Args),
    /// Run a node (the same as dkv-node)
    Node(dkv_daemon::Args),
    /// Serve HTTP or etcd's interface in front of a network
    Gateway(GatewayArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all commands to a folder
    Manual {
        /// The folder, which is created if it does not exist
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Show the help of a command
    Help {
        /// Command, as in help token create
        #[arg(value_name = "COMMAND", value_parser = TOPICS, hide_possible_values = true)]
        topic: Vec<String>,
    },
}

/// Arguments of `gateway`.
///
/// Serves HTTP/1.1 and HTTP/2. On loopback, anyone who can connect reads and writes with the rights
/// of a client; on other addresses, TLS and tokens are required unless options say otherwise.
/// Ctrl-C and SIGTERM stop it.
///
/// With --etcd, it serves etcd's v3 interface, over gRPC and JSON; and HTTP beside it only with
/// --http.
///
/// Without SERVER and --http, the variables IP and PORT set the address, and the gateway runs its
/// own network of one node in a temporary directory; with MAINIP=IP:PORT, it forwards /kvs to the
/// instance at that address.
#[derive(Args, Clone, Debug)]
pub(crate) struct GatewayArgs {
    /// Address of the registration server
    #[arg(value_name = "SERVER", value_parser = addresses)]
    pub(crate) server: Option<Addresses>,

    #[command(flatten)]
    pub(crate) http: dkv_gateway::Args,

    #[command(flatten, next_help_heading = "etcd's interface")]
    pub(crate) etcd: dkv_etcd::Args,

    /// Directory of its own network, kept at the end [default: a temporary one, removed at the end]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,

    /// The audit log.
    #[command(flatten)]
    pub(crate) audit: dkv_base::audit::AuditArgs,

    /// Form of the log's lines: text, or json for one object per line
    #[arg(long, value_name = "FORM", env = "DKV_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: dkv_base::logging::Format,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

#[cfg(test)]
mod tests;
