//! What a client keeps on disk between runs, so that it needs neither a token nor the server.
//!
//! Below the home directory (see [`dkv_wire::local`]):
//!
//! - `credentials/<network>/<role>/`: its key and certificate, and in `nodes` where the nodes of
//!   the network were last seen, a line each: id, space, address.
//! - `known/<host>_<port>`: the id of the network that was last met at an address. The certificate
//!   to show is chosen by it before anything is said. It is a guess: if the server there turns out
//!   to be another network's, the client joins that one and writes the file anew, so a stale file
//!   costs one refused handshake.
//!
//! All but the credentials is a convenience: what cannot be read is as good as absent. Credentials
//! that are there and cannot be used are an error, and nothing replaces them: whoever they are of
//! would become somebody else without a word. What cannot be written is logged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dkv_base::id::{NetworkId, NodeId};
use dkv_base::{durable, platform};
use dkv_wire::certificate::{CERTIFICATE_FILE, CertificateError, Credentials};
use dkv_wire::identity::Role;
use dkv_wire::{limits, local};
use tracing::{debug, warn};

use crate::address::HostPort;
use crate::error::ConnectError;

const NODES_FILE: &str = "nodes";
/// Networks whose credentials are tried on a node about which nothing is known.
const NETWORKS_TRIED_MAX: usize = 64;
/// Files are replaced under a temporary name that is the same for a whole process.
static WRITING: Mutex<()> = Mutex::new(());

/// The directory, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    home: Option<PathBuf>,
}

impl Keep {
    pub(crate) fn new(home: Option<PathBuf>) -> Self {
        Self { home }
    }

    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The network that was last met at an address.
    pub(crate) fn network_at(&self, address: &HostPort) -> Option<NetworkId> {
        let content = durable::read(&self.known(address)?).ok()??;
        String::from_utf8(content).ok()?.trim().parse().ok()
    }

    /// Credentials that are good for a role in a network; see [`Role::is_served_by`].
    ///
    /// # Errors
    /// [`ConnectError::Stored`] if there are some and they cannot be used: who lost them is not to
    /// find out by becoming somebody else.
    pub(crate) fn credentials(
        &self,
        network: NetworkId,
        role: Role,
    ) -> Result<Option<Credentials>, ConnectError> {
        self.stored(network, role, false)
    }

    /// Credentials that were good for that, and whose certificate has expired.
    ///
    /// # Errors
    /// As for [`credentials`](Self::credentials).
    pub(crate) fn expired(
        &self,
        network: NetworkId,
        role: Role,
    ) -> Result<Option<Credentials>, ConnectError> {
        self.stored(network, role, true)
    }

    fn stored(
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
                    // A certificate that ends during the first handshakes is none to begin with.
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

    /// All networks that credentials are kept of.
    pub(crate) fn networks(&self) -> Vec<NetworkId> {
        let Some(home) = self.home() else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir(home.join("credentials")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok()).take(NETWORKS_TRIED_MAX).collect()
    }

    /// Keeps credentials.
    pub(crate) fn save(&self, credentials: &Credentials) {
        let identity = credentials.identity;
        let Some(home) = self.home() else { return };
        let directory = local::credentials_dir(home, identity.network, identity.role);
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = durable::create_dir(&directory).and_then(|()| lock(&directory));
        match locked {
            Ok(_lock) => {
                // What cannot be read may still be of use to its owner.
                let kept = load_once(&directory, identity.network, identity.role);
                if let Err(error) = kept.and_then(|_| credentials.save(&directory)) {
                    warn!(
                        %error,
                        "credentials cannot be kept in {}; the next start needs a token",
                        directory.display()
                    );
                }
            }
            Err(error) => warn!(%error, "credentials cannot be kept; the next start needs a token"),
        }
    }

    /// Remembers which network is at an address.
    pub(crate) fn met(&self, address: &HostPort, network: NetworkId) {
        if self.network_at(address) == Some(network) {
            return;
        }
        if let Some(path) = self.known(address) {
            write(&path, &format!("{network}\n"));
        }
    }

    /// Where the nodes of a network were last seen.
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

    /// Keeps where the nodes of a network are.
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

    fn known(&self, address: &HostPort) -> Option<PathBuf> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = address.to_string().chars().map(plain).collect();
        Some(self.home()?.join("known").join(name))
    }
}

/// The credentials in a directory, which are of that network and role.
fn load(
    directory: &Path,
    network: NetworkId,
    role: Role,
) -> Result<Option<Credentials>, CertificateError> {
    load_once(directory, network, role).or_else(|error| {
        // Another process may just be replacing them, one file after the other.
        let Ok(_lock) = lock(directory) else { return Err(error) };
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

fn write(path: &Path, content: &str) {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = path.parent().map_or(Ok(()), durable::create_dir);
    if let Err(error) = directory.and_then(|()| durable::write(path, content.as_bytes())) {
        debug!(path = %path.display(), %error, "cannot be kept");
    }
}

/// Another process may be writing the same credentials; it takes milliseconds.
fn lock(directory: &Path) -> std::io::Result<std::fs::File> {
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
