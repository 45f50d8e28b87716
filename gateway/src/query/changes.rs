//! Query strings of histories and watches.

use dkv_api::{KeyRange, Revision};

use super::{QueryError, boolean, bytes, encoding, fields, limit, number};
use crate::bytes_json::Encoding;
use crate::limits::LIST_LIMIT_DEFAULT;
use crate::percent;

/// The query of a key's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// `key`: the key.
    pub key: Vec<u8>,
    /// `before`: only versions before this revision.
    pub before: Option<Revision>,
    /// `limit`: number of versions at most.
    pub limit: usize,
    /// `encoding`: how the key and its values are written.
    pub encoding: Encoding,
}

impl HistoryQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut key = None;
        let (mut before, mut most, mut form) = (None, LIST_LIMIT_DEFAULT, Encoding::Text);
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "key" => key = Some(whole_key(name, value)?),
                "before" => before = Some(Revision(number(name, value)?)),
                "limit" => most = limit(name, value)?,
                "encoding" => form = encoding(name, value)?,
                _ => return Err(QueryError::Unknown("key, before, limit and encoding")),
            }
        }
        let key = key.ok_or(QueryError::Missing("key"))?;
        Ok(Self { key, before, limit: most, encoding: form })
    }
}

/// The query of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    /// `key` or `prefix`: the keys to watch; all by default.
    pub keys: KeyRange,
    /// `from`: the position after which to begin, not parsed yet.
    pub from: Option<String>,
    /// `previous`: whether each change comes with the version before it.
    pub previous: bool,
    /// `encoding`: how keys and values are written.
    pub encoding: Encoding,
}

impl WatchQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let (mut keys, mut from) = (None, None);
        let (mut previous, mut form) = (false, Encoding::Text);
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "key" | "prefix" if keys.is_some() => {
                    return Err(QueryError::Exclusive("prefix", "key"));
                }
                "key" => keys = Some(KeyRange::Key(whole_key(name, value)?.into())),
                "prefix" => keys = Some(KeyRange::Prefix(bytes(name, value)?.into())),
                "from" => from = Some(text(name, value)?),
                "previous" => previous = boolean(name, value)?,
                "encoding" => form = encoding(name, value)?,
                _ => {
                    return Err(QueryError::Unknown("prefix, key, from, previous and encoding"));
                }
            }
        }
        let keys = keys.unwrap_or(KeyRange::Prefix(Vec::new().into()));
        Ok(Self { keys, from, previous, encoding: form })
    }
}

fn whole_key(name: &str, value: &str) -> Result<Vec<u8>, QueryError> {
    match bytes(name, value)? {
        key if key.is_empty() => Err(QueryError::value(name, "at least one byte")),
        key => Ok(key),
    }
}

/// Decodes text. Scripts encode the colons and commas of a position.
fn text(name: &str, value: &str) -> Result<String, QueryError> {
    let bytes = percent::decode(value.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
    text.ok_or_else(|| QueryError::value(name, "percent-encoded text"))
}
