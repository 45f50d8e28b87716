//! A node's data directory: its identity, and all of its data.
//!
//! ```text
//! lock            held by the process that uses the directory
//! credentials/    key and certificates
//! node.json       network, name, address, region, settings
//! starts.json     how often the node was started here; see `incarnations/store.rs`
//! runs.json       the known incarnations of other nodes
//! recovery        what an offline recovery has written here, or was about to write
//! damaged         why the directory must not be used; not there while all is well
//! wal/            the log of all groups
//! state/          checkpoints
//! former/         what is left of replicas that were deleted; see `tombstone.rs`
//! ```
//!
//! The identity is bound to the directory. `node.json` says whether the log was begun: a directory
//! that lost its log is damaged, because a node that forgot its votes and entries must never go on
//! under its old identity. Damage that is found only while the node runs is recorded in `damaged`.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dkv_base::durable::{self, LOCK};
use dkv_base::id::{NetworkId, NodeId};
use dkv_state::EngineError;
use dkv_state::engine::is_database_name;
use dkv_wire::certificate::{CERTIFICATE_FILE, CertificateError, Credentials};
use dkv_wire::identity::Role;
use dkv_wire::network::Settings;
use dkv_wire::region::Region;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Name of the directory of the key and the certificates.
const CREDENTIALS: &str = "credentials";
/// Names of the directories of the log and of the checkpoints.
const LOG: &str = "wal";
const STATE: &str = "state";
/// Files and directories that a node creates once it has its certificate.
const BEGUN: [&str; 5] = ["node.json", "starts.json", "runs.json", "damaged", "former"];
/// Version of node.json, and of everything beside it: it changes with any format in the directory.
/// The second one has versions of keys in its checkpoints, the third one the books of the
/// registration servers.
const VERSION: u32 = 3;
/// Number of default directories to try before giving up.
const DEFAULTS_MAX: u32 = 1024;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another process uses it.
    #[error(
        "the data directory {0} is in use by another process; stop that one, or choose another \
         directory with --data-dir"
    )]
    InUse(PathBuf),
    /// It contains something else.
    #[error(
        "the data directory {} is not empty and holds no dkv node; name an empty or new directory with \
         --data-dir", .0.display()
    )]
    Foreign(PathBuf),
    /// Its content is impossible.
    #[error(
        "the data directory {path} is damaged: {problem}; do not delete it. Once `dkv status` shows \
         no lag on the other nodes, start the node with an empty directory \
         (--data-dir): it joins under a new identity and gets its data from them"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The contradiction that was found.
        problem: String,
    },
    /// A file or directory that was in it is gone. Nothing was read that could be damaged.
    #[error(
        "{} is missing or empty, and {} already holds this node's data. If it is on a disk of its own, \
         mount that. If it is lost for good, do not delete the rest. Once `dkv status` shows no lag on the \
         other nodes, start the node with an empty directory (--data-dir): it joins under a new \
         identity and gets its data from them", .missing.display(), .path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The missing file or directory.
        missing: PathBuf,
    },
    /// It was written by a version that this one does not know.
    #[error(
        "the data directory {path} is of format {found}, and this version of dkv knows {VERSION}; \
         nothing in it was changed: start the version that wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// The format version in it.
        found: u32,
    },
    /// It cannot be read or written.
    #[error("the data directory {path} cannot be used: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Content of node.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    version: u32,
    /// The network that the node belongs to.
    pub(crate) network: NetworkId,
    /// The node's id.
    pub(crate) id: NodeId,
    /// The node's name, for people.
    pub(crate) name: String,
    /// The address where it listened last.
    pub(crate) listen: SocketAddr,
    /// The region that it is in, if one was given.
    pub(crate) region: Option<Region>,
    /// The settings that the network runs with.
    pub(crate) settings: Settings,
    /// Whether the server told this node to bootstrap the network.
    pub(crate) bootstrap: bool,
    /// Whether the log was begun.
    pub(crate) log_begun: bool,
    /// Checksum of all other fields in the file; files of the first versions had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

impl NodeFile {
    pub(crate) fn new(
        network: NetworkId,
        id: NodeId,
        name: String,
        listen: SocketAddr,
        region: Option<Region>,
        settings: Settings,
        bootstrap: bool,
    ) -> Self {
        Self {
            version: VERSION,
            network,
            id,
            name,
            listen,
            region,
            settings,
            bootstrap,
            log_begun: false,
            checksum: None,
        }
    }

