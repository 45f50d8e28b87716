//! The data directory: a network on disk.
//!
//! ```text
//! lock                 held by the running server
//! creating             exists until a first start completes: until then nothing beside it counts
//! authority.der        certificate of the network's authority
//! authority-key.der    its private key: anyone with it can impersonate any member
//! tokens/ROLE.token    the initial join tokens: no expiry, any number of uses
//! books.json           the registry; see [`crate::registry_file`]
//! ```
//!
//! Only the owner can read any of it. The server's own certificate is not here: the server makes a
//! fresh one at every start and while it runs.
//!
//! The server never takes a directory that holds something else, and never fills up one that has
//! lost a part: either would turn a mistake into a second network.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dkv_base::durable::{self, LOCK};
use dkv_base::id::NetworkId;
use dkv_wire::certificate::{Authority, CertificateError, check_authority};
use dkv_wire::identity::Role;
use dkv_wire::network::Settings;
use dkv_wire::token::Token;
use tracing::warn;

use crate::clock;
use crate::registry::Registry;
use crate::registry_file::{self, RegistryFileError};

const CREATING: &str = "creating";
const AUTHORITY: &str = "authority.der";
const AUTHORITY_KEY: &str = "authority-key.der";
const TOKENS: &str = "tokens";
const REGISTRY: &str = "books.json";
/// The roles of the initial tokens.
const INITIAL_ROLES: [Role; 3] = [Role::Node, Role::Client, Role::Admin];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory, or a file in it, cannot be read or written.
    #[error("cannot use the data directory {}: {source}{}", .path.display(), advice(source))]
    Io {
        /// Path of the directory.
        path: PathBuf,
        /// The error of the system, with the name of the file.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "another dkv-server runs on the data directory {}; stop that one, or give this one \
         another directory with --data-dir", .0.display()
    )]
    InUse(PathBuf),
    /// The directory holds something else.
    #[error(
        "{} is not empty and holds no dkv network; name an empty or new directory with --data-dir",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// A part of the network is missing.
    #[error(
        "{} is missing or empty; if it is on a separate disk, mount that disk; otherwise restore the data directory from \
         a backup, or start a new network in another one with --data-dir", .0.display()
    )]
    Missing(PathBuf),
    /// The registry cannot be read.
    #[error("{0}")]
    Registry(#[from] RegistryFileError),
    /// The authority's files cannot be read.
    #[error("{} is damaged ({source}); restore it from a backup of the data directory", .path.display())]
    Authority {
        /// Path of the file.
        path: PathBuf,
        /// The error in its content.
        source: CertificateError,
    },
    /// A new authority could not be created.
    #[error("cannot create the network's certificate authority: {0}")]
    Create(CertificateError),
}

/// Says how to mend an I/O error, where the error does not make that clear.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on that disk, then start the server again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount that disk read-write",
        _ => "",
    }
}

/// A data directory that this process has locked.
///
/// If dropped without [`keep`](Self::keep), it removes what this start created, so that a failed
/// start leaves nothing for the next one to interpret.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Arc<File>,
    /// Directories that this start created, the deepest first.
    created: Vec<PathBuf>,
    /// Whether the directory was empty before this start.
    was_empty: bool,
    is_kept: bool,
}

/// The network in a data directory.
pub(crate) struct StoredNetwork {
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    /// The initial tokens of a new network; empty for an existing one.
    tokens: Vec<Token>,
}

/// The state of the initial token of a role.
pub(crate) enum InitialToken {
    /// The token admits.
    Valid(Token),
    /// The token was revoked, or its file was removed.
    Gone(Role),
    /// The token's file cannot be read, or its content was changed; says why.
    Unreadable(Role, String),
}

