//! Operands with a few words to choose from, which a shell completes and the help lists.

use std::ffi::{OsStr, OsString};

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use dkv_api::{Level, Role};

/// A value that is one of some words, or is read as freely as its reader allows.
#[derive(Clone, Copy)]
pub(super) struct Choice<T> {
    words: &'static [&'static str],
    read: fn(&OsStr) -> Result<T, String>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Choice<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        (self.read)(value).map_err(|why| {
            let name = arg.map_or_else(|| "VALUE".to_owned(), ToString::to_string);
            let value = dkv_console::quote::shown(value.as_encoded_bytes());
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
    Choice { words: &["node", "client", "reader", "admin"], read: token_role };

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

/// Commands that have a page of help, and those below them.
pub(super) const TOPICS: Choice<String> = Choice {
    words: &[
        "get",
        "put",
        "insert",
        "update",
        "delete",
        "search",
        "show-all",
        "wait",
        "nodes",
        "status",
        "scan",
        "load",
        "verify",
        "token",
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
        "help",
        "create",
        "list",
    ],
    read: topic,
};

/// Whatever is asked for, the help says whether it is there.
fn topic(text: &OsStr) -> Result<String, String> {
    Ok(text.to_string_lossy().into_owned())
}

fn level(text: &OsStr) -> Result<Level, String> {
    crate::grammar::level(text.as_encoded_bytes())
        .ok_or_else(|| format!("use {}", crate::grammar::LEVELS))
}

fn token_role(text: &OsStr) -> Result<Role, String> {
    match text.to_string_lossy().parse() {
        Ok(role @ (Role::Node | Role::Client | Role::Reader | Role::Admin)) => Ok(role),
        _ => Err("use node, client, reader or admin".into()),
    }
}

/// The grammar says what is wrong with it.
fn anything(text: &OsStr) -> Result<OsString, String> {
    Ok(text.to_owned())
}
