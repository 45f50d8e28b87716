//! Keys and values in the JSON of `/set`, `/fetch` and `/query`, and as the network stores them.

use serde::{Deserialize, Serialize};

/// A key or a value: characters and their encoding. Both are part of a key's identity, so the
/// string `01` and the binary `01` are two keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    /// `string`, or `binary` for digits 0 and 1.
    pub(super) encoding: String,
    /// The characters.
    pub(super) data: String,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) key: Item,
    pub(super) value: Item,
}

impl Item {
    /// Returns the stored form: a letter for the encoding, then the characters. `None` if the item
    /// is invalid.
    pub(super) fn stored(&self) -> Option<Vec<u8>> {
        let letter = match self.encoding.as_str() {
            "string" => b's',
            "binary" if self.data.bytes().all(|byte| matches!(byte, b'0' | b'1')) => b'b',
            _ => return None,
        };
        Some([&[letter], self.data.as_bytes()].concat())
    }

    /// Parses the stored form; `None` if it is not one.
    pub(super) fn from_stored(stored: &[u8]) -> Option<Self> {
        let (letter, data) = stored.split_first()?;
        let encoding = match letter {
            b's' => "string",
            b'b' => "binary",
            _ => return None,
        };
        let data = std::str::from_utf8(data).ok()?;
        Some(Self { encoding: encoding.to_owned(), data: data.to_owned() })
    }
}

#[cfg(test)]
mod tests;
