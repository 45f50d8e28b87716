//! The registry on disk: one JSON file, `books.json`.
//!
//! A write replaces the whole file ([`dkv_base::durable`]). The file carries a format number and a
//! checksum of its content, and is read only at startup. A file that differs from what a server
//! wrote prevents the start: guessing which node was told to bootstrap, or who is denied, is not
//! an option.

use std::path::{Path, PathBuf};

use dkv_base::durable;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::escape_controls;
use crate::registry::Registry;

const KIND: &str = "dkv server books";
const VERSION: u32 = 1;

/// Why the registry file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFileError {
    /// An I/O error.
    #[error("cannot read the registry: {0}")]
    Io(std::io::Error),
    /// The content differs from what a server wrote.
    #[error("{} is damaged ({why}); restore it from a backup of the data directory", .path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// The error in its content.
        why: String,
    },
    /// A newer server wrote the file.
    #[error(
        "{} is of format {found}, and this dkv-server reads format {VERSION}; use the version \
         that wrote it or a newer one", .path.display()
    )]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// The format number in the file.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    kind: String,
    version: u32,
    /// XXH3 (64 bits, seed 0) of the text of `books`. Detects disk faults and edits by hand; it is
    /// no protection against an attacker.
    checksum: String,
    books: Box<RawValue>,
}

/// Encodes a registry as the text of the file.
pub fn encode(registry: &Registry) -> Result<Vec<u8>, serde_json::Error> {
    let books = serde_json::value::to_raw_value(registry)?;
    let checksum = format!("{:016x}", xxh3_64(books.get().as_bytes()));
    let mut text =
        serde_json::to_vec(&Envelope { kind: KIND.to_owned(), version: VERSION, checksum, books })?;
    text.push(b'\n');
    Ok(text)
}

/// Decodes the text of a file. `path` appears in errors only.
pub fn decode(path: &Path, text: &[u8]) -> Result<Registry, RegistryFileError> {
    let damaged = |why: String| RegistryFileError::Damaged {
        path: path.to_owned(),
        why: escape_controls(&why),
    };
    let envelope: Envelope =
        serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    if envelope.kind != KIND {
        return Err(damaged("it is not the registry of a dkv server".into()));
    }
    if envelope.version > VERSION {
        return Err(RegistryFileError::Newer { path: path.to_owned(), found: envelope.version });
    }
    let books = envelope.books.get();
    if envelope.version == 0 || envelope.checksum != format!("{:016x}", xxh3_64(books.as_bytes())) {
        return Err(damaged("its content does not match its checksum".into()));
    }
    serde_json::from_str(books).map_err(|error| damaged(error.to_string()))
}

/// Writes the registry durably: once this returns, it survives a crash.
pub fn save(path: &Path, registry: &Registry) -> std::io::Result<()> {
    durable::write(path, &encode(registry)?)
}

/// Reads the registry; `None` if the file does not exist.
pub fn load(path: &Path) -> Result<Option<Registry>, RegistryFileError> {
    let text = durable::read(path).map_err(RegistryFileError::Io)?;
    text.map(|text| decode(path, &text)).transpose()
}

#[cfg(test)]
mod tests;
