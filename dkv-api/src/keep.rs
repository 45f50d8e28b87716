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
//! Everything here is a convenience: what cannot be read is as good as absent, and what cannot be
//! written is logged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dkv_wire::certificate::Credentials;
use dkv_wire::id::{NetworkId, NodeId};
use dkv_wire::identity::Role;
use dkv_wire::{durable, limits, local, platform};
use tracing::{debug, warn};

use crate::address::HostPort;

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
    pub(crate) fn credentials(&self, network: NetworkId, role: Role) -> Option<Credentials> {
        self.stored(network, role, false)
    }

    /// Credentials that were good for that, and whose certificate has expired.
    pub(crate) fn expired(&self, network: NetworkId, role: Role) -> Option<Credentials> {
        self.stored(network, role, true)
    }

    fn stored(&self, network: NetworkId, role: Role, expired: bool) -> Option<Credentials> {
        let roles: &[Role] =
            if role == Role::Client { &[Role::Client, Role::Admin, Role::Reader] } else { &[role] };
        roles.iter().find_map(|&role| {
            let directory = local::credentials_dir(self.home()?, network, role);
            let credentials = Credentials::load(&directory)
                .map_err(|error| debug!(%error, "stored credentials are not usable"))
                .ok()??;
            let identity = credentials.identity;
            let fits = identity.network == network && identity.role == role;
            // A certificate that ends during the first handshakes is none to begin with.
            let soon = platform::wall_clock() + limits::HANDSHAKE_TIMEOUT;
            (fits && credentials.expired(soon).ok()? == expired).then_some(credentials)
        })
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
                if let Err(error) = credentials.save(&directory) {
                    warn!(%error, "credentials cannot be kept; the next start needs a token");
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
