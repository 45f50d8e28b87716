//! Ranges of keys.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A range of keys, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// All keys with a prefix; all keys if it is empty.
    Prefix(Bytes),
    /// All keys from the first on and before the second; no end if that is empty.
    Range(Bytes, Bytes),
}

impl KeyRange {
    /// Returns whether a key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => only == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Range(from, to) => key >= &from[..] && (to.is_empty() || key < &to[..]),
        }
    }
}

/// A range of keys in the order of their bytes, with borrowed bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keys<'a> {
    /// One key.
    #[serde(borrow, with = "serde_bytes")]
    Key(&'a [u8]),
    /// All keys with a prefix.
    #[serde(borrow, with = "serde_bytes")]
    Prefix(&'a [u8]),
    /// All keys from the first on and before the second; no end if that is empty.
    Range(
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
    ),
}

impl Keys<'_> {
    /// Returns whether a key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match *self {
            Self::Key(only) => only == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Range(from, to) => key >= from && (to.is_empty() || key < to),
        }
    }

    /// Returns the first key that the range may contain.
    pub fn first(&self) -> &[u8] {
        match *self {
            Self::Key(first) | Self::Prefix(first) | Self::Range(first, _) => first,
        }
    }

    /// Returns the range as one that owns its bounds.
    pub fn to_range(self) -> KeyRange {
        let own = Bytes::copy_from_slice;
        match self {
            Self::Key(key) => KeyRange::Key(own(key)),
            Self::Prefix(prefix) => KeyRange::Prefix(own(prefix)),
            Self::Range(from, to) => KeyRange::Range(own(from), own(to)),
        }
    }
}
