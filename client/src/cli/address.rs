//! Addresses of servers: parsing them, and finding the default one.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;

use clap::CommandFactory;
use clap::error::ErrorKind;
use dkv_wire::local::{self, Servers};

use super::Cli;
use crate::grammar::{self, is_comma_command};

/// The variable that names the server.
const VARIABLE: &str = "DKV_SERVER";

/// Addresses of the server, in the order in which to try them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<String>);

/// Returns whether the first argument is a command and not an address: a command in the comma form,
/// a command with its operands, or a word of the grammar.
pub(super) fn is_command(first: &[u8]) -> bool {
    is_comma_command(first)
        || first.iter().any(|byte| byte.is_ascii_whitespace() || b"\"'\\=".contains(byte))
        || grammar::is_word(first)
        || first.is_empty()
}

/// Returns the error for arguments with an address before a command that takes none.
pub(super) fn before_alone(arguments: &[OsString]) -> Option<clap::Error> {
    let [_, first, second, ..] = arguments else { return None };
    let (first, second) = (first.to_str()?, second.to_str()?);
    let alone =
        matches!(second, "server" | "node" | "local" | "rehearse" | "completions" | "manual");
    if !alone || first.starts_with('-') || is_command(first.as_bytes()) || addresses(first).is_err()
    {
        return None;
    }
    // Such a word may also be the operand of another command.
    if Cli::command().find_subcommand(first).is_some() {
        return None;
    }
    let why = format!("{second} takes no address before it; omit {first:?}\n");
    Some(Cli::command().error(ErrorKind::UnknownArgument, why))
}

/// Why a text is not a list of addresses. The user writes another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// It is probably a mistyped command.
    #[error(
        "there is no command {word}; did you mean {meant}? (To connect to a host of that name, \
         write {word}:{})",
        dkv_api::DEFAULT_PORT
    )]
    Mistyped { word: String, meant: String },
    /// It contains something that no host name has.
    #[error(
        "{0:?} is neither a command nor an address; write an address as HOST or HOST:PORT, such as \
         127.0.0.1:4400"
    )]
    Malformed(String),
    /// The port is out of bounds.
    #[error("{0:?}: the port must be a number from 1 to 65535")]
    Port(String),
}

/// Why there is no default address. The user names one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefaultError {
    /// The variable is set, but malformed.
    #[error("{VARIABLE}: {0}")]
    Variable(#[from] AddressError),
    /// The records of this user's servers cannot be read.
    #[error(
        "no server address was given, and the servers of this user are unknown: cannot read {0}; \
         give an address, as in dkv 127.0.0.1:4400 status, or set {VARIABLE}"
    )]
    Unreadable(#[from] io::Error),
    /// This user has no server.
    #[error(
        "no server address was given, and this user runs no server on this machine; give an \
         address, as in dkv 127.0.0.1:4400 status, set {VARIABLE}, or start a network with dkv \
         local"
    )]
    NoServer,
    /// This user has several servers, and none runs.
    #[error(
        "no server address was given, and none of this user's {count} servers on this machine is \
         running; start one, or name a network that works without it, as in dkv {first} status"
    )]
    Stopped { count: usize, first: SocketAddr },
    /// This user runs several servers.
    #[error(
        "no server address was given, and this user runs several servers on this machine: {list}; \
         name one, as in dkv {first} status, or set {VARIABLE}"
    )]
    Several { list: String, first: SocketAddr },
}

/// Parses addresses that are separated by commas.
pub(super) fn addresses(text: &str) -> Result<Addresses, AddressError> {
    let parts: Vec<&str> = text.split(',').collect();
    // A mistyped command is more likely than a host with nearly the same name.
    if let [word] = parts.as_slice()
        && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        && let Some(meant) = meant(word)
    {
        return Err(AddressError::Mistyped { word: (*word).to_owned(), meant });
    }
    for part in &parts {
        let port = match part.rsplit_once(':') {
            // An IPv6 address without brackets has colons and no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some(port),
            _ => None,
        };
        let good = |it: char| it.is_alphanumeric() || "-._:[]%".contains(it);
        if part.is_empty()
            || (part.starts_with(':') && !part.starts_with("::"))
            || !part.chars().all(good)
        {
            return Err(AddressError::Malformed((*part).to_owned()));
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(AddressError::Port((*part).to_owned()));
        }
    }
    Ok(Addresses(parts.into_iter().map(str::to_owned).collect()))
}

/// Returns the syntax of the command that a mistyped word probably means.
fn meant(word: &str) -> Option<String> {
    if let Some(known) = grammar::meant(word) {
        return Some(known.form.to_owned());
    }
    let root = Cli::command();
    let names = root.get_subcommands().map(|command| command.get_name());
    grammar::typo_of(word, names).map(ToOwned::to_owned)
}

/// Returns the default address: that of the environment variable, or of the server that this user
/// runs on this machine.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn default_addresses() -> Result<Addresses, DefaultError> {
    let variable = dkv_base::variables::value(VARIABLE);
    let variable = variable.map(|text| text.to_string_lossy().into_owned());
    let servers =
        local::home().map_or_else(|| Ok(Servers::default()), |home| local::servers(&home));
    default_of(variable.as_deref(), servers)
}

fn default_of(
    variable: Option<&str>,
    servers: io::Result<Servers>,
) -> Result<Addresses, DefaultError> {
    if let Some(text) = variable {
        return Ok(addresses(text.trim())?);
    }
    let servers = servers?;
    let list =
        |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (servers.running.as_slice(), servers.stopped.as_slice()) {
        ([server], _) | ([], [server]) => Ok(Addresses(vec![server.to_string()])),
        ([], []) => Err(DefaultError::NoServer),
        ([], stopped) => Err(DefaultError::Stopped { count: stopped.len(), first: stopped[0] }),
        (several, _) => Err(DefaultError::Several { list: list(several), first: several[0] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_server_is_named_or_found() {
        let one: SocketAddr = "10.0.0.1:4400".parse().unwrap();
        let two: SocketAddr = "127.0.0.1:4401".parse().unwrap();
        let is = |text: &str| Some(Addresses(text.split(',').map(str::to_owned).collect()));
        let found = |running: &[SocketAddr], stopped: &[SocketAddr]| {
            default_of(None, Ok(Servers { running: running.into(), stopped: stopped.into() }))
        };
        assert_eq!(default_of(Some(" a:1,b "), Ok(Servers::default())).ok(), is("a:1,b"));
        assert_eq!(found(&[one], &[]).ok(), is("10.0.0.1:4400"));
        assert_eq!(found(&[one], &[two]).ok(), is("10.0.0.1:4400"));
        assert_eq!(found(&[], &[two]).ok(), is("127.0.0.1:4401"));
        let several = found(&[one, two], &[]).unwrap_err().to_string();
        assert!(several.contains("10.0.0.1:4400, 127.0.0.1:4401; name one"), "{several}");
        let stopped = found(&[], &[one, two]).unwrap_err().to_string();
        assert!(stopped.contains("none of this user's 2 servers on this machine is running"));
        let none = found(&[], &[]).unwrap_err().to_string();
        assert!(none.contains("set DKV_SERVER") && none.contains("dkv local"), "{none}");
        let hidden = default_of(None, Err(io::ErrorKind::PermissionDenied.into()));
        let hidden = hidden.unwrap_err().to_string();
        assert!(hidden.contains("cannot read permission denied"), "{hidden}");
        let malformed = default_of(Some("a:b"), Ok(Servers::default())).unwrap_err();
        assert!(malformed.to_string().starts_with("DKV_SERVER: "), "{malformed}");
    }
}
