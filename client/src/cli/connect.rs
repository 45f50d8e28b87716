//! Options that say how to connect, and how to print results.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use dkv_api::{Level, Region};
use dkv_base::variables;
use dkv_console::units::parse_duration;

use super::choices::LEVELS;

/// How to connect.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connect {
    /// Guarantee of requests: strong (reads see every finished write), session (the nearest
    /// replica, with at least what these commands have written and read), eventual (the nearest
    /// replica) or all (strong, and on every replica) [default: strong]
    #[arg(long, value_parser = LEVELS, hide_possible_values = true, visible_alias = "consistency")]
    pub(crate) level: Option<Level>,

    /// Keyspace of the keys [default: default]
    #[arg(long, value_name = "NAME", env = "DKV_KEYSPACE", value_hint = ValueHint::Other)]
    pub(crate) keyspace: Option<String>,

    /// Time limit of each request, as in 500ms or 5s; a plain number is in seconds [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, allow_negative_numbers = true,
        value_hint = ValueHint::Other)]
    pub(crate) timeout: Option<Duration>,

    /// Region of this client, where eventual reads are answered if possible [default: the replica
    /// that answers first]
    #[arg(long, env = "DKV_REGION", value_hint = ValueHint::Other)]
    pub(crate) region: Option<Region>,

    /// File with a join token [default: the one that a server on this machine left for this user]
    #[arg(long, value_name = "FILE", env = "DKV_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// Format of results: text for people, JSON for programs [default: text]
    #[arg(long, value_name = "FORM", value_enum)]
    pub(crate) output: Option<Output>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON object per line; errors as JSON on standard error
    Json,
}

impl Connect {
    /// Returns these options, completed by those of another set.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            level: self.level.or(other.level),
            keyspace: self.keyspace.or(other.keyspace),
            timeout: self.timeout.or(other.timeout),
            region: self.region.or(other.region),
            token_file: self.token_file.or(other.token_file),
            output: self.output.or(other.output),
        }
    }

    /// Returns whether results are JSON documents.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Some(Output::Json)
    }

    /// Returns an option that says how to connect, and so is too late for a command at a prompt.
    /// Values from environment variables do not count, because they apply to every command.
    pub(crate) fn of_connection(&self) -> Option<&'static str> {
        self.typed(&["--level", "--timeout", "--region", "--token-file"])
    }

    /// Returns an option that means nothing to a command that is no client.
    pub(crate) fn not_for_processes(&self) -> Option<&'static str> {
        self.of_connection().or_else(|| self.typed(&["--keyspace"]))
    }

    /// Returns the first of these options that was typed.
    pub(crate) fn typed(&self, options: &[&str]) -> Option<&'static str> {
        let region = self.region.as_ref().map(|region| OsStr::new(region.as_str()));
        let token_file = self.token_file.as_ref().map(|file| file.as_os_str());
        let typed = |value: Option<&OsStr>, variable: &str| {
            value.is_some_and(|value| Some(value) != variables::value(variable).as_deref())
        };
        let keyspace = self.keyspace.as_deref().map(OsStr::new);
        let given = [
            (self.level.is_some(), "--level"),
            (typed(keyspace, "DKV_KEYSPACE"), "--keyspace"),
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
