//! The command line: what may be written, and its help.
//!
//! An address may come first, and then commands: one by its word with operands and options, as in
//! `get color`, or several, each in one argument, as in `W,color,blue R,color`. [`Word`] has all
//! words; `word` says what each needs, `address` what an address is and which is the usual one,
//! `choices` which operands a shell can complete.

mod address;
mod choices;
mod data;
mod local;
mod word;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use dkv_api::{Level, Region, RunChoice};
use dkv_base::variables;

use self::address::addresses;
use self::choices::{HOW_TO_DELETE, HOW_TO_READ, HOW_TO_WRITE, LEVELS, TOPICS};
use crate::human::parse_time;

pub(crate) use address::{Addresses, usual};
pub(crate) use word::is_network_word;

pub(crate) use data::{Format, Load, Token, TokenAction, Transfer};
pub(crate) use local::{Drill, Fault, Local, Rehearse};

const EXAMPLES: &str = "\
Commands, upper case; several are run in order:
  R,<key>          print the value of a key
  W,<key>,<value>  store a value, which may hold commas
  D,<key>          remove a key
  T,<ms>           wait
or in words, as in: get KEY, put KEY VALUE [if-absent]; several, each in quotes: \"put a 1\" \"get a\"

Examples:
  dkv local --nodes 3                             a network on this machine
  dkv W,color,blue R,color                        write, then read
  dkv                                             a prompt; from a pipe, commands line by line
  dkv put \"a key\" @FILE                           store a file; - stores standard input
  dkv 10.0.0.1:4400 status                        how another network is
  dkv scan user/ --limit 10 --output json         keys in order, for programs
  dkv load words.txt --verify                     store the records of a file, and compare
  dkv help token create                           the help of a command

ADDRESS is that of the registration server: HOST or HOST:PORT, or several with commas between them.
By default it is in the variable DKV_SERVER, or else that of the server this user runs on this machine.

Exit status (the most serious of several commands):
  0  done                      5  unavailable; nothing was changed
  1  failed                    6  outcome unknown: a change may have happened
  2  wrong command line        7  denied
  3  key not found             8  written, but not on every replica (level all)
  4  conflict: a condition does not hold";

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
    pub(crate) word: Option<Word>,
}

/// One command of the command line by itself.
#[derive(Debug, Parser)]
#[command(name = "dkv", no_binary_name = true, disable_help_subcommand = true)]
pub(crate) struct OneWord {
    #[command(subcommand)]
    pub(crate) word: Word,
}

/// A command line that was understood.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where the server is, if that was said.
    pub(crate) address: Option<Addresses>,
    /// Commands to run in order.
    pub(crate) commands: Vec<OsString>,
    /// How to connect.
    pub(crate) connect: Connect,
    /// A command by its word, which comes after the others.
    pub(crate) word: Option<Word>,
}

impl Line {
    /// Reads the arguments of the process, the first of which is its own name.
    ///
    /// # Errors
    /// What is wrong with them, or the help that they ask for.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let parsed = variables::parse_from(arguments.clone());
        let Cli { address, mut commands, connect, word } =
            parsed.map_err(|error| address::before_alone(&arguments).unwrap_or(error))?;
        let address = match address {
            // The first word may be a command as well as an address.
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
        Ok(Self { address, commands, connect, word })
    }
}

/// How to connect.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connect {
    /// What requests guarantee: strong (every finished write is seen), session (the nearest
    /// replica, and at least what these commands have written and read), eventual (the nearest
    /// replica) or all (strong, and every replica has it) [default: strong]
    #[arg(long, value_parser = LEVELS, hide_possible_values = true, visible_alias = "consistency")]
    pub(crate) level: Option<Level>,

    /// Time limit of each request, as in 500ms or 5s; a number alone is in seconds [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_time, value_hint = ValueHint::Other)]
    pub(crate) timeout: Option<Duration>,

    /// Region of this client: eventual reads are answered there if possible [default: the replica
    /// that answers soonest]
    #[arg(long, env = "DKV_REGION", value_hint = ValueHint::Other)]
    pub(crate) region: Option<Region>,

    /// File with a join token [default: the one that a server on this machine left for this user]
    #[arg(long, value_name = "FILE", env = "DKV_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// Results as text for people, or as JSON for programs [default: text]
    #[arg(long, value_name = "FORM", value_enum)]
    pub(crate) output: Option<Output>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON object a line, and errors as JSON on standard error
    Json,
}

