//! Arguments of `policy`, `whoami` and `can`.

use std::ffi::OsString;

use clap::{Args, Subcommand, ValueHint};
use dkv_api::{Right, RightSet, User};
use dkv_console::units::parse_bytes;
use dkv_wire::name::parse_name;

use super::Connect;

/// Arguments of `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,

    #[command(subcommand)]
    pub(crate) action: PolicyAction,
}

/// Which keys a rule is about; the keyspace is that of `--keyspace`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RuleKeys {
    /// The keys that begin with this [default: all keys]
    #[arg(long, value_name = "PREFIX", value_hint = ValueHint::Other)]
    pub(crate) prefix: Option<OsString>,
    /// In all keyspaces, those of the future included
    #[arg(long)]
    pub(crate) all_keyspaces: bool,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyAction {
    /// Create a policy, with a rule if rights are given
    #[command(
        override_usage = "dkv [ADDRESS] policy create <NAME> [--rights <RIGHTS>] [OPTIONS]",
        after_help = "Rights are read, write, watch and administer (forget the history of a \
            keyspace). A user has the rights of all policies that are granted to it, and none \
            without one; its role bounds them.\n\nExamples:\n  \
            dkv policy create billing --rights read,write,watch --prefix billing/\n  \
            dkv policy set billing --rights read --keyspace reports\n  \
            dkv policy grant billing alice\n  \
            dkv token create --role client --user alice"
    )]
    Create {
        /// Its name
        #[arg(value_parser = parse_name, value_hint = ValueHint::Other)]
        name: String,
        /// What its first rule allows: some of read, write, watch and administer
        #[arg(long, value_name = "RIGHTS", value_hint = ValueHint::Other)]
        rights: Option<RightSet>,
        #[command(flatten)]
        keys: RuleKeys,
        #[command(flatten)]
        connect: Connect,
    },
    /// Set what a policy allows with some keys; none removes that rule
    #[command(
        override_usage = "dkv [ADDRESS] policy set <NAME> --rights <RIGHTS> [OPTIONS]",
        after_help = "Replaces the rule of exactly this keyspace and prefix, and leaves the \
            others.\n\nExamples:\n  \
            dkv policy set billing --rights read --prefix rates/\n  \
            dkv policy set billing --rights none --prefix rates/"
    )]
    Set {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// Some of read, write, watch and administer; or none
        #[arg(long, value_name = "RIGHTS", value_hint = ValueHint::Other)]
        rights: RightSet,
        #[command(flatten)]
        keys: RuleKeys,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the policies
    #[command(override_usage = "dkv [ADDRESS] policy list [OPTIONS]")]
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the rules of a policy, and the users that it is granted to
    #[command(override_usage = "dkv [ADDRESS] policy show <NAME> [OPTIONS]")]
    Show {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Drop a policy, and take it from all users
    #[command(override_usage = "dkv [ADDRESS] policy drop <NAME> [OPTIONS]")]
    Drop {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Limit how much each user of a policy asks of each node; replaces the limits before
    #[command(
        override_usage = "dkv [ADDRESS] policy limit <NAME> <--requests <N>|--bytes <SIZE>|\
            --connections <N>|--none> [OPTIONS]",
        group = clap::ArgGroup::new("limits").required(true).multiple(true),
        after_help = "A user has these limits at each node, whichever of its credentials ask, and \
            the least of several policies. A node refuses a request over a limit with the time \
            after which it may come again, and clients wait for that.\n\nExamples:\n  \
            dkv policy limit billing --requests 200 --bytes 4MiB\n  \
            dkv policy limit billing --none"
    )]
    Limit {
        /// Its name
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// Requests a second
        #[arg(long, value_name = "N", group = "limits")]
        requests: Option<u32>,
        /// Bytes a second, of requests, answers and watches, as in 512KiB or 4MiB
        #[arg(long, value_name = "SIZE", group = "limits", value_parser = parse_bytes)]
        bytes: Option<u64>,
        /// Connections of its certificates
        #[arg(long, value_name = "N", group = "limits")]
        connections: Option<u32>,
        /// No limits
        #[arg(
            long,
            group = "limits",
            conflicts_with_all = ["requests", "bytes", "connections"]
        )]
        none: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Grant a policy to a user, whose credentials may come later
    #[command(override_usage = "dkv [ADDRESS] policy grant <NAME> <USER> [OPTIONS]")]
    Grant {
        /// Name of the policy
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// The user, as token create --user names it
        #[arg(value_hint = ValueHint::Other)]
        user: User,
        #[command(flatten)]
        connect: Connect,
    },
    /// Take a policy from a user, on all of its holders
    #[command(override_usage = "dkv [ADDRESS] policy revoke <NAME> <USER> [OPTIONS]")]
    Revoke {
        /// Name of the policy
        #[arg(value_hint = ValueHint::Other)]
        name: String,
        /// The user
        #[arg(value_hint = ValueHint::Other)]
        user: User,
        #[command(flatten)]
        connect: Connect,
    },
}

impl PolicyAction {
    /// Returns its connection options.
    pub(super) fn connect(&self) -> &Connect {
        match self {
            Self::Create { connect, .. }
            | Self::Set { connect, .. }
            | Self::List { connect }
            | Self::Show { connect, .. }
            | Self::Drop { connect, .. }
            | Self::Limit { connect, .. }
            | Self::Grant { connect, .. }
            | Self::Revoke { connect, .. } => connect,
        }
    }

    /// Returns whether it changes something.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::List { .. } | Self::Show { .. })
    }
}

/// Arguments of `can`.
#[derive(Args, Debug)]
pub(crate) struct CanArgs {
    /// The user
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) user: User,
    /// What it would do: read, write, watch or administer
    #[arg(value_name = "RIGHT", value_hint = ValueHint::Other)]
    pub(crate) right: Right,
    /// The key
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) key: OsString,
    /// Ask about all keys that begin with KEY
    #[arg(long)]
    pub(crate) prefix: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}
