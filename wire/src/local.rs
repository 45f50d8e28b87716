//! What processes of one user on one machine leave for each other.
//!
//! A registration server puts its join tokens into a directory of its user, named after its port,
//! and `dkv-node` and `dkv` look there when they are given no token. Other users cannot read it
//! (0700), and a server elsewhere is never tried with these tokens: they are used only for an
//! address of this machine.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::id::NetworkId;
use crate::identity::Role;
use crate::token::Token;

/// The directory of this user's dkv state: `$DKV_HOME`, or `$XDG_STATE_HOME/dkv`, or
/// `$HOME/.local/state/dkv`. `None` if none of these is set.
pub fn home() -> Option<PathBuf> {
    home_in(|name| std::env::var_os(name))
}

fn home_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DKV_HOME")
        .or_else(|| set("XDG_STATE_HOME").map(|path| path.join("dkv")))
        .or_else(|| set("HOME").map(|path| path.join(".local/state/dkv")))
}

/// Where the server that listens on `port` leaves its tokens.
pub fn tokens_dir(home: &Path, port: u16) -> PathBuf {
    home.join("servers").join(port.to_string())
}

/// Where the certificate of a client or administrator of a network is kept.
pub fn credentials_dir(home: &Path, network: NetworkId, role: Role) -> PathBuf {
    home.join("credentials").join(network.to_string()).join(role.as_str())
}

/// Leaves a token for other processes of this user, and tells in which file.
pub fn leave_token(home: &Path, port: u16, token: &Token) -> io::Result<PathBuf> {
    let directory = tokens_dir(home, port);
    durable::create_dir(&directory)?;
    let file = token_file(&directory, token.role);
    durable::write(&file, format!("{token}\n").as_bytes())?;
    Ok(file)
}

/// The token that a server at `address` left for this role, if it is a server of this machine.
///
/// # Errors
/// If there is a file and it cannot be read, or holds no token of that role; the error names the file.
pub fn find_token(home: &Path, address: SocketAddr, role: Role) -> io::Result<Option<Token>> {
    if !is_local(address) {
        return Ok(None);
    }
    let file = token_file(&tokens_dir(home, address.port()), role);
    let Some(text) = durable::read(&file)? else { return Ok(None) };
    let token = String::from_utf8_lossy(&text).parse().ok();
    let wrong = || {
        let why = format!("not a {role} token; the server leaves a new one when it starts");
        durable::named(&file, io::Error::new(io::ErrorKind::InvalidData, why))
    };
    token.filter(|token: &Token| token.role == role).map(Some).ok_or_else(wrong)
}

/// Whether an address is one of this machine: whether it can be bound.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback() || UdpSocket::bind((address.ip(), 0)).is_ok()
}

fn token_file(directory: &Path, role: Role) -> PathBuf {
    directory.join(format!("{role}.token"))
}

#[cfg(test)]
mod tests;