impl Connect {
    /// These options, and where they are silent those of the other.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            level: self.level.or(other.level),
            timeout: self.timeout.or(other.timeout),
            region: self.region.or(other.region),
            token_file: self.token_file.or(other.token_file),
            output: self.output.or(other.output),
        }
    }

    /// Whether results are documents.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Some(Output::Json)
    }

    /// An option that says how to connect, and so comes too late for a single command. What a
    /// variable says is for every command, and none of its options.
    pub(crate) fn of_connection(&self) -> Option<&'static str> {
        self.typed(&["--level", "--timeout", "--region", "--token-file"])
    }

    /// The first of these options that was typed.
    pub(crate) fn typed(&self, options: &[&str]) -> Option<&'static str> {
        let region = self.region.as_ref().map(|region| OsStr::new(region.as_str()));
        let token_file = self.token_file.as_ref().map(|file| file.as_os_str());
        let typed = |value: Option<&OsStr>, variable: &str| {
            value.is_some_and(|value| Some(value) != variables::value(variable).as_deref())
        };
        let given = [
            (self.level.is_some(), "--level"),
            (self.timeout.is_some(), "--timeout"),
            (typed(region, "DKV_REGION"), "--region"),
            (typed(token_file, "DKV_TOKEN_FILE"), "--token-file"),
        ];
        given
            .into_iter()
            .find(|(given, name)| *given && options.contains(name))
            .map(|(_, name)| name)
    }
}

