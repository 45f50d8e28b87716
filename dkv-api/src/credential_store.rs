//! The credential store: what a client stores between runs, so that it needs neither a token nor
//! the server.
//!
//! Below the home directory (see [`dkv_wire::local`]):
//!
//! - `credentials/<network>/<role>/`: the key and certificate; and in `nodes` the addresses at
//!   which the nodes of the network were last seen, one line each: id, space, address; in
//!   `servers` those of its registration servers, one line each; and in `token` the id of the token
//!   with which the client joined.
//! - `known/<host>_<port>`: the id of the network last met at an address. It selects the
//!   certificate to present before anything is sent. It is a guess: if the server there now belongs
//!   to another network, the client joins that network and rewrites the file. A stale file costs
//!   one refused handshake.
//!
//! Everything but the credentials is a convenience: an unreadable file counts as absent.
//! Credentials that exist and are unusable are an error, and nothing replaces them: otherwise the
//! client would silently become another holder. Failed writes are logged.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use dkv_base::id::{NetworkId, NodeId};
use dkv_base::sync::lock;
use dkv_base::{durable, platform};
use dkv_wire::certificate::{CERTIFICATE_FILE, CertificateError, Credentials};
use dkv_wire::identity::Role;
use dkv_wire::{limits, local};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::address::HostPort;
use crate::error::ConnectError;

const NODES_FILE: &str = "nodes";
const SERVERS_FILE: &str = "servers";
const TOKEN_FILE: &str = "token";
/// Networks whose credentials are tried at a node of an unknown network.
const NETWORKS_TRIED_MAX: usize = 64;
/// Serializes writes: the temporary name of a file is the same for the whole process.
static WRITING: Mutex<()> = Mutex::new(());

/// The directory, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct CredentialStore {
    home: Option<PathBuf>,
}

impl CredentialStore {
    pub(crate) fn new(home: Option<PathBuf>) -> Self {
        Self { home }
    }

    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Returns the network last met at an address.
    pub(crate) fn network_at(&self, address: &HostPort) -> Option<NetworkId> {
        let content = durable::read(&self.known_file(address)?).ok()??;
        String::from_utf8(content).ok()?.trim().parse().ok()
    }

    /// Returns valid credentials that serve for a role in a network; see [`Role::is_served_by`].
    ///
    /// # Errors
    ///
    /// [`ConnectError::Stored`] if there are some and they are unusable: the client must not
    /// silently become another holder.
    pub(crate) fn credentials(
        &self,
        network: NetworkId,
        role: Role,
    ) -> Result<Option<Credentials>, ConnectError> {
        self.load_for_role(network, role, false)
    }

    /// Returns credentials that served for that, and whose certificate has expired.
    ///
    /// # Errors
    /// As for [`credentials`](Self::credentials).
    pub(crate) fn expired(
        &self,
        network: NetworkId,
        role: Role,
    ) -> Result<Option<Credentials>, ConnectError> {
        self.load_for_role(network, role, true)
    }

    fn load_for_role(
        &self,
        network: NetworkId,
        role: Role,
        expired: bool,
    ) -> Result<Option<Credentials>, ConnectError> {
        let Some(home) = self.home() else { return Ok(None) };
        let roles: &[Role] =
            if role == Role::Client { &[Role::Client, Role::Admin, Role::Reader] } else { &[role] };
        for &role in roles {
            let directory = local::credentials_dir(home, network, role);
            let fitting = load(&directory, network, role).and_then(|found| match found {
                Some(found) => {
                    // A certificate that expires during the first handshakes counts as expired.
                    let soon = platform::wall_clock() + limits::HANDSHAKE_TIMEOUT;
                    Ok((found.expired(soon)? == expired).then_some(found))
                }
                None => Ok(None),
            });
            match fitting {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(source) => return Err(ConnectError::Stored { path: directory, source }),
            }
        }
        Ok(None)
    }

