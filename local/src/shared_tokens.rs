//! The tokens of a local network in the user's own directory, where other terminals look for them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dkv_api::NetworkId;
use dkv_base::durable;
use dkv_wire::local;

use crate::network_dir::NetworkDir;

/// File that marks a directory of tokens as left by a local network, and names that network's
/// directory.
const MARK: &str = "local-network";

/// Tokens in the user's own directory; removed on drop.
pub(crate) struct SharedTokens {
    /// The user's home and the directory of tokens in it; `None` if nothing was shared.
    shared: Option<(PathBuf, PathBuf)>,
    is_temporary: bool,
    /// The network, once it is known.
    pub(crate) network: Option<NetworkId>,
}

impl SharedTokens {
    /// Copies the server's tokens to the user's own directory, unless that has tokens for the same
    /// port which no local network left there.
    pub(crate) fn share(dir: &NetworkDir, server: SocketAddr) -> Self {
        let shared = local::home().and_then(|home| {
            let target = local::tokens_dir(&home, server.port());
            if target.exists() && !target.join(MARK).exists() {
                return None;
            }
            copy(&local::tokens_dir(&dir.home(), server.port()), &target, dir.path()).ok()?;
            Some((home, target))
        });
        Self { shared, is_temporary: dir.is_temporary(), network: None }
    }

    /// Returns whether another terminal finds the tokens by itself.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

impl Drop for SharedTokens {
    fn drop(&mut self) {
        let Some((home, directory)) = &self.shared else { return };
        // The mark lets the next network replace what cannot be removed now.
        let _ = fs::remove_dir_all(directory);
        if let (true, Some(network)) = (self.is_temporary, self.network) {
            // The network no longer exists, so neither do its credentials.
            let _ = fs::remove_dir_all(home.join("credentials").join(network.to_string()));
        }
    }
}

fn copy(from: &Path, to: &Path, owner: &Path) -> std::io::Result<()> {
    durable::create_dir(to)?;
    // The mark comes first: tokens without it would be taken for another server's.
    durable::write(&to.join(MARK), owner.as_os_str().as_encoded_bytes())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if let Some(content) = durable::read(&entry.path())? {
            durable::write(&to.join(entry.file_name()), &content)?;
        }
    }
    Ok(())
}
