//! Arguments of `keyspace`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use dkv_base::number::whole_number;
use dkv_console::units::{parse_bytes, parse_duration};
use dkv_wire::limits::{REPLICATION_MAX, SHARDS_MAX};
use dkv_wire::name::parse_name;

use super::Connect;

/// Arguments of `keyspace`.
#[derive(Args, Debug)]
pub(crate) struct KeyspaceArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: KeyspaceAction,
}

/// What to do with keyspaces.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyspaceAction {
    /// Create a keyspace, and wait until it serves
    #[command(
        override_usage = "dkv [ADDRESS] keyspace create <NAME> [OPTIONS]",
        after_help = "A keyspace with one shard has one order of revisions: transactions, lists at \
            a revision and watches from one are over all of its keys.\n\nExamples:\n  \
            dkv keyspace create k8s --quota 4GiB\n  \
            dkv keyspace create logs --shards 8 --history 1h,1GiB"
    )]
    Create {
        /// Its name
        #[arg(value_parser = parse_name, value_hint = ValueHint::Other)]
        name: String,
        /// Number of shards, which cannot be changed later
        #[arg(long, value_name = "N", default_value_t = 1,
            value_parser = whole_number(1..=SHARDS_MAX), allow_negative_numbers = true)]
        shards: u32,
        /// Number of replicas of each shard that vote
        #[arg(long, value_name = "N", default_value_t = 3,
            value_parser = whole_number(1..=REPLICATION_MAX), allow_negative_numbers = true)]
        replication: u32,
        /// Age and size up to which earlier versions are kept, as in 10m, 64MiB or 10m,64MiB
        #[arg(long, value_name = "TIME|SIZE", value_delimiter = ',', value_parser = history_limit)]
        history: Vec<HistoryLimit>,
        /// Total size above which writes that add data are refused, as in 4GiB
        #[arg(long, value_name = "SIZE", value_parser = quota)]
        quota: Option<Quota>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the keyspaces
    #[command(override_usage = "dkv [ADDRESS] keyspace list [OPTIONS]")]
    List {
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the settings of a keyspace, and how much it holds
    #[command(override_usage = "dkv [ADDRESS] keyspace show <NAME> [OPTIONS]")]
    Show {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Change the settings of a keyspace
    #[command(
        override_usage = "dkv [ADDRESS] keyspace set <NAME> [OPTIONS]",
        after_help = "Examples:\n  \
            dkv keyspace set k8s --quota 8GiB\n  \
            dkv keyspace set k8s --quota none --replication 5\n  \
            dkv keyspace set default --history 1h"
    )]
    Set {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// Number of replicas of each shard that vote
        #[arg(long, value_name = "N", value_parser = whole_number(1..=REPLICATION_MAX),
            allow_negative_numbers = true)]
        replication: Option<u32>,
        /// Age and size up to which earlier versions are kept, as in 10m, 64MiB or 10m,64MiB
        #[arg(long, value_name = "TIME|SIZE", value_delimiter = ',', value_parser = history_limit)]
        history: Vec<HistoryLimit>,
        /// Total size above which writes that add data are refused, as in 4GiB;
        /// none for no limit
        #[arg(long, value_name = "SIZE|none", value_parser = quota)]
        quota: Option<Quota>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Drop a keyspace with all its keys and their history, permanently
    #[command(override_usage = "dkv [ADDRESS] keyspace drop <NAME> [--yes <NAME>] [OPTIONS]")]
    Drop {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// The name once more, as the confirmation; without it, a terminal is asked
        #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
        yes: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
}

impl KeyspaceAction {
    /// Returns its connection options.
    pub(super) fn connect(&self) -> &Connect {
        match self {
            Self::Create { connect, .. }
            | Self::List { connect, .. }
            | Self::Show { connect, .. }
            | Self::Set { connect, .. }
            | Self::Drop { connect, .. } => connect,
        }
    }

    /// Returns whether it changes something.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Set { .. } | Self::Drop { .. })
    }

    /// Returns whether its result is to be a JSON document.
    pub(crate) fn json(&self) -> bool {
        matches!(self, Self::List { json: true, .. } | Self::Show { json: true, .. })
    }
}

/// A limit of the history of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryLimit {
    Age(Duration),
    Bytes(u64),
}

/// The quota of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota(pub(crate) Option<u64>);

/// A text is neither a time nor a size. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a time or a size with its unit, such as 10m, 1h, 64MiB or 1GiB")]
pub(crate) struct HistoryLimitError;

fn history_limit(text: &str) -> Result<HistoryLimit, HistoryLimitError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The unit is missing.
        return Err(HistoryLimitError);
    }
    let age = parse_duration(text).map(HistoryLimit::Age);
    age.or_else(|_| parse_bytes(text).map(HistoryLimit::Bytes)).map_err(|_| HistoryLimitError)
}

/// A text is no size and not `none`. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a size such as 512MiB or 4GiB, or none")]
pub(crate) struct QuotaError;

fn quota(text: &str) -> Result<Quota, QuotaError> {
    match text {
        "none" => Ok(Quota(None)),
        text => parse_bytes(text).map(|bytes| Quota(Some(bytes))).map_err(|_| QuotaError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_times_and_sizes() {
        let minutes = Duration::from_secs(600);
        assert_eq!(history_limit("10m"), Ok(HistoryLimit::Age(minutes)));
        assert_eq!(history_limit("64MiB"), Ok(HistoryLimit::Bytes(64 << 20)));
        for wrong in ["", "10", "x", "-1m", "0s", "10m64MiB", "none"] {
            assert_eq!(history_limit(wrong), Err(HistoryLimitError), "{wrong}");
        }
        assert_eq!(quota("4GiB"), Ok(Quota(Some(4 << 30))));
        assert_eq!(quota("none"), Ok(Quota(None)));
        assert_eq!(quota("much"), Err(QuotaError));
    }
}