    /// Returns the networks with stored credentials, those that were joined last first, as many as
    /// are tried.
    pub(crate) fn networks(&self) -> Vec<NetworkId> {
        let Some(home) = self.home() else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir(home.join("credentials")) else { return Vec::new() };
        let joined = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let network: NetworkId = entry.file_name().into_string().ok()?.parse().ok()?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            Some((modified.unwrap_or(SystemTime::UNIX_EPOCH), network))
        });
        let mut joined: Vec<_> = joined.collect();
        joined.sort_by_key(|(at, network)| (Reverse(*at), network.to_string()));
        joined.into_iter().map(|(_, network)| network).take(NETWORKS_TRIED_MAX).collect()
    }

    /// Stores credentials, and the id of the token with which they were got, if they are new.
    pub(crate) fn save(&self, credentials: &Credentials, token: Option<Uuid>) {
        let identity = credentials.identity;
        let Some(home) = self.home() else { return };
        let directory = local::credentials_dir(home, identity.network, identity.role);
        let _writing = lock(&WRITING);
        let locked = durable::create_dir(&directory).and_then(|()| lock_directory(&directory));
        match locked {
            Ok(_lock) => {
                // Unreadable credentials may still be of use to their owner, so they are not
                // overwritten.
                let existing = load_once(&directory, identity.network, identity.role);
                match existing.and_then(|_| credentials.save(&directory)) {
                    Ok(()) => note_token(&directory, token),
                    Err(error) => warn!(
                        %error,
                        "cannot store credentials in {}; the next start needs a token",
                        directory.display()
                    ),
                }
            }
            Err(error) => warn!(%error, "cannot store credentials; the next start needs a token"),
        }
    }

    /// Returns the id of the token with which the credentials of a role were got, if it is known.
    pub(crate) fn token(&self, network: NetworkId, role: Role) -> Option<Uuid> {
        let path = local::credentials_dir(self.home()?, network, role).join(TOKEN_FILE);
        let content = durable::read(&path).ok()??;
        String::from_utf8(content).ok()?.trim().parse().ok()
    }

    /// Stores which network is at an address.
    pub(crate) fn save_network_at(&self, address: &HostPort, network: NetworkId) {
        if self.network_at(address) == Some(network) {
            return;
        }
        if let Some(path) = self.known_file(address) {
            write(&path, &format!("{network}\n"));
        }
    }

    /// Returns the addresses at which the nodes of a network were last seen.
    pub(crate) fn nodes(&self, network: NetworkId, role: Role) -> Vec<(NodeId, SocketAddr)> {
        let Some(home) = self.home() else { return Vec::new() };
        let path = local::credentials_dir(home, network, role).join(NODES_FILE);
        let Ok(Some(content)) = durable::read(&path) else { return Vec::new() };
        let content = String::from_utf8_lossy(&content);
        let nodes = content.lines().filter_map(|line| {
            let (node, address) = line.split_once(' ')?;
            Some((node.parse().ok()?, address.parse().ok()?))
        });
        nodes.take(limits::NODES_MAX).collect()
    }

    /// Stores the addresses of the nodes of a network.
    pub(crate) fn save_nodes(
        &self,
        network: NetworkId,
        role: Role,
        nodes: &[(NodeId, SocketAddr)],
    ) {
        let Some(home) = self.home() else { return };
        let lines = nodes.iter().map(|(node, address)| format!("{node} {address}\n"));
        let path = local::credentials_dir(home, network, role).join(NODES_FILE);
        write(&path, &lines.collect::<String>());
    }

    /// Returns the addresses of the registration servers of a network.
    pub(crate) fn servers(&self, network: NetworkId, role: Role) -> Vec<HostPort> {
        let Some(home) = self.home() else { return Vec::new() };
        let path = local::credentials_dir(home, network, role).join(SERVERS_FILE);
        let Ok(Some(content)) = durable::read(&path) else { return Vec::new() };
        let content = String::from_utf8_lossy(&content);
        let servers = content.lines().filter_map(|line| line.parse::<SocketAddr>().ok());
        let servers = servers.filter_map(|server| HostPort::parse(&server.to_string()).ok());
        servers.take(limits::SERVERS_MAX).collect()
    }

    /// Stores the addresses of the registration servers of a network, so that a client that is
    /// given any of them later knows which network it meets there.
    pub(crate) fn save_servers(&self, network: NetworkId, role: Role, servers: &[SocketAddr]) {
        let Some(home) = self.home() else { return };
        let lines = servers.iter().map(|server| format!("{server}\n"));
        let path = local::credentials_dir(home, network, role).join(SERVERS_FILE);
        write(&path, &lines.collect::<String>());
        for server in servers {
            if let Ok(address) = HostPort::parse(&server.to_string())
                && self.network_at(&address) != Some(network)
            {
                self.save_network_at(&address, network);
            }
        }
    }

    fn known_file(&self, address: &HostPort) -> Option<PathBuf> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = address.to_string().chars().map(plain).collect();
        Some(self.home()?.join("known").join(name))
    }
}

