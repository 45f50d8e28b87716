//! The data directory: what a network is, on disk.
//!
//! ```text
//! lock                 held by the server that runs
//! creating             there while a first start is not finished: nothing beside it counts
//! authority.der        certificate of the network's authority
//! authority-key.der    its private key: anyone with it can impersonate any member
//! tokens/ROLE.token    the join tokens of the first start: no expiry, any number of uses
//! books.json           who is who; see [`crate::books`]
//! ```
//!
//! All of it is for its owner alone. The server's own certificate is not here: it makes a fresh one
//! at every start and while it runs.
//!
//! A directory that holds something else is never taken, and one that has lost a part of this is
//! never filled up: both would make a second network out of a mistake.

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

use crate::books::{self, BooksError};
use crate::clock;
use crate::registry::Registry;

const CREATING: &str = "creating";
const AUTHORITY: &str = "authority.der";
const AUTHORITY_KEY: &str = "authority-key.der";
const TOKENS: &str = "tokens";
const BOOKS: &str = "books.json";
/// The roles that the first start makes tokens for.
const FIRST_ROLES: [Role; 3] = [Role::Node, Role::Client, Role::Admin];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It, or a file in it, cannot be read or written.
    #[error("cannot use the data directory {}: {source}{}", .path.display(), advice(source))]
    Io {
        /// Which directory.
        path: PathBuf,
        /// What the system says, and of which file.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "another dkv-server runs on the data directory {}; stop that one, or give this one \
         another directory with --data-dir", .0.display()
    )]
    InUse(PathBuf),
    /// It holds something else.
    #[error(
        "{} is not empty and holds no dkv network; name an empty or new directory with --data-dir",
        .0.display()
    )]
    Foreign(PathBuf),
    /// A part of it is gone.
    #[error(
        "{} is missing or empty; if it is on a disk of its own, mount that; else restore the data directory from \
         a backup, or start a new network in another one with --data-dir", .0.display()
    )]
    Missing(PathBuf),
    /// The books cannot be read.
    #[error("{0}")]
    Books(#[from] BooksError),
    /// The authority's files cannot be read.
    #[error("{} is damaged ({source}); restore it from a backup of the data directory", .path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A new authority could not be made.
    #[error("cannot make the network's certificate authority: {0}")]
    Create(CertificateError),
}

/// What to do about an error of the system, where that is not plain.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on that disk, then start the server again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount that disk for writing",
        _ => "",
    }
}

/// A data directory that this process holds.
///
/// Dropped without [`keep`](Self::keep), it takes back what this start has made: a start that fails
/// leaves nothing behind that the next one would have to make sense of.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Arc<File>,
    /// Directories that this start made, the deepest first.
    made: Vec<PathBuf>,
    /// Whether there was nothing in it.
    was_empty: bool,
    is_kept: bool,
}

/// What a data directory holds.
pub(crate) struct Network {
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    /// The tokens that it begins with; none if it was here before.
    tokens: Vec<Token>,
}

/// The token of the first start for a role.
pub(crate) enum FirstToken {
    /// It admits.
    Admits(Token),
    /// It does not: it was revoked, or its file was removed.
    Gone(Role),
    /// Nobody can tell: its file cannot be read, or is not what was written.
    Unreadable(Role, String),
}

