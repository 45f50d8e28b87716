//! Arguments of `backup`, `restore`, `export` and `import`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use dkv_base::number::whole_number;
use dkv_console::units::{parse_bytes, parse_duration, parse_timestamp};
use dkv_wire::name::parse_name;

use super::import_etcd::IMPORT_ETCD_HELP;
use super::{Connect, Format, ImportEtcdArgs};

/// The end of the help of `restore`.
pub(super) const RESTORE_HELP: &str = "\
A keyspace that has keys is never touched: restore into a new network, or under another name. A \
keyspace that does not exist is created with the settings that it had. If a restore is interrupted, \
restoring that keyspace again goes on with it (with --keyspace NAME if others are whole already). At the end everything is compared with the backup.

Keys, values, leases and expiries come back; revisions are new. A lease starts again with its \
full time, and a key that expires has the time that it had left at that moment.

Examples:
  dkv restore /mnt/backup                              everything, as of the last moment
  dkv restore s3://backups/dkv --keyspace orders --as orders-old
  dkv restore /mnt/backup --at 2026-11-29T22:45:00Z    of a backup that was followed
  dkv restore /mnt/backup --at 15m                     a quarter of an hour ago
  dkv restore --drop orders-old                        what an interrupted restore has left";

/// The end of the help of `import`.
pub(super) const IMPORT_HELP: &str = "\
From Redis, only string keys are imported, with their expiry; others are counted and left out. \
The password of a server comes from REDISCLI_AUTH, which, unlike a command line, is not seen by \
others. Nothing is stored if the file is malformed. Running it again stores the same once more.

Examples:
  dkv import FILE.jsonl                         what export printed
  consul kv export | dkv import - --format consul
  dkv import dump.rdb
  dkv import redis://10.0.0.9:6379/0            from a server, while it runs
  dkv import etcd http://10.0.0.7:2379          see dkv import etcd --help";

/// Arguments of `backup`.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: BackupAction,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupAction {
    /// Back up all keyspaces, or one, each as of one moment, while the network is in use
    #[command(
        override_usage = "dkv [ADDRESS] backup create <DEST> [OPTIONS]",
        after_help = "DEST is a directory or s3://BUCKET/PATH; the latter reads AWS_ACCESS_KEY_ID, \
            AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL. If a backup is interrupted, the \
            same command goes on with it.\n\nExamples:\n  \
            dkv backup create /mnt/backup\n  \
            dkv backup create s3://backups/dkv --rate 20MiB\n  \
            dkv backup create /mnt/backup --keyspace orders --since latest"
    )]
    Create {
        /// Where to keep it
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// Write only what changed since this backup; latest is the last one that is complete
        #[arg(long, value_name = "BACKUP", value_hint = ValueHint::Other)]
        since: Option<String>,
        /// Most bytes of keys and values to read in a second, as in 20MiB
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes, value_hint = ValueHint::Other)]
        rate: Option<u64>,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Back up changes continuously until Ctrl-C, so that every second can be restored
    #[command(
        override_usage = "dkv [ADDRESS] backup follow <DEST> [OPTIONS]",
        after_help = "It goes on where it was when it is started again. If it was away for longer \
            than the history of a keyspace reaches, it says so and writes all keys again.\n\n\
            Examples:\n  \
            dkv backup follow /mnt/backup\n  \
            dkv backup follow s3://backups/dkv --every 10s --base-every 7d"
    )]
    Follow {
        /// Where to keep it
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// Time between two moments that can be restored
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
        every: Duration,
        /// Time after which all keys are written anew, so that older parts can be pruned
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_duration)]
        base_every: Duration,
        /// Most bytes of keys and values to read in a second for that, as in 20MiB
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes, value_hint = ValueHint::Other)]
        rate: Option<u64>,
        /// Print one JSON object per moment; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the backups of a destination
    #[command(override_usage = "dkv backup list <DEST> [OPTIONS]")]
    List {
        /// Where they are
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show what a backup has of each keyspace
    #[command(override_usage = "dkv backup show <DEST> [BACKUP] [OPTIONS]")]
    Show {
        /// Where it is
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// Its name, or the beginning of it
        #[arg(default_value = "latest", value_hint = ValueHint::Other)]
        backup: String,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Read a backup, and those that it goes on from, and check every byte
    #[command(override_usage = "dkv backup verify <DEST> [BACKUP] [OPTIONS]")]
    Verify {
        /// Where it is
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// Its name, or the beginning of it
        #[arg(default_value = "latest", value_hint = ValueHint::Other)]
        backup: String,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove backups, and parts of followed ones, that are older than a time
    #[command(
        override_usage = "dkv backup prune <DEST> --keep <TIME> [OPTIONS]",
        after_help = "The last complete backup of all keyspaces stays, and so do later ones of single \
            keyspaces and what others go on from.\n\n\
            Example:\n  \
            dkv backup prune /mnt/backup --keep 30d --dry-run"
    )]
    Prune {
        /// Where they are
        #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
        destination: String,
        /// How far back from the newest moment everything stays, as in 30d
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        keep: Duration,
        /// Show what would be removed, without removing anything
        #[arg(long)]
        dry_run: bool,
        /// Prune although the newest moment is ahead of this machine's clock
        #[arg(long)]
        yes: bool,
        /// Print a JSON document; the same as --output json
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

impl BackupAction {
    /// Returns its connection options.
    pub(super) fn connect(&self) -> &Connect {
        match self {
            Self::Create { connect, .. }
            | Self::Follow { connect, .. }
            | Self::List { connect, .. }
            | Self::Show { connect, .. }
            | Self::Verify { connect, .. }
            | Self::Prune { connect, .. } => connect,
        }
    }

    /// Returns whether its result is to be a JSON document.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Create { json, .. }
            | Self::Follow { json, .. }
            | Self::List { json, .. }
            | Self::Show { json, .. }
            | Self::Verify { json, .. }
            | Self::Prune { json, .. } => *json,
        }
    }

    /// Returns whether it needs a destination only, and no network.
    pub(crate) fn is_offline(&self) -> bool {
        !matches!(self, Self::Create { .. } | Self::Follow { .. })
    }
}

