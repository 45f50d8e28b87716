//! Publishes the initial tokens and the server's address to other processes of the same user.

use std::net::SocketAddr;
use std::path::PathBuf;

use dkv_base::durable;
use dkv_wire::local;
use dkv_wire::token::Token;
use tracing::warn;
use uuid::Uuid;

/// Token files: in the data directory, and in the user's state directory.
///
/// They stay when the server stops, so that a later client reports that no server answers rather
/// than that a token is missing.
pub(crate) struct LocalTokens {
    files: Vec<(Uuid, PathBuf)>,
}

impl LocalTokens {
    /// Publishes `tokens`, each with its file in the data directory, to processes of this user
    /// that look for a server at `address`, and publishes the address itself.
    pub(crate) fn publish(
        tokens: impl IntoIterator<Item = (Token, PathBuf)>,
        home: Option<PathBuf>,
        address: SocketAddr,
    ) -> Self {
        if home.is_none() {
            warn!(
                "none of DKV_HOME, XDG_STATE_HOME and HOME is set: no token is saved for this user's other processes"
            );
        }
        if let Some(home) = &home
            && let Err(error) = local::leave_address(home, address)
        {
            let home = home.display();
            warn!(%home, %error, "cannot save the address for this user's other processes");
        }
        let mut files = Vec::new();
        for (token, file) in tokens {
            files.push((token.id, file));
            let Some(home) = &home else { continue };
            match local::leave_token(home, address.port(), &token) {
                Ok(file) => files.push((token.id, file)),
                Err(error) => {
                    let home = home.display();
                    warn!(%home, %error, "cannot save the token for this user's other processes");
                }
            }
        }
        Self { files }
    }

    /// Deletes the files of a revoked token.
    pub(crate) fn remove(&self, token: Uuid) {
        for (id, file) in &self.files {
            if *id == token
                && let Err(error) = durable::remove(file)
            {
                warn!(file = %file.display(), %error, "cannot remove a revoked token");
            }
        }
    }
}
