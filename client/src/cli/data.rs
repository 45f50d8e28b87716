//! Arguments of the commands for values, for files of records and for tokens.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use dkv_api::{Role, User};
use dkv_base::number::whole_number;
use dkv_console::units::parse_duration;

use super::Connect;
use super::choices::{HOW_TO_WRITE, ROLES};

/// The end of the help of `txn`.
pub(super) const TRANSACTION_HELP: &str = "\
The operations after then are executed if all conditions hold, those after else if one does not: \
as a whole, at one revision, once. Words are quoted as in a shell; # begins a comment.

  if KEY = VALUE         also !=, < and >, in the order of bytes
  if KEY exists          or: if KEY absent
  if revision KEY = N    the revision of the last write; created: of the first one
  if version KEY > N     the number of writes since the key was created
  then
  put KEY VALUE          get KEY, delete KEY, increment KEY [N], append KEY VALUE
  else
  get KEY                the same operations

A transaction that begins with { is the JSON that the gateway's /v1/txn takes.

It prints the branch, the revision, and a line for each operation. If a condition does not hold, \
the exit status is 0 if the transaction has an else, 4 otherwise.

Examples:
  dkv txn order.txt
  printf 'if lock absent\\nthen\\nput lock me\\n' | dkv txn
  dkv txn --json < order.txt";

/// Arguments of `put`, `insert` and `update`.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) key: OsString,
    /// The value: - reads standard input, @FILE reads a file, @@TEXT is the text @TEXT, and @=TEXT
    /// is TEXT whatever it contains. Bytes are stored unchanged
    #[arg(allow_negative_numbers = true, value_hint = ValueHint::FilePath)]
    pub(crate) value: OsString,
    /// A level and a condition
    #[arg(value_name = "HOW", value_parser = HOW_TO_WRITE)]
    pub(crate) how: Vec<OsString>,
    /// Delete the key after this time, as in 30s, unless it is written again
    #[arg(long, value_name = "TIME", conflicts_with = "lease", value_hint = ValueHint::Other)]
    pub(crate) ttl: Option<OsString>,
    /// Delete the key when this lease ends, unless it is written again
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    pub(crate) lease: Option<OsString>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Arguments of `load`.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,

    /// Read every record back afterwards and compare it
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Arguments of `load` and `verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TransferArgs {
    /// File of records; - means standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// Format of the file [default: from its extension .csv, .tsv, .json, .jsonl or .ndjson,
    /// otherwise lines]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Accept a file with NUL or other control bytes outside of quotes
    #[arg(long)]
    pub(crate) binary: bool,

    /// Number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = whole_number(1..=4096_u16), allow_negative_numbers = true)]
    pub(crate) in_flight: u16,

    /// How long to retry a record while the network is unavailable
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration,
        allow_negative_numbers = true)]
    pub(crate) retry: Duration,

    /// The file, if it is open already and can be read repeatedly.
    #[arg(skip)]
    pub(crate) opened: Option<Arc<File>>,

    /// The name of the file in results, if it is another one.
    #[arg(skip)]
    pub(crate) shown: Option<String>,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Key, tab, value
    Tsv,
    /// Key, comma, value; either may be in double quotes
    Csv,
    /// The line is the key, its number is the value
    Lines,
    /// One JSON object per line, with key and value, or key_base64 and value_base64
    Json,
}

/// Arguments of `token`.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Create a token and print it; it is shown only once
    #[command(override_usage = "dkv [ADDRESS] token create [OPTIONS]")]
    Create {
        /// Role of those who join with it; a reader is a client that may only read, and a server
        /// signs certificates: its token lives for an hour and admits one, unless said otherwise
        #[arg(long, default_value = "node", value_parser = ROLES)]
        role: Role,
        /// Create a token for HTTP, which a program sends to a gateway as Authorization: Bearer
        /// TOKEN. Its text is not stored; holders lists it, and revoke ID revokes it
        #[arg(long, conflicts_with_all = ["role", "uses"])]
        http: bool,
        /// Allow only reads; with --http, or with --role client, which makes a reader
        #[arg(long)]
        read_only: bool,
        /// Time until it expires, as in 1h or 7d [default: 90d with --http, otherwise never]
        #[arg(long, visible_alias = "ttl", value_name = "TIME", value_parser = parse_duration,
            allow_negative_numbers = true)]
        life: Option<Duration>,
        /// Keep it valid until it is revoked
        #[arg(long, conflicts_with = "life")]
        never_expires: bool,
        /// Name under which the token and its holders are listed
        #[arg(long, value_name = "NAME", value_parser = dkv_wire::name::parse_name)]
        name: Option<String>,
        /// User that those who join with it are, or that its bearer is: they may do only what the
        /// policies of the user allow; not for nodes and servers [default: none: what their role
        /// may]
        #[arg(long, value_name = "USER", value_hint = ValueHint::Other)]
        user: Option<User>,
        /// How often it can be used [default: no limit]
        #[arg(long, value_name = "N", value_parser = whole_number(1..=u32::MAX),
            allow_negative_numbers = true)]
        uses: Option<u32>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List all tokens, without their secrets
    #[command(override_usage = "dkv [ADDRESS] token list [OPTIONS]")]
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Revoke a token, so that it admits no one any more
    #[command(override_usage = "dkv [ADDRESS] token revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the token, as list shows it, or its beginning
        #[arg(value_hint = ValueHint::Other)]
        id: String,
        /// Also revoke everyone whom it admitted
        #[arg(long)]
        with_holders: bool,
        #[command(flatten)]
        connect: Connect,
    },
}