/// A command with its operands and options.
#[derive(Debug, Subcommand)]
pub(crate) enum Word {
    /// Print the value of a key
    #[command(
        override_usage = "dkv [ADDRESS] get <KEY> [LEVEL] [max-staleness MS] [at-least REVISION]"
    )]
    Get {
        /// The key
        #[arg(value_hint = ValueHint::Other)]
        key: OsString,
        /// A level, and bounds of an eventual read
        #[arg(value_name = "HOW", value_parser = HOW_TO_READ)]
        how: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Store a value
    #[command(override_usage = "dkv [ADDRESS] put <KEY> <VALUE> [LEVEL] \
        [if-absent|if-present|if-revision N]")]
    Put(Put),
    /// Store a value if the key does not exist
    #[command(override_usage = "dkv [ADDRESS] insert <KEY> <VALUE> [LEVEL]")]
    Insert(Put),
    /// Store a value if the key exists
    #[command(override_usage = "dkv [ADDRESS] update <KEY> <VALUE> [LEVEL]")]
    Update(Put),
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
    /// Wait that many milliseconds
    #[command(override_usage = "dkv [ADDRESS] wait <MS>")]
    Wait {
        /// Milliseconds
        #[arg(value_hint = ValueHint::Other, allow_negative_numbers = true)]
        ms: OsString,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the nodes
    #[command(override_usage = "dkv [ADDRESS] nodes [OPTIONS]")]
    Nodes {
        /// Commands to run after it
        #[arg(hide = true, value_hint = ValueHint::Other)]
        then: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the state of the network: nodes, shards, lag, how many more failures it tolerates
    #[command(override_usage = "dkv [ADDRESS] status [OPTIONS]")]
    Status {
        /// Print a JSON document for programs, as --output json does
        #[arg(long)]
        json: bool,
        /// Commands to run after it
        #[arg(hide = true, value_hint = ValueHint::Other)]
        then: Vec<OsString>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List keys with their values, in order, as CSV that load takes
    #[command(override_usage = "dkv [ADDRESS] scan [PREFIX] [OPTIONS]")]
    Scan {
        /// Keys that begin with this [default: all]
        #[arg(value_hint = ValueHint::Other)]
        prefix: Option<OsString>,
        /// Keys after this one, which need not exist
        #[arg(long, value_name = "KEY", value_hint = ValueHint::Other)]
        after: Option<OsString>,
        /// At most so many keys
        #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
        limit: Option<u64>,
        /// Print the keys alone
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Load records from a file in bulk
    #[command(override_usage = "dkv [ADDRESS] load <FILE> [OPTIONS]")]
    Load(Load),
    /// Read the records of a file back and compare
    #[command(override_usage = "dkv [ADDRESS] verify <FILE> [OPTIONS]")]
    Verify(Transfer),
    /// Create, list and revoke join tokens
    #[command(override_usage = "dkv [ADDRESS] token create|list|revoke [OPTIONS]")]
    Token(Token),
    /// Move everything off a node, and say when it may be switched off
    #[command(override_usage = "dkv [ADDRESS] drain <NODE> [OPTIONS]")]
    Drain {
        /// Name or id of the node, or the beginning of its id
        #[arg(value_hint = ValueHint::Other)]
        node: String,
        /// Use the node again
        #[arg(long)]
        undo: bool,
        /// Do not wait until the node is empty
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Even out what the nodes hold and lead, now
    #[command(override_usage = "dkv [ADDRESS] rebalance [OPTIONS]")]
    Rebalance {
        /// Show what would move, and move nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove a node from the network for good
    #[command(override_usage = "dkv [ADDRESS] remove <NODE> [OPTIONS]")]
    Remove {
        /// Name or id of the node, or the beginning of its id
        #[arg(value_hint = ValueHint::Other)]
        node: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// List everybody who was let in: nodes, administrators, clients, readers, bearer tokens
    #[command(override_usage = "dkv [ADDRESS] holders [OPTIONS]")]
    Holders {
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Say which of a node's processes goes on, where two run or one has an older copy of its data
    #[command(override_usage = "dkv [ADDRESS] keep <NODE> <IP:PORT|START> [OPTIONS]")]
    Keep {
        /// Name or id of the node, or the beginning of its id
        #[arg(value_hint = ValueHint::Other)]
        node: String,
        /// Where the process that goes on listens, or the number of its start, as status shows them
        #[arg(value_name = "IP:PORT|START", value_parser = run_choice, value_hint = ValueHint::Other)]
        run: RunChoice,
        #[command(flatten)]
        connect: Connect,
    },
    /// Refuse the holder of a certificate or bearer token from now on
    #[command(override_usage = "dkv [ADDRESS] revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the holder, as holders and the logs show it, or the beginning of it
        #[arg(value_hint = ValueHint::Other)]
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Run a network on this machine, with a prompt to try it out
    Local(Local),
    /// Inject a fault into a network, and check that it keeps its promises
    Drill(Drill),
    /// Measure the latency of each level across regions
    Rehearse(Rehearse),
    /// Run a registration server (the same as dkv-server)
    Server(dkv_server::Args),
    /// Run a node (the same as dkv-node)
    Node(dkv_daemon::Args),
    /// Serve HTTP in front of a network
    Gateway(Gateway),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Show the help of a command
    Help {
        /// The command, as in help token create
        #[arg(value_name = "COMMAND", value_parser = TOPICS, hide_possible_values = true)]
        topic: Vec<String>,
    },
}

/// Arguments of `put`, `insert` and `update`.
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The key
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) key: OsString,
    /// The value; - stands for standard input, @FILE for a file, @@TEXT for the text @TEXT, and
    /// @=TEXT for TEXT whatever it is. Any bytes are stored as they are
    #[arg(allow_negative_numbers = true, value_hint = ValueHint::FilePath)]
    pub(crate) value: OsString,
    /// A level and a condition
    #[arg(value_name = "HOW", value_parser = HOW_TO_WRITE)]
    pub(crate) how: Vec<OsString>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Arguments of `gateway`.
///
/// Serves HTTP/1.1 and HTTP/2. On loopback whoever reaches it reads and writes with the rights of a
/// client; elsewhere it takes TLS and tokens, unless it is told otherwise. It stops on Ctrl-C and
/// SIGTERM.
///
/// Without SERVER and --http, the variables IP and PORT say where it listens, and there is a
/// network of one node behind it, in a temporary directory; with MAINIP=IP:PORT it forwards /kvs to
/// the instance there.
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

fn run_choice(text: &str) -> Result<RunChoice, String> {
    let address = text.parse().map(RunChoice::Address);
    let choice = address.or_else(|_| text.parse().map(RunChoice::Start));
    choice.map_err(|_| "use an address as in 10.0.0.2:4401, or the number of a start".to_owned())
}

#[cfg(test)]
mod tests;
