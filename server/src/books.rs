//! The books on disk: the registry as one JSON file.
//!
//! The file is replaced as a whole ([`dkv_base::durable`]), carries a format number and a checksum
//! of its content, and is read only at the start. A file that does not say what this server wrote
//! stops the start: guessing at who was told to bootstrap, or at who is refused, is not an option.

use std::path::{Path, PathBuf};

use dkv_base::durable;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::visible;
use crate::registry::Registry;

const KIND: &str = "dkv server books";
const VERSION: u32 = 1;

/// Why books cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The file cannot be read or written.
    #[error("cannot read the books: {0}")]
    Io(std::io::Error),
    /// The file is not what a server wrote.
    #[error("{} is damaged ({why}); restore it from a backup of the data directory", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is from a server that knows more.
    #[error(
        "{} is of format {found}, and this dkv-server reads format {VERSION}; use the version \
         that wrote it or a newer one", .path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    kind: String,
    version: u32,
    /// XXH3 (64 bits, seed 0) of the text of `books`: against disks and slips, not against malice.
    checksum: String,
    books: Box<RawValue>,
}

/// The text of the file.
pub fn encode(registry: &Registry) -> Result<Vec<u8>, serde_json::Error> {
    let books = serde_json::value::to_raw_value(registry)?;
    let checksum = format!("{:016x}", xxh3_64(books.get().as_bytes()));
    let mut text =
        serde_json::to_vec(&Envelope { kind: KIND.to_owned(), version: VERSION, checksum, books })?;
    text.push(b'\n');
    Ok(text)
}

/// The registry that a file holds. `path` is for errors only.
pub fn decode(path: &Path, text: &[u8]) -> Result<Registry, BooksError> {
    let damaged = |why: String| BooksError::Damaged { path: path.to_owned(), why: visible(&why) };
    let envelope: Envelope =
        serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    if envelope.kind != KIND {
        return Err(damaged("it is not the books of a dkv server".into()));
    }
    if envelope.version > VERSION {
        return Err(BooksError::Newer { path: path.to_owned(), found: envelope.version });
    }
    let books = envelope.books.get();
    if envelope.version == 0 || envelope.checksum != format!("{:016x}", xxh3_64(books.as_bytes())) {
        return Err(damaged("its content does not match its checksum".into()));
    }
    serde_json::from_str(books).map_err(|error| damaged(error.to_string()))
}

/// Writes books; when it returns they survive a crash.
pub fn save(path: &Path, registry: &Registry) -> std::io::Result<()> {
    durable::write(path, &encode(registry)?)
}

/// Reads books; `None` if there are none.
pub fn load(path: &Path) -> Result<Option<Registry>, BooksError> {
    let text = durable::read(path).map_err(BooksError::Io)?;
    text.map(|text| decode(path, &text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_base::id::{NetworkId, NodeId};
    use dkv_wire::network::Settings;

    fn books() -> Vec<u8> {
        let mut registry = Registry::new(NetworkId::random(), Settings::default(), 0);
        let address = "127.0.0.1:4401".parse().unwrap();
        registry.handle_register(NodeId::random(), None, address, None, 0).0.unwrap();
        encode(&registry).unwrap()
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let text = books();
        let path = Path::new("books.json");
        decode(path, &text).unwrap();
        // Without its last brace; only the line feed may be missing.
        for length in 0..text.len() - 1 {
            assert!(decode(path, &text[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..(text.len() - 1) * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(path, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn books_of_a_newer_server_say_so() {
        let text = String::from_utf8(books()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        let error = decode(Path::new("/d/books.json"), newer.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("/d/books.json is of format 2, and this"), "{error}");
    }
}
