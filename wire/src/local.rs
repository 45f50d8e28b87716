//! Files through which the processes of one user on one machine find each other.
//!
//! A registration server writes its join tokens into a directory of its user, named after its port,
//! and `dkv-node` and `dkv` look there when they are given no token. Other users cannot read the
//! directory (0700), and the tokens are used only for addresses of this machine, never for a server
//! elsewhere. Beside the tokens the server leaves its address, so that a command without a server
//! address finds the one that runs here.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use dkv_base::durable;
use dkv_base::id::NetworkId;

use crate::identity::Role;
use crate::token::Token;

/// Directory below the home with one directory for each server, named after its port.
const SERVERS_DIR: &str = "servers";
/// File in a server's directory with its address.
const ADDRESS_FILE: &str = "address";
/// Most stopped servers that are listed.
const SERVERS_MAX: usize = 64;

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

/// The directory in which the server on `port` leaves its tokens.
pub fn tokens_dir(home: &Path, port: u16) -> PathBuf {
    home.join(SERVERS_DIR).join(port.to_string())
}

/// The directory with the credentials of a client or administrator of a network.
pub fn credentials_dir(home: &Path, network: NetworkId, role: Role) -> PathBuf {
    home.join("credentials").join(network.to_string()).join(role.as_str())
}

/// Leaves a token for other processes of this user, and returns its file.
///
/// # Errors
/// If the file cannot be written.
pub fn leave_token(home: &Path, port: u16, token: &Token) -> io::Result<PathBuf> {
    let directory = tokens_dir(home, port);
    durable::create_dir(&directory)?;
    let file = token_file(&directory, token.role);
    durable::write(&file, format!("{token}\n").as_bytes())?;
    Ok(file)
}

/// Leaves the address of a server for other processes of this user.
///
/// # Errors
/// If the file cannot be written.
pub fn leave_address(home: &Path, address: SocketAddr) -> io::Result<()> {
    let directory = tokens_dir(home, address.port());
    durable::create_dir(&directory)?;
    durable::write(&directory.join(ADDRESS_FILE), format!("{}\n", reachable(address)).as_bytes())
}

/// The address at which a process on this machine reaches a listener at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The registration servers of a user on this machine, ordered by port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// Addresses of the servers that run.
    pub running: Vec<SocketAddr>,
    /// Addresses of servers that ran here before. Their networks may be up without them.
    pub stopped: Vec<SocketAddr>,
}

/// Lists the registration servers of this user on this machine.
///
/// # Errors
/// If the directory that names them cannot be read.
pub fn servers(home: &Path) -> io::Result<Servers> {
    let directory = home.join(SERVERS_DIR);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Servers::default()),
        Err(error) => return Err(durable::named(&directory, error)),
    };
    let ports = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u16>().ok());
    let mut known: Vec<SocketAddr> = ports.map(|port| left_at(home, port)).collect();
    known.sort_unstable_by_key(SocketAddr::port);
    let (running, mut stopped): (Vec<_>, Vec<_>) = known.into_iter().partition(is_taken);
    stopped.truncate(SERVERS_MAX);
    Ok(Servers { running, stopped })
}

/// The address that the server on `port` left, or else the loopback address.
fn left_at(home: &Path, port: u16) -> SocketAddr {
    let file = tokens_dir(home, port).join(ADDRESS_FILE);
    let text = durable::read(&file).ok().flatten().and_then(|text| String::from_utf8(text).ok());
    let address = text.and_then(|text| text.trim().parse().ok());
    address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether a process may be listening at an address. Always true for addresses of other machines.
pub fn may_listen(address: SocketAddr) -> bool {
    !is_local(address) || UdpSocket::bind(address).is_err()
}

/// Whether a process on this machine listens at an address.
fn is_taken(address: &SocketAddr) -> bool {
    UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The token that the server at `address` left for this role, if that is an address of this
/// machine.
///
/// # Errors
/// If the file cannot be read or does not hold a token of that role. The error names the file.
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

/// Whether an address belongs to this machine: whether it can be bound.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback() || UdpSocket::bind((address.ip(), 0)).is_ok()
}

fn token_file(directory: &Path, role: Role) -> PathBuf {
    directory.join(format!("{role}.token"))
}

#[cfg(test)]
mod tests;
