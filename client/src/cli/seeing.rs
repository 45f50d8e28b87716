//! Arguments of the commands that look into a network: `log`, `explain`, `doctor`,
//! `debug`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use dkv_console::units::parse_duration;

use super::Connect;

const LOG_HELP: &str = "LEVEL is off, error, warn, info, debug or trace, or a filter such as \
    dkv_node=debug,info, as in the variable DKV_LOG. The variable applies again when the process \
    starts anew.\n\nExamples:\n  \
    dkv log                              what each process logs\n  \
    dkv log n1 debug --for 10m           more, for a while\n  \
    dkv log server dkv_server=debug,info\n  \
    dkv log all info";

const DOCTOR_HELP: &str = "The status is 0 if only hints were found, 10 if there are \
    warnings, and 11 if something is critical; 5 if neither the server nor a node answers.";

/// Show what nodes and the server log, or change it
#[derive(Args, Clone, Debug)]
#[command(override_usage = "dkv [ADDRESS] log [NODE|server|all] [LEVEL] [OPTIONS]",
    after_help = LOG_HELP)]
pub(crate) struct LogArgs {
    /// Name of a node, its id, server, or all; or LEVEL for all [default: all]
    #[arg(value_name = "NODE|server|all", value_hint = ValueHint::Other)]
    pub(crate) target: Option<String>,

    /// What to log from now on [default: show what is logged]
    #[arg(value_name = "LEVEL", value_hint = ValueHint::Other)]
    pub(crate) filter: Option<String>,

    /// Restore the previous filter after this time, at most a day
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration,
        value_hint = ValueHint::Other)]
    pub(crate) life: Option<Duration>,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Show a key's shard, replicas and versions, who answers, and when its primary last changed
#[derive(Args, Clone, Debug)]
#[command(override_usage = "dkv [ADDRESS] explain <KEY> [OPTIONS]")]
pub(crate) struct ExplainArgs {
    /// The key
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) key: OsString,

    /// Print a JSON document; the same as --output json
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Show likely failures and their remedies
#[derive(Args, Clone, Debug)]
#[command(override_usage = "dkv [ADDRESS] doctor [OPTIONS]", after_help = DOCTOR_HELP)]
pub(crate) struct DoctorArgs {
    /// Print a JSON document; the same as --output json
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Collect diagnostics about a network
#[derive(Args, Clone, Debug)]
#[command(override_usage = "dkv [ADDRESS] debug bundle [FILE] [OPTIONS]")]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    pub(crate) action: DebugAction,

    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DebugAction {
    /// Write status, findings, placement and settings to an archive, without keys and values
    #[command(override_usage = "dkv [ADDRESS] debug bundle [FILE] [OPTIONS]")]
    Bundle {
        /// The archive, which must not exist; - is standard output [default:
        /// dkv-debug-TIME.tar.zst here]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,

        #[command(flatten)]
        connect: Connect,
    },
}

impl DebugAction {
    /// How it connects.
    pub(crate) fn connect(&self) -> &Connect {
        let Self::Bundle { connect, .. } = self;
        connect
    }
}
