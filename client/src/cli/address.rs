//! Addresses of servers as they are typed, and the usual one where none is.

use std::net::SocketAddr;

use clap::CommandFactory;
use dkv_wire::local;

use super::Cli;
use crate::grammar::{self, is_comma_command};

/// The variable that names the server.
const VARIABLE: &str = "DKV_SERVER";

/// Addresses of the server, in the order to try them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<String>);

/// Whether the first word is a command, and no address: one in the comma form, one with its operands
/// in the same argument, or a word of the grammar.
pub(super) fn is_command(first: &[u8]) -> bool {
    is_comma_command(first)
        || first.iter().any(|byte| byte.is_ascii_whitespace() || b"\"'\\=".contains(byte))
        || grammar::is_word(first)
        || first.is_empty()
}

/// Reads addresses with commas between them.
pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    let parts: Vec<&str> = text.split(',').collect();
    // A mistyped command is more likely than a host of nearly the same name.
    if let [word] = parts.as_slice()
        && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        && let Some(meant) = meant(word)
    {
        let port = dkv_api::DEFAULT_PORT;
        return Err(format!(
            "there is no command {word}; did you mean {meant}? (The server on a host of that name is \
             {word}:{port})"
        ));
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
            return Err(format!(
                "{part:?} is neither a command nor an address; an address is HOST or HOST:PORT, as in \
                 127.0.0.1:4400"
            ));
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(format!("{part:?}: the port must be a number from 0 to 65535"));
        }
    }
    Ok(Addresses(parts.into_iter().map(str::to_owned).collect()))
}

/// The command that was meant by a word, in its form.
fn meant(word: &str) -> Option<String> {
    if let Some(known) = grammar::meant(word) {
        return Some(known.form.to_owned());
    }
    let root = Cli::command();
    let names = root.get_subcommands().map(|command| command.get_name());
    grammar::slip_of(word, names).map(ToOwned::to_owned)
}

/// The address where none was given: that of the variable, or of the server that this user runs on
/// this machine.
///
/// # Errors
/// There is none, or more than one; what to do about it.
pub(crate) fn usual() -> Result<Addresses, String> {
    let variable = dkv_wire::variables::value(VARIABLE);
    let variable = variable.map(|text| text.to_string_lossy().into_owned());
    let servers = local::home().map_or_else(Vec::new, |home| local::servers(&home));
    usual_of(variable.as_deref(), &servers)
}

fn usual_of(variable: Option<&str>, servers: &[SocketAddr]) -> Result<Addresses, String> {
    if let Some(text) = variable {
        return addresses(text.trim()).map_err(|why| format!("{VARIABLE}: {why}"));
    }
    match servers {
        [server] => Ok(Addresses(vec![server.to_string()])),
        [] => Err(format!(
            "no server is named, and this user runs none on this machine; give its address, as in dkv \
             127.0.0.1:4400 status, set {VARIABLE}, or start a network with dkv local"
        )),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(format!(
                "no server is named, and this user has several on this machine: {}; name one, as in \
                 dkv {} status, or set {VARIABLE}",
                several.join(", "),
                several[0]
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_server_is_named_or_found() {
        let one: SocketAddr = "10.0.0.1:4400".parse().unwrap();
        let two: SocketAddr = "127.0.0.1:4401".parse().unwrap();
        let is = |text: &str| Ok(Addresses(text.split(',').map(str::to_owned).collect()));
        assert_eq!(usual_of(Some(" a:1,b "), &[one]), is("a:1,b"));
        assert_eq!(usual_of(None, &[one]), is("10.0.0.1:4400"));
        let several = usual_of(None, &[one, two]).unwrap_err();
        assert!(several.contains("10.0.0.1:4400, 127.0.0.1:4401; name one"), "{several}");
        let none = usual_of(None, &[]).unwrap_err();
        assert!(none.contains("set DKV_SERVER") && none.contains("dkv local"), "{none}");
        assert!(usual_of(Some("a:b"), &[]).unwrap_err().starts_with("DKV_SERVER: "));
    }
}