impl DataDir {
    /// Locks a directory, and creates it if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        // Checked before anything is changed: later steps restrict the directory to its owner.
        if durable::is_foreign(path, &[CREATING, REGISTRY, AUTHORITY_KEY]).map_err(io)? {
            return Err(DataDirError::NotEmpty(path.to_owned()));
        }
        let created = durable::missing_dirs(path);
        let was_empty = !durable::has_entries(path).map_err(io)?;
        if created.is_empty() {
            durable::require_own(path).map_err(io)?;
        }
        let opened = durable::create_dir(path).map_err(io).and_then(|()| {
            let lock = durable::lock_dir(path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => DataDirError::InUse(path.to_owned()),
                _ => io(error),
            })?;
            Ok((lock, path.canonicalize().map_err(|error| io(durable::named(path, error)))?))
        });
        let (lock, path) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                remove_dirs(&created);
                return Err(error);
            }
        };
        let data = Self { path, lock: Arc::new(lock), created, was_empty, is_kept: false };
        data.restrict_permissions().map_err(|source| data.io(source))?;
        Ok(data)
    }

    /// Refuses files of another user, and makes the rest readable by their owner only.
    fn restrict_permissions(&self) -> io::Result<()> {
        let key = self.path.join(AUTHORITY_KEY);
        let key_exists = durable::exists(&key)?;
        if key_exists {
            durable::require_own(&key)?;
        }
        if key_exists && durable::narrow(&key)? {
            warn!(
                "other users could read {}, the key of the network's authority: anyone with this key can \
                 impersonate any member; permissions are now 0600",
                key.display()
            );
        }
        durable::narrow(&self.path).map(drop)
    }

    /// Keeps what this start created: the start has succeeded.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Returns the absolute path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the lock, to be held for as long as anything may be written to the directory.
    pub(crate) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    /// Returns the path of the registry file.
    pub(crate) fn registry_file(&self) -> PathBuf {
        self.path.join(REGISTRY)
    }

    /// Returns the path of the initial token of a role.
    pub(crate) fn token_file(&self, role: Role) -> PathBuf {
        self.path.join(TOKENS).join(format!("{role}.token"))
    }

    /// Reads the network. `None` if there is none yet, or only the remains of an interrupted first
    /// start.
    pub(crate) fn load(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Option<StoredNetwork>, DataDirError> {
        let exists =
            |name: &str| durable::exists(&self.path.join(name)).map_err(|source| self.io(source));
        let is_new = exists(CREATING)? || (!exists(REGISTRY)? && !exists(AUTHORITY_KEY)?);
        if is_new { Ok(None) } else { self.read_network(settings, now).map(Some) }
    }

    fn read_network(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<StoredNetwork, DataDirError> {
        let file = self.registry_file();
        let registry = registry_file::load(&file)?;
        let mut registry = registry.ok_or(DataDirError::Missing(file))?;
        registry.resume(settings.clone(), clock::millis(now));
        let (certificate, key) = (self.read(AUTHORITY)?, self.read(AUTHORITY_KEY)?);
        let damaged = |name: &str| {
            let path = self.path.join(name);
            move |source| DataDirError::Authority { path, source }
        };
        // The certificate alone first: if both are readable and do not match, the key is at fault.
        check_authority(&certificate).map_err(damaged(AUTHORITY))?;
        let authority = Authority::from_der(registry.network(), &certificate, &key)
            .map_err(damaged(AUTHORITY_KEY))?;
        Ok(StoredNetwork { registry, authority, tokens: Vec::new() })
    }

    /// Writes a [generated](StoredNetwork::generate) network.
    ///
    /// After a crash the marker remains, and the next start creates another network; an error
    /// leaves nothing. No peer has heard of the network by then.
    pub(crate) fn create(&self, network: &StoredNetwork) -> Result<(), DataDirError> {
        let written = self.write_network(network);
        if written.is_err() {
            self.clear();
        }
        written.map_err(|source| self.io(source))
    }

    fn write_network(&self, network: &StoredNetwork) -> io::Result<()> {
        let StoredNetwork { registry, authority, tokens } = network;
        let write = |name: &str, content: &[u8]| durable::write(&self.path.join(name), content);
        write(CREATING, b"")?;
        write(AUTHORITY_KEY, &authority.key_der())?;
        write(AUTHORITY, authority.certificate())?;
        durable::create_dir(&self.path.join(TOKENS))?;
        for token in tokens {
            durable::write(&self.token_file(token.role), format!("{token}\n").as_bytes())?;
        }
        registry_file::save(&self.registry_file(), registry)?;
        durable::remove(&self.path.join(CREATING))
    }

    /// Removes what [`create`](Self::create) writes, as far as possible. The marker goes last:
    /// while it exists, the rest does not count.
    fn clear(&self) {
        for role in INITIAL_ROLES {
            let _ = std::fs::remove_file(self.token_file(role));
        }
        let _ = std::fs::remove_dir(self.path.join(TOKENS));
        for name in [REGISTRY, AUTHORITY, AUTHORITY_KEY, CREATING] {
            let _ = std::fs::remove_file(self.path.join(name));
        }
    }

    /// Returns the state of the initial token of each role.
    pub(crate) fn initial_tokens(&self, registry: &Registry) -> Vec<InitialToken> {
        INITIAL_ROLES.into_iter().map(|role| self.initial_token(role, registry)).collect()
    }

    fn initial_token(&self, role: Role, registry: &Registry) -> InitialToken {
        let file = self.token_file(role);
        let text = match durable::read(&file) {
            Ok(Some(text)) => text,
            Ok(None) => return InitialToken::Gone(role),
            Err(error) => return InitialToken::Unreadable(role, error.to_string()),
        };
        match String::from_utf8_lossy(&text).parse::<Token>() {
            Ok(token) if token.role == role => match registry.has_token(token.id) {
                true => InitialToken::Valid(token),
                false => InitialToken::Gone(role),
            },
            _ => {
                let why = format!("{} does not hold the original {role} token", file.display());
                InitialToken::Unreadable(role, why)
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DataDirError> {
        let path = self.path.join(name);
        let content = durable::read(&path).map_err(|source| self.io(source))?;
        content.filter(|content| !content.is_empty()).ok_or(DataDirError::Missing(path))
    }

    fn io(&self, source: io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.clone(), source }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if !self.is_kept && self.was_empty {
            let _ = std::fs::remove_file(self.path.join(LOCK));
            remove_dirs(&self.created);
        }
    }
}

/// Removes directories that are empty, in the given order: the deepest first.
fn remove_dirs(created: &[PathBuf]) {
    for directory in created {
        let _ = std::fs::remove_dir(directory);
    }
}

impl StoredNetwork {
    /// A network that another server has founded; it has no initial tokens here.
    pub(crate) fn enlisted(registry: Registry, authority: Authority) -> Self {
        Self { registry, authority, tokens: Vec::new() }
    }

    /// Generates a new network in memory; nothing of it is on disk yet.
    pub(crate) fn generate(settings: &Settings, now: SystemTime) -> Result<Self, DataDirError> {
        let network = NetworkId::random();
        let authority = Authority::create(network, now).map_err(DataDirError::Create)?;
        let now_ms = clock::millis(now);
        let mut registry = Registry::new(network, settings.clone(), now_ms);
        let tokens =
            INITIAL_ROLES.map(|role| Token::generate(role, authority.fingerprint())).to_vec();
        for token in &tokens {
            let hash = token.secret_hash();
            let (created, _) = registry
                .handle_create_token(token.id, hash, token.role, None, None, None, None, now_ms);
            debug_assert_eq!(created, Ok(()), "an unbounded token is always accepted");
        }
        Ok(Self { registry, authority, tokens })
    }
}
