//! Arguments of the commands that move files of records, and of those about join tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use dkv_api::Role;
use dkv_console::units::parse_time;

use super::Connect;
use super::choices::ROLES;

/// Arguments of `load`.
#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) transfer: Transfer,

    /// Read every record back afterwards, and compare
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Arguments of `load` and `verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Transfer {
    /// File of records; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// Format of the file [default: by its extension .csv, .tsv, .json, .jsonl or .ndjson,
    /// otherwise lines]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Take a file with NUL or other control bytes outside of quotes, which is refused otherwise
    #[arg(long)]
    pub(crate) binary: bool,

    /// Requests in flight at the same time
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) in_flight: u16,

    /// How long a record is retried while the network is unavailable
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
    /// A JSON object a line with key and value, or key_base64 and value_base64
    Json,
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
    /// Create a token and print it; it is shown only once
    #[command(override_usage = "dkv [ADDRESS] token create [OPTIONS]")]
    Create {
        /// What its bearers become; a reader is a client that only reads
        #[arg(long, default_value = "node", value_parser = ROLES)]
        role: Role,
        /// A token for HTTP, which a program sends to a gateway as Authorization: Bearer TOKEN. Its
        /// text is not kept; holders lists it, and revoke ID ends it early
        #[arg(long, conflicts_with_all = ["role", "uses"])]
        http: bool,
        /// May only read: with --http, or with --role client, which makes a reader
        #[arg(long)]
        read_only: bool,
        /// Time until it expires, as in 1h or 7d [default: 90d with --http, otherwise never]
        #[arg(long, visible_alias = "ttl", value_name = "TIME", value_parser = parse_time)]
        life: Option<Duration>,
        /// Let it live until it is revoked
        #[arg(long, conflicts_with = "life")]
        never_expires: bool,
        /// Name under which it and those whom it admits are listed
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<String>,
        /// How often it can be used [default: any number of times]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
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
    /// Revoke a token: it admits nobody any more
    #[command(override_usage = "dkv [ADDRESS] token revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the token, as list shows it, or the beginning of it
        #[arg(value_hint = ValueHint::Other)]
        id: String,
        /// Revoke everybody whom it admitted as well
        #[arg(long)]
        with_holders: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

fn name(text: &str) -> Result<String, String> {
    dkv_wire::name::check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