/// Loads the credentials in a directory, which must be of this network and role.
fn load(
    directory: &Path,
    network: NetworkId,
    role: Role,
) -> Result<Option<Credentials>, CertificateError> {
    load_once(directory, network, role).or_else(|error| {
        // Another process may be replacing them, one file after the other.
        let Ok(_lock) = lock_directory(directory) else { return Err(error) };
        load_once(directory, network, role)
    })
}

fn load_once(
    directory: &Path,
    network: NetworkId,
    role: Role,
) -> Result<Option<Credentials>, CertificateError> {
    let found = Credentials::load(directory)?;
    match &found {
        Some(found) if (found.identity.network, found.identity.role) != (network, role) => {
            Err(CertificateError::Damaged {
                path: directory.join(CERTIFICATE_FILE).display().to_string(),
                problem: format!("it is the certificate of {}", found.identity),
            })
        }
        _ => Ok(found),
    }
}

/// Stores the id of a token in a directory that is locked.
fn note_token(directory: &Path, token: Option<Uuid>) {
    let Some(token) = token else { return };
    let path = directory.join(TOKEN_FILE);
    if let Err(error) = durable::write(&path, format!("{token}\n").as_bytes()) {
        debug!(path = %path.display(), %error, "cannot be stored");
    }
}

fn write(path: &Path, content: &str) {
    let _writing = lock(&WRITING);
    let directory = path.parent().map_or(Ok(()), durable::create_dir);
    if let Err(error) = directory.and_then(|()| durable::write(path, content.as_bytes())) {
        debug!(path = %path.display(), %error, "cannot be stored");
    }
}

/// Locks a directory. Waits for another process that is writing the same credentials, which takes
/// milliseconds.
fn lock_directory(directory: &Path) -> std::io::Result<std::fs::File> {
    for _ in 0..50 {
        match durable::lock_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
    durable::lock_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_that_were_joined_last_are_tried() {
        let home = tempfile::tempdir().unwrap();
        let networks: Vec<_> =
            (0..NETWORKS_TRIED_MAX as u64 + 10).map(|_| NetworkId::random()).collect();
        for (number, network) in networks.iter().enumerate() {
            let directory = home.path().join("credentials").join(network.to_string());
            std::fs::create_dir_all(&directory).unwrap();
            let joined = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + number as u64);
            std::fs::File::open(&directory).unwrap().set_modified(joined).unwrap();
        }
        std::fs::create_dir(home.path().join("credentials").join("no network")).unwrap();
        let tried = CredentialStore::new(Some(home.path().to_owned())).networks();
        let expected: Vec<_> = networks.into_iter().rev().take(NETWORKS_TRIED_MAX).collect();
        assert_eq!(tried, expected);
    }
}