    /// Encodes the file's content, with its checksum if there is one.
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }
}

/// A data directory that belongs to this process.
///
/// If it is dropped before anything was stored in it, it removes what it created, so that a start
/// that fails leaves nothing.
pub(crate) struct DataDir {
    path: PathBuf,
    /// Directories that this start made, the deepest first.
    made: Vec<PathBuf>,
    was_empty: bool,
    _lock: File,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let is_empty = || {
            let entries = fs::read_dir(&self.path).ok()?;
            let mut others = entries
                .filter(|entry| entry.as_ref().map_or(true, |entry| entry.file_name() != LOCK));
            Some(others.next().is_none())
        };
        if self.was_empty && is_empty() == Some(true) {
            let _ = fs::remove_file(self.path.join(LOCK));
            for directory in &self.made {
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

impl DataDir {
    /// Opens and locks a directory, and creates it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        // Checked before the directory is touched: the next steps deny it to all other users.
        let ours: Vec<&str> = BEGUN.into_iter().chain([CREDENTIALS, LOG, STATE]).collect();
        if durable::is_foreign(path, &ours).map_err(io)? {
            return Err(DataDirError::Foreign(path.to_owned()));
        }
        let made = durable::missing_dirs(path);
        if made.is_empty() {
            durable::require_own(path).map_err(io)?;
        }
        let was_empty = !durable::has_entries(path).map_err(io)?;
        durable::create_dir(path).map_err(io)?;
        match durable::lock_dir(path) {
            Ok(lock) => {
                let data = Self { path: path.to_owned(), made, was_empty, _lock: lock };
                // Files of an earlier release, or of an unpacked copy, may be readable by others.
                durable::narrow(path).map_err(io)?;
                Ok(data)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(DataDirError::InUse(path.to_owned()))
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Opens the first of `node-1`, `node-2`, ... below `parent` that no other process uses, so
    /// that one command, typed in several terminals, runs several nodes, and typed again runs the
    /// same ones.
    pub(crate) fn open_default(parent: &Path) -> Result<Self, DataDirError> {
        let mut last = None;
        for number in 1..=DEFAULTS_MAX {
            match Self::open(&parent.join(format!("node-{number}"))) {
                Err(error @ DataDirError::InUse(_)) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| DataDirError::InUse(parent.to_owned())))
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the log.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The path of the checkpoints.
    pub(crate) fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Returns the identity in this directory, if there is one.
    ///
    /// # Errors
    /// Also if the certificate is gone and a node has used the directory: no other node may use it.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, DataDirError> {
        match Credentials::load(&self.credentials_path()) {
            Ok(Some(found)) if found.identity.role != Role::Node => {
                Err(self.damaged(format!("it holds the certificate of a {}", found.identity.role)))
            }
            Ok(None) if self.was_lived_in().map_err(|error| self.io(error))? => {
                Err(self.missing(self.credentials_path().join(CERTIFICATE_FILE)))
            }
            Ok(found) => Ok(found),
            Err(CertificateError::Io(source)) => Err(self.io(source)),
            Err(CertificateError::Missing(file)) => Err(self.missing(file)),
            Err(error) => Err(self.damaged(error.to_string())),
        }
    }

    /// Whether a node has begun anything here under an identity. A first start that was cut off
    /// before it had its certificate has not.
    fn was_lived_in(&self) -> io::Result<bool> {
        for name in BEGUN {
            if durable::exists(&self.path.join(name))? {
                return Ok(true);
            }
        }
        Ok(self.has_log()? || self.has_state()?)
    }

    /// Whether there is a log. Its directory may be the mount point of a disk of its own, prepared
    /// before the first start, or without its disk; then other files may lie in it.
    fn has_log(&self) -> io::Result<bool> {
        durable::has_named(&self.log_path(), dkv_wal::is_segment_name)
    }

    /// Whether there are checkpoints; see [`Self::has_log`].
    fn has_state(&self) -> io::Result<bool> {
        durable::has_named(&self.state_path(), is_database_name)
    }

    /// Saves an identity, or a renewed certificate of it.
    pub(crate) fn save_credentials(&self, credentials: &Credentials) -> Result<(), DataDirError> {
        credentials.save(&self.credentials_path()).map_err(|error| match error {
            CertificateError::Io(source) => self.io(source),
            error => self.io(io::Error::other(error)),
        })
    }

    /// Reads node.json and checks it against the identity and the other content of the directory.
    pub(crate) fn node_file(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<NodeFile>, DataDirError> {
        if let Some(problem) = durable::read(&damaged_path(&self.path)).map_err(|e| self.io(e))? {
            return Err(self.damaged(String::from_utf8_lossy(&problem).into_owned()));
        }
        let content = durable::read(&self.node_path()).map_err(|error| self.io(error))?;
        let Some(content) = content else {
            return if self.has_log().map_err(|error| self.io(error))? {
                Err(self.missing(self.node_path()))
            } else {
                Ok(None)
            };
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error| self.damaged(format!("node.json: {error}"));
        let Versioned { version } = serde_json::from_slice(&content).map_err(malformed)?;
        if version != VERSION {
            return Err(DataDirError::Version { path: self.path.clone(), found: version });
        }
        let mut file: NodeFile = serde_json::from_slice(&content).map_err(malformed)?;
        let checksum = file.checksum.take();
        let identity = credentials.identity;
        if file.network != identity.network || Some(file.id) != identity.as_node() {
            return Err(self.damaged("node.json and the certificate are of different nodes".into()));
        }
        file.settings.check().map_err(|error| self.damaged(format!("node.json: {error}")))?;
        if checksum.is_some() && checksum != Some(checksum_of(&file.encode().map_err(malformed)?)) {
            // A name or an address with one changed bit still parses.
            return Err(self.damaged("node.json: its content does not match its checksum".into()));
        }
        if file.log_begun && !self.has_log().map_err(|error| self.io(error))? {
            return Err(self.missing(self.log_path()));
        }
        if file.log_begun && !self.has_state().map_err(|error| self.io(error))? {
            return Err(self.missing(self.state_path()));
        }
        Ok(Some(file))
    }

    /// Replaces node.json.
    pub(crate) fn save_node_file(&self, file: &NodeFile) -> Result<(), DataDirError> {
        let content = file.encode().and_then(|content| {
            NodeFile { checksum: Some(checksum_of(&content)), ..file.clone() }.encode()
        });
        content
            .map_err(io::Error::other)
            .and_then(|content| durable::write(&self.node_path(), &content))
            .map_err(|error| self.io(error))
    }

    /// Makes an error that says what is wrong with this directory.
    pub(crate) fn damaged(&self, problem: String) -> DataDirError {
        DataDirError::Damaged { path: self.path.clone(), problem }
    }

    /// Makes an error that says that this directory cannot be used now.
    pub(crate) fn unusable(&self, why: &impl ToString) -> DataDirError {
        self.io(io::Error::other(why.to_string()))
    }

    /// Makes an error that says why the checkpoints in this directory cannot be read.
    pub(crate) fn of_engine(&self, error: EngineError) -> DataDirError {
        match error {
            EngineError::Damaged { .. } => self.damaged(error.to_string()),
            EngineError::Missing(file) => self.missing(file),
            error => self.unusable(&error),
        }
    }

    /// Makes an error that says what has gone from this directory.
    pub(crate) fn missing(&self, missing: PathBuf) -> DataDirError {
        DataDirError::Missing { path: self.path.clone(), missing }
    }

    fn io(&self, source: io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.clone(), source }
    }

    fn credentials_path(&self) -> PathBuf {
        self.path.join(CREDENTIALS)
    }

    fn node_path(&self) -> PathBuf {
        self.path.join("node.json")
    }
}

/// Records in a directory that it must not be used any more, and returns the error for its owner.
pub(crate) fn condemn(path: &Path, problem: &str) -> String {
    let error = DataDirError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    match durable::write(&damaged_path(path), problem.as_bytes()) {
        Ok(()) => error.to_string(),
        // The next start of the node finds the damage anew.
        Err(why) => format!("{error} (which could not be noted there: {why})"),
    }
}

fn damaged_path(path: &Path) -> PathBuf {
    path.join("damaged")
}

fn checksum_of(content: &[u8]) -> String {
    format!("{:016x}", xxh3_64(content))
}

#[cfg(test)]
mod tests;
