//! Arguments of `lease` and `lock`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use dkv_api::LeaseId;
use dkv_console::units::parse_duration;

use super::Connect;

/// The end of the help of `lock`.
pub(super) const LOCK_HELP: &str = "\
One process at a time has the lock; those that wait get it in the order in which they came. The \
command finds in its environment
  DKV_LOCK          the name of the lock
  DKV_LOCK_FENCE    a number that grows with each holder: whatever the command changes elsewhere \
should refuse a lower number than it has seen, because a process may be paused and go on after its \
lock is lost
  DKV_LOCK_LEASE    the lease of the lock, for keys to delete with it: put --lease

If the lock is lost, the command is sent SIGTERM, and SIGKILL when the grace is over; the exit \
status is then 5. Otherwise it is that of the command, or 128 and the number of the signal that \
ended it. Ctrl-C and SIGTERM are passed on to the command; while waiting they cancel the wait.

Examples:
  dkv lock backup -- tar cf /backup/all.tar /srv
  dkv lock nightly --no-wait -- ./nightly.sh
  dkv lock deploy --ttl 30s -- sh -c 'deploy --fence $DKV_LOCK_FENCE'";

/// Arguments of `lease`.
#[derive(Args, Debug)]
pub(crate) struct LeaseArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: LeaseAction,
}

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseAction {
    /// Grant a lease and print its id
    #[command(override_usage = "dkv [ADDRESS] lease grant <TTL> [OPTIONS]")]
    Grant {
        /// Time after which it ends unless it is kept alive, as in 30s; 1s to 3650d
        #[arg(value_parser = parse_duration, value_hint = ValueHint::Other)]
        ttl: Duration,
        #[command(flatten)]
        connect: Connect,
    },
    /// Keep a lease alive until Ctrl-C, or until it ends
    #[command(override_usage = "dkv [ADDRESS] lease keep <ID> [OPTIONS]")]
    Keep {
        /// Id of the lease
        #[arg(value_hint = ValueHint::Other)]
        id: LeaseId,
        #[command(flatten)]
        connect: Connect,
    },
    /// End a lease and delete its keys
    #[command(override_usage = "dkv [ADDRESS] lease revoke <ID> [OPTIONS]")]
    Revoke {
        /// Id of the lease
        #[arg(value_hint = ValueHint::Other)]
        id: LeaseId,
        #[command(flatten)]
        connect: Connect,
    },
    /// List all leases
    #[command(override_usage = "dkv [ADDRESS] lease list [OPTIONS]")]
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a lease and its keys
    #[command(override_usage = "dkv [ADDRESS] lease show <ID> [OPTIONS]")]
    Show {
        /// Id of the lease
        #[arg(value_hint = ValueHint::Other)]
        id: LeaseId,
        /// Show at most this many keys
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        connect: Connect,
    },
}

impl LeaseAction {
    /// Returns its connection options.
    pub(crate) fn connect(&self) -> &Connect {
        match self {
            Self::Grant { connect, .. }
            | Self::Keep { connect, .. }
            | Self::Revoke { connect, .. }
            | Self::List { connect }
            | Self::Show { connect, .. } => connect,
        }
    }

    /// Returns whether it may have changed something when it is interrupted.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Grant { .. } | Self::Revoke { .. })
    }
}

/// Arguments of `lock`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LockArgs {
    /// Name of the lock
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) name: OsString,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND",
        value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
    /// Time after which a holder that has died or is cut off loses the lock
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
    /// Do not wait: end with status 4 if somebody has the lock
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this; then end with status 4
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_wait")]
    pub(crate) wait: Option<Duration>,
    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) connect: Connect,
}