/// Arguments of `restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Where the backups are
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath, required_unless_present = "drop")]
    pub(crate) destination: Option<String>,
    /// The backup, or the beginning of its name [default: the last complete one, or the one that
    /// fits --at best]
    #[arg(long, value_name = "BACKUP", value_hint = ValueHint::Other)]
    pub(crate) backup: Option<String>,
    /// Restore a single keyspace under this name
    #[arg(long = "as", value_name = "KEYSPACE", value_parser = parse_name)]
    pub(crate) rename: Option<String>,
    /// The moment, as in 2026-11-29T22:45:00Z, or how long ago, as in 15m [default: the last one]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) at: Option<u64>,
    /// Most bytes of keys and values to write in a second, as in 20MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, value_hint = ValueHint::Other)]
    pub(crate) rate: Option<u64>,
    /// Remove what an interrupted restore has left in this keyspace
    #[arg(long, value_name = "KEYSPACE",
        conflicts_with_all = ["destination", "backup", "rename", "at", "rate"])]
    pub(crate) drop: Option<String>,
    /// Print a JSON document; the same as --output json
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Arguments of `export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Print only keys that begin with this [default: all keys]
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) prefix: Option<OsString>,
    /// Format of the records
    #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
    pub(crate) format: ExportFormat,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object per line, with base64 where bytes are not text
    Json,
    /// Key, comma, value
    Csv,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ImportArgs {
    /// File of records; - means standard input; redis://HOST:PORT/DB is a server
    #[arg(value_name = "FILE|URL", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Format of the file [default: from its extension .csv, .tsv, .json, .jsonl, .ndjson or .rdb]
    #[arg(long, value_enum)]
    pub(crate) format: Option<ImportFormat>,

    /// Number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = whole_number(1..=4096_u16), allow_negative_numbers = true)]
    pub(crate) in_flight: u16,

    /// How long to retry a record while the network is unavailable
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration,
        allow_negative_numbers = true)]
    pub(crate) retry: Duration,

    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: Option<ImportAction>,
}

impl ImportArgs {
    /// Returns the arguments of `import etcd`, if it is that.
    pub(crate) fn of_etcd(&self) -> Option<&ImportEtcdArgs> {
        self.action.as_ref().map(|ImportAction::Etcd(args)| &**args)
    }
}

/// Sources with options of their own.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportAction {
    /// Copy the keys of etcd, from a snapshot file, or from its members while they are in use
    #[command(
        override_usage = "dkv [ADDRESS] import etcd <SOURCE> [OPTIONS]",
        after_help = IMPORT_ETCD_HELP
    )]
    Etcd(Box<ImportEtcdArgs>),
}

/// The format of what is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// One JSON object per line, with key and value, or key_base64 and value_base64
    Json,
    /// Key, comma, value; either may be in double quotes
    Csv,
    /// Key, tab, value
    Tsv,
    /// A dump of Redis or Valkey
    Rdb,
    /// What consul kv export prints
    Consul,
}

impl ImportFormat {
    /// Returns the format of `load` that this is, if it is one.
    pub(crate) fn of_load(self) -> Option<Format> {
        match self {
            Self::Json => Some(Format::Json),
            Self::Csv => Some(Format::Csv),
            Self::Tsv => Some(Format::Tsv),
            Self::Rdb | Self::Consul => None,
        }
    }
}

/// A text is neither a time nor how long ago something was. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a time as in 2026-11-29T22:45:00Z, or how long ago, as in 15m")]
struct MomentError;

/// Returns a moment in milliseconds since 1970.
fn moment(text: &str) -> Result<u64, MomentError> {
    if let Some(ms) = parse_timestamp(text) {
        return Ok(ms);
    }
    let ago = parse_duration(text).map_err(|_| MomentError)?;
    let moment = SystemTime::now().checked_sub(ago).ok_or(MomentError)?;
    let since = moment.duration_since(UNIX_EPOCH).map_err(|_| MomentError)?;
    u64::try_from(since.as_millis()).map_err(|_| MomentError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_ages() {
        assert_eq!(moment("2026-03-01T12:34:56Z"), Ok(1_772_368_496_999));
        assert_eq!(moment("2026-03-01 12:34:56 UTC"), Ok(1_772_368_496_999));
        let ago = moment("15m").unwrap();
        assert!(moment("1s").unwrap() - ago >= 899_000 - 1);
        for wrong in ["", "now", "2026-03-01", "2026-13-01T00:00:00Z", "-5s"] {
            assert_eq!(moment(wrong), Err(MomentError), "{wrong}");
        }
    }
}