impl DataDir {
    /// Takes a directory, which is made if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        // Before it is touched: the next step takes a directory away from everybody else.
        if durable::is_foreign(path, &[CREATING, BOOKS, AUTHORITY_KEY]).map_err(io)? {
            return Err(DataDirError::Foreign(path.to_owned()));
        }
        let made = durable::missing_dirs(path);
        let was_empty = !durable::has_entries(path).map_err(io)?;
        if made.is_empty() {
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
                remove_dirs(&made);
                return Err(error);
            }
        };
        let data = Self { path, lock: Arc::new(lock), made, was_empty, is_kept: false };
        data.guard().map_err(|source| data.io(source))?;
        Ok(data)
    }

    /// Refuses what belongs to another user, and takes what others may read away from them.
    fn guard(&self) -> io::Result<()> {
        let key = self.path.join(AUTHORITY_KEY);
        let key_exists = durable::exists(&key)?;
        if key_exists {
            durable::require_own(&key)?;
        }
        if key_exists && durable::narrow(&key)? {
            warn!(
                "others could read {}, the key of the network's authority: anyone with this key can \
                 impersonate any member; permissions are now 0600",
                key.display()
            );
        }
        durable::narrow(&self.path).map(drop)
    }

    /// The start has succeeded: what it made stays.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Where it is, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The right to the directory, for as long as anything may be written to it.
    pub(crate) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    pub(crate) fn books_file(&self) -> PathBuf {
        self.path.join(BOOKS)
    }

    pub(crate) fn token_file(&self, role: Role) -> PathBuf {
        self.path.join(TOKENS).join(format!("{role}.token"))
    }

    /// Reads the network; nothing if there is none yet, or only a part that a first start left when
    /// it was cut off.
    pub(crate) fn load(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Option<Network>, DataDirError> {
        let exists =
            |name: &str| durable::exists(&self.path.join(name)).map_err(|source| self.io(source));
        let is_new = exists(CREATING)? || (!exists(BOOKS)? && !exists(AUTHORITY_KEY)?);
        if is_new { Ok(None) } else { self.read_network(settings, now).map(Some) }
    }

    fn read_network(&self, settings: &Settings, now: SystemTime) -> Result<Network, DataDirError> {
        let books_file = self.books_file();
        let registry = books::load(&books_file)?;
        let mut registry = registry.ok_or(DataDirError::Missing(books_file))?;
        registry.resume(settings.clone(), clock::millis(now));
        let (certificate, key) = (self.read(AUTHORITY)?, self.read(AUTHORITY_KEY)?);
        let damaged = |name: &str| {
            let path = self.path.join(name);
            move |source| DataDirError::Authority { path, source }
        };
        // By itself first: if both can be read and do not fit, it is the key that must be
        // another's.
        check_authority(&certificate).map_err(damaged(AUTHORITY))?;
        let authority = Authority::from_der(registry.network(), &certificate, &key)
            .map_err(damaged(AUTHORITY_KEY))?;
        Ok(Network { registry, authority, tokens: Vec::new() })
    }

    /// Writes a network that was [invented](Network::invent).
    ///
    /// A crash in here leaves the marker, and the next start begins anew; an error leaves nothing.
    /// Nobody has been told anything by then.
    pub(crate) fn create(&self, network: &Network) -> Result<(), DataDirError> {
        let written = self.write_network(network);
        if written.is_err() {
            self.clear();
        }
        written.map_err(|source| self.io(source))
    }

    fn write_network(&self, network: &Network) -> io::Result<()> {
        let Network { registry, authority, tokens } = network;
        let write = |name: &str, content: &[u8]| durable::write(&self.path.join(name), content);
        write(CREATING, b"")?;
        write(AUTHORITY_KEY, &authority.key_der())?;
        write(AUTHORITY, authority.certificate())?;
        durable::create_dir(&self.path.join(TOKENS))?;
        for token in tokens {
            durable::write(&self.token_file(token.role), format!("{token}\n").as_bytes())?;
        }
        books::save(&self.books_file(), registry)?;
        durable::remove(&self.path.join(CREATING))
    }

    /// Removes what [`create`](Self::create) writes, as far as that can be done: the marker last,
    /// by which the rest counts for nothing.
    fn clear(&self) {
        for role in FIRST_ROLES {
            let _ = std::fs::remove_file(self.token_file(role));
        }
        let _ = std::fs::remove_dir(self.path.join(TOKENS));
        for name in [BOOKS, AUTHORITY, AUTHORITY_KEY, CREATING] {
            let _ = std::fs::remove_file(self.path.join(name));
        }
    }

    /// The tokens of the first start, and what has become of them.
    pub(crate) fn first_tokens(&self, registry: &Registry) -> Vec<FirstToken> {
        FIRST_ROLES.into_iter().map(|role| self.first_token(role, registry)).collect()
    }

    fn first_token(&self, role: Role, registry: &Registry) -> FirstToken {
        let file = self.token_file(role);
        let text = match durable::read(&file) {
            Ok(Some(text)) => text,
            Ok(None) => return FirstToken::Gone(role),
            Err(error) => return FirstToken::Unreadable(role, error.to_string()),
        };
        match String::from_utf8_lossy(&text).parse::<Token>() {
            Ok(token) if token.role == role => match registry.has_token(token.id) {
                true => FirstToken::Admits(token),
                false => FirstToken::Gone(role),
            },
            _ => {
                let why = format!("{} does not hold the original {role} token", file.display());
                FirstToken::Unreadable(role, why)
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
            remove_dirs(&self.made);
        }
    }
}

/// Removes directories that are empty, the deepest first.
fn remove_dirs(made: &[PathBuf]) {
    for directory in made {
        let _ = std::fs::remove_dir(directory);
    }
}

impl Network {
    /// A network that does not exist yet: nothing of it is on disk.
    pub(crate) fn invent(settings: &Settings, now: SystemTime) -> Result<Self, DataDirError> {
        let network = NetworkId::random();
        let authority = Authority::create(network, now).map_err(DataDirError::Create)?;
        let now_ms = clock::millis(now);
        let mut registry = Registry::new(network, settings.clone(), now_ms);
        let tokens =
            FIRST_ROLES.map(|role| Token::generate(role, authority.fingerprint())).to_vec();
        for token in &tokens {
            let hash = token.secret_hash();
            let (entered, _) =
                registry.handle_create_token(token.id, hash, token.role, None, None, None, now_ms);
            debug_assert_eq!(entered, Ok(()), "a token without bounds is always entered");
        }
        Ok(Self { registry, authority, tokens })
    }
}
