//! The data directory: what a network is, on disk.
//!
//! ```text
//! lock                 held by the server that runs
//! creating             there while a first start is not finished: nothing beside it counts
//! authority.der        certificate of the network's authority
//! authority-key.der    its private key: whoever has it can be anybody
//! tokens/ROLE.token    the join tokens of the first start: no expiry, any number of uses
//! books.json           who is who; see [`crate::books`]
//! ```
//!
//! All of it is for its owner alone. The server's own certificate is not here: it makes a fresh one
//! at every start and while it runs.
//!
//! A directory that holds something else is never taken, and one that has lost a part of this is
//! never filled up: both would make a second network out of a mistake.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dkv_wire::certificate::{Authority, CertificateError};
use dkv_wire::durable;
use dkv_wire::id::NetworkId;
use dkv_wire::identity::Role;
use dkv_wire::network::Settings;
use dkv_wire::token::Token;

use crate::books::{self, BooksError};
use crate::clock;
use crate::registry::Registry;

const LOCK: &str = "lock";
const CREATING: &str = "creating";
const AUTHORITY: &str = "authority.der";
const AUTHORITY_KEY: &str = "authority-key.der";
const TOKENS: &str = "tokens";
const BOOKS: &str = "books.json";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It, or a file in it, cannot be read or written.
    #[error("cannot use the data directory {}: {source}", .path.display())]
    Io {
        /// Which directory.
        path: PathBuf,
        /// What the system says.
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
        "{} is missing; restore the data directory from a backup, or start a new network in \
         another one with --data-dir", .0.display()
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

/// A data directory that this process holds.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Arc<File>,
}

/// What a data directory holds.
pub(crate) struct Network {
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    /// Whether it was made just now.
    pub(crate) is_new: bool,
}

impl DataDir {
    /// Takes a directory, which is made if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        // Before it is touched: the next step takes a directory away from everybody else.
        if is_foreign(path).map_err(io)? {
            return Err(DataDirError::Foreign(path.to_owned()));
        }
        durable::create_dir(path).map_err(io)?;
        let lock = durable::lock_dir(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse(path.to_owned()),
            _ => io(error),
        })?;
        let path = path.canonicalize().map_err(io)?;
        Ok(Self { path, lock: Arc::new(lock) })
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

    /// Reads the network, or creates it if there is none yet.
    pub(crate) fn load_or_create(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Network, DataDirError> {
        let exists =
            |name: &str| self.path.join(name).try_exists().map_err(|source| self.io(source));
        let is_new = exists(CREATING)? || (!exists(BOOKS)? && !exists(AUTHORITY_KEY)?);
        if is_new { self.create(settings, now) } else { self.load(settings, now) }
    }

    fn load(&self, settings: &Settings, now: SystemTime) -> Result<Network, DataDirError> {
        let books_file = self.books_file();
        let registry = books::load(&books_file)?;
        let mut registry = registry.ok_or(DataDirError::Missing(books_file))?;
        registry.resume(settings.clone(), clock::millis(now));
        let (certificate, key) = (self.read(AUTHORITY)?, self.read(AUTHORITY_KEY)?);
        let authority =
            Authority::from_der(registry.network(), &certificate, &key).map_err(|source| {
                DataDirError::Authority { path: self.path.join(AUTHORITY_KEY), source }
            })?;
        Ok(Network { registry, authority, is_new: false })
    }

    /// A crash in here leaves the marker, and the next start begins anew. Nobody has been told
    /// anything by then.
    fn create(&self, settings: &Settings, now: SystemTime) -> Result<Network, DataDirError> {
        self.write(CREATING, b"")?;
        let network = NetworkId::random();
        let authority = Authority::create(network, now).map_err(DataDirError::Create)?;
        self.write(AUTHORITY_KEY, &authority.key_der())?;
        self.write(AUTHORITY, authority.certificate())?;
        let now_ms = clock::millis(now);
        let mut registry = Registry::new(network, settings.clone(), now_ms);
        durable::create_dir(&self.path.join(TOKENS)).map_err(|source| self.io(source))?;
        for role in [Role::Node, Role::Client, Role::Admin] {
            let token = Token::generate(role, authority.fingerprint());
            let hash = token.secret_hash();
            let (entered, _) =
                registry.handle_create_token(token.id, hash, role, None, None, None, now_ms);
            debug_assert_eq!(entered, Ok(()), "a token without bounds is always entered");
            durable::write(&self.token_file(role), format!("{token}\n").as_bytes())
                .map_err(|source| self.io(source))?;
        }
        books::save(&self.books_file(), &registry).map_err(|source| self.io(source))?;
        durable::remove(&self.path.join(CREATING)).map_err(|source| self.io(source))?;
        Ok(Network { registry, authority, is_new: true })
    }

    /// The tokens of the first start that have not been revoked.
    pub(crate) fn first_tokens(&self, registry: &Registry) -> Vec<Token> {
        [Role::Node, Role::Client, Role::Admin]
            .into_iter()
            .filter_map(|role| {
                let text = durable::read(&self.token_file(role)).ok()??;
                let token: Token = String::from_utf8(text).ok()?.parse().ok()?;
                (token.role == role && registry.has_token(token.id)).then_some(token)
            })
            .collect()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DataDirError> {
        let path = self.path.join(name);
        let content = durable::read(&path).map_err(|source| self.io(source))?;
        content.ok_or(DataDirError::Missing(path))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), DataDirError> {
        durable::write(&self.path.join(name), content).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.clone(), source }
    }
}

/// Whether a directory has something in it, and nothing that a server left there.
fn is_foreign(path: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut is_foreign = false;
    for entry in entries {
        let name = entry?.file_name();
        if [CREATING, BOOKS, AUTHORITY_KEY].iter().any(|ours| name == OsStr::new(ours)) {
            return Ok(false);
        }
        // The lock comes first of all, before there is anything else.
        is_foreign |= name != OsStr::new(LOCK);
    }
    Ok(is_foreign)
}
