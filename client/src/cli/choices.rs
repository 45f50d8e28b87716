//! Operands with a fixed set of words, which a shell completes and the help lists.

use std::ffi::{OsStr, OsString};

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use dkv_api::{Level, Role, RunChoice};

/// A word is not one of those that are allowed. The user writes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use {0}")]
pub(super) struct NotAmong(&'static str);

/// A parser that offers some words; its function may accept others, too.
#[derive(Clone, Copy)]
pub(super) struct Choice<T> {
    words: &'static [&'static str],
    read: fn(&OsStr) -> Result<T, NotAmong>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Choice<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        (self.read)(value).map_err(|why| {
            let name = arg.map_or_else(|| "VALUE".to_owned(), ToString::to_string);
            let value = dkv_console::quote::escaped(value.as_encoded_bytes());
            let text = format!("invalid value '{value}' for '{name}': {why}\n");
            Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(|word| PossibleValue::new(*word))))
    }
}

pub(super) const LEVELS: Choice<Level> =
    Choice { words: &["strong", "session", "eventual", "all"], read: level };

pub(super) const ROLES: Choice<Role> =
    Choice { words: &["node", "client", "reader", "admin", "server"], read: token_role };

pub(super) const HOW_TO_READ: Choice<OsString> = Choice {
    words: &["strong", "session", "eventual", "all", "max-staleness", "at-least"],
    read: anything,
};

pub(super) const HOW_TO_WRITE: Choice<OsString> = Choice {
    words: &["strong", "session", "eventual", "all", "if-absent", "if-present", "if-revision"],
    read: anything,
};

pub(super) const HOW_TO_DELETE: Choice<OsString> = Choice {
    words: &["strong", "session", "eventual", "all", "if-present", "if-revision"],
    read: anything,
};

/// Commands and subcommands with a help page.
pub(super) const TOPICS: Choice<String> = Choice {
    words: &[
        "get",
        "put",
        "insert",
        "update",
        "delete",
        "increment",
        "append",
        "txn",
        "ttl",
        "lease",
        "lock",
        "search",
        "show-all",
        "wait",
        "nodes",
        "status",
        "explain",
        "doctor",
        "debug",
        "bundle",
        "log",
        "scan",
        "history",
        "watch",
        "compact",
        "load",
        "verify",
        "export",
        "import",
        "backup",
        "restore",
        "recover",
        "follow",
        "prune",
        "token",
        "keyspace",
        "policy",
        "whoami",
        "can",
        "drain",
        "rebalance",
        "remove",
        "holders",
        "keep",
        "revoke",
        "local",
        "drill",
        "rehearse",
        "server",
        "node",
        "gateway",
        "completions",
        "manual",
        "help",
        "create",
        "list",
        "grant",
        "set",
        "drop",
        "show",
        "group",
        "etcd",
    ],
    read: topic,
};

/// Accepts every topic; the help reports unknown ones.
fn topic(text: &OsStr) -> Result<String, NotAmong> {
    Ok(text.to_string_lossy().into_owned())
}

fn level(text: &OsStr) -> Result<Level, NotAmong> {
    crate::grammar::level(text.as_encoded_bytes()).ok_or(NotAmong(crate::grammar::LEVELS))
}

fn token_role(text: &OsStr) -> Result<Role, NotAmong> {
    match text.to_string_lossy().parse() {
        Ok(role) => Ok(role),
        _ => Err(NotAmong("node, client, reader, admin or server")),
    }
}

/// Accepts everything; the grammar reports what is wrong.
fn anything(text: &OsStr) -> Result<OsString, NotAmong> {
    Ok(text.to_owned())
}

/// A text names no start of a node's process. The user writes another one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("use an address such as 10.0.0.2:4401, or the number of a start")]
pub(super) struct RunChoiceError;

pub(super) fn run_choice(text: &str) -> Result<RunChoice, RunChoiceError> {
    let address = text.parse().map(RunChoice::Address);
    let choice = address.or_else(|_| text.parse().map(RunChoice::Start));
    choice.map_err(|_| RunChoiceError)
}
