//! Command-line arguments of a node.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::FalseyValueParser;
use dkv_base::audit::{AuditArgs, AuditOptions, UnusedAuditOption};
use dkv_base::logging::Format;
use dkv_wire::name::parse_name;
use dkv_wire::region::Region;

/// Time from which a request is slow, in milliseconds, unless an argument says otherwise.
const SLOW_REQUEST_MS: u32 = 500;

/// Joins this machine to a network as a node that holds data.
///
/// The same command is first start, restart, and restart with another address: what the node is, is
/// kept in its data directory.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Address of the registration server; those of several are separated by commas
    #[arg(value_name = "SERVER", env = "DKV_SERVER")]
    pub server: String,

    /// What people call this node [default: the server finds a name]
    #[arg(long, env = "DKV_NAME", value_parser = parse_name)]
    pub name: Option<String>,

    /// Region that it is in: a name for a place, as in eu or us-east. Replicas are spread over
    /// regions, and clients read in their own [default: that of its last start, or none]
    #[arg(long, env = "DKV_REGION")]
    pub region: Option<Region>,

    /// Where it keeps its identity and its data [default: the first of data/node-1, data/node-2, …
    /// that no other process uses]
    #[arg(long, value_name = "DIR", env = "DKV_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where it listens [default: the address from which this machine reaches the server, and the
    /// port of its last start, or the first free one from 4401 on]
    #[arg(long, value_name = "IP:PORT", env = "DKV_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Where others reach it, if that is not where it listens
    #[arg(long, value_name = "IP:PORT", env = "DKV_ADVERTISE")]
    pub advertise: Option<SocketAddr>,

    /// File with the text of a node token [default: the variable DKV_TOKEN, or the token that a
    /// server on this machine left for its user]
    #[arg(long, value_name = "FILE", env = "DKV_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Threads that serve [default: half of the cores]
    #[arg(long, value_name = "COUNT", env = "DKV_THREADS")]
    pub threads: Option<NonZeroUsize>,

    /// Values that it keeps in memory, in MiB; others are read from disk. Keys stay in memory
    /// [default: half of the memory of this machine or control group]
    #[arg(long, value_name = "MIB", env = "DKV_VALUE_MEMORY")]
    pub value_memory: Option<u32>,

    /// Log a request that takes longer than this, with where the time went, in milliseconds; 0
    /// logs none
    #[arg(long, value_name = "MS", env = "DKV_SLOW_REQUEST_MS", default_value_t = SLOW_REQUEST_MS)]
    pub slow_request_ms: u32,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditArgs,

    /// Have the audit log tell of writes too: who, which keys, and whether they were done
    #[arg(long, env = "DKV_AUDIT_WRITES", value_parser = FalseyValueParser::new())]
    pub audit_writes: bool,

    /// Form of the log's lines: text, or json for one object per line
    #[arg(long, value_name = "FORM", env = "DKV_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
}

/// From which the names of variables are looked up.
#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    _args: Args,
}

impl Args {
    /// Returns the options of the audit log, if there is to be one.
    ///
    /// # Errors
    /// If an option would have no effect.
    pub fn audit_options(&self) -> Result<Option<AuditOptions>, UnusedAuditOption> {
        match self.audit.over(None)? {
            Some(options) => Ok(Some(AuditOptions { writes: self.audit_writes, ..options })),
            None if self.audit_writes => {
                Err(UnusedAuditOption::of::<CommandLine>("--audit-writes"))
            }
            None => Ok(None),
        }
    }
}
