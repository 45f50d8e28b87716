//! Query strings of reads, writes, lists, histories and watches.

mod changes;
mod leases;

use std::time::Duration;

use dkv_api::{Level, ReadOptions, Revision};

pub use self::changes::{HistoryQuery, WatchQuery};
pub use self::leases::{GrantQuery, LeaseQuery, LeasesQuery, PutQuery};
use crate::bytes_json::Encoding;
use crate::limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, QUERY_BYTES_MAX};
use crate::percent;

/// Why a query string is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is longer than any valid one.
    #[error("the query is too long")]
    TooLong,
    /// A parameter occurs twice.
    #[error("{0} occurs twice")]
    Repeated(String),
    /// A parameter is unknown; lists the known ones.
    #[error("the query may contain only {0}")]
    Unknown(&'static str),
    /// Two parameters exclude each other.
    #[error("give either {0} or {1}, not both")]
    Exclusive(&'static str, &'static str),
    /// A parameter that the request needs is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The request takes no query.
    #[error("this request takes no query")]
    NotAllowed,
    /// The value of a parameter is invalid.
    #[error("{name} must be {expected}")]
    Value {
        /// Name of the parameter.
        name: String,
        /// What it must be.
        expected: String,
    },
}

impl QueryError {
    fn value(name: &str, expected: impl Into<String>) -> Self {
        Self::Value { name: name.to_owned(), expected: expected.into() }
    }
}

/// The query of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadQuery {
    /// `consistency`: level of the read.
    pub level: Level,
    /// `max_staleness`: how old an eventual answer may be, in milliseconds.
    pub max_staleness: Option<Duration>,
    /// `at_least`: the revision that an eventual answer must have reached.
    pub at_least: Option<Revision>,
    /// `revision`: reads the key as it was at this revision; excludes the other parameters.
    pub revision: Option<Revision>,
    /// `ttl`: whether to say how long the key will live.
    pub ttl: bool,
}

impl Default for ReadQuery {
    fn default() -> Self {
        Self {
            level: Level::Strong,
            max_staleness: None,
            at_least: None,
            revision: None,
            ttl: false,
        }
    }
}

/// Parameters that say how recent an answer must be, which `revision` says too.
const BOUNDS: [&str; 3] = ["consistency", "max_staleness", "at_least"];

impl ReadQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        let mut bound = None;
        for field in fields(query) {
            let (name, value) = field?;
            bound = bound.or(BOUNDS.into_iter().find(|known| *known == name));
            match name {
                "consistency" => parsed.level = key_level(value)?,
                "max_staleness" => {
                    parsed.max_staleness = Some(Duration::from_millis(number(name, value)?));
                }
                "at_least" => parsed.at_least = Some(Revision(number(name, value)?)),
                "revision" => parsed.revision = Some(Revision(number(name, value)?)),
                "ttl" => parsed.ttl = boolean(name, value)?,
                _ => {
                    let known = "consistency, max_staleness, at_least, revision and ttl";
                    return Err(QueryError::Unknown(known));
                }
            }
        }
        match (parsed.revision, bound) {
            (Some(_), Some(bound)) => Err(QueryError::Exclusive("revision", bound)),
            (Some(_), None) if parsed.ttl => Err(QueryError::Exclusive("revision", "ttl")),
            _ => Ok(parsed),
        }
    }

    /// Converts the query to options of the client library. A strong read needs no bounds: every
    /// answer to it meets them.
    pub fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::from(self.level);
        if self.level == Level::Eventual {
            options.max_staleness = self.max_staleness;
            options.at_least = self.at_least;
        }
        options
    }
}

/// Parses the query of a delete, which may hold `consistency`: its level.
///
/// # Errors
/// See [`QueryError`].
pub fn delete_level(query: Option<&str>) -> Result<Level, QueryError> {
    let mut level = Level::Strong;
    for field in fields(query) {
        match field? {
            ("consistency", value) => level = key_level(value)?,
            _ => return Err(QueryError::Unknown("consistency")),
        }
    }
    Ok(level)
}

/// Parses the query of an increment, which may hold `by`: the number to add, 1 by default.
///
/// # Errors
/// See [`QueryError`].
pub fn increment(query: Option<&str>) -> Result<i64, QueryError> {
    let mut by = 1;
    for field in fields(query) {
        match field? {
            ("by", value) => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
                let number = value.parse().ok().filter(|_| is_number);
                by = number.ok_or_else(|| QueryError::value("by", "a whole number of 64 bits"))?;
            }
            _ => return Err(QueryError::Unknown("by")),
        }
    }
    Ok(by)
}

/// The query of a list of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// `prefix`: only keys that begin with this.
    pub prefix: Vec<u8>,
    /// `after`: only keys after this one.
    pub after: Vec<u8>,
    /// `limit`: number of keys at most.
    pub limit: usize,
    /// `values`: whether to include values.
    pub values: bool,
    /// `consistency`: level of the scan.
    pub level: Level,
    /// `revision`: lists the keys as they were at this revision; excludes `consistency`.
    pub revision: Option<Revision>,
    /// `encoding`: how keys and values are written.
    pub encoding: Encoding,
}

impl ListQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self {
            prefix: Vec::new(),
            after: Vec::new(),
            limit: LIST_LIMIT_DEFAULT,
            values: true,
            level: Level::Strong,
            revision: None,
            encoding: Encoding::Text,
        };
        let mut has_level = false;
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "prefix" => parsed.prefix = bytes(name, value)?,
                "after" => parsed.after = bytes(name, value)?,
                "limit" => parsed.limit = limit(name, value)?,
                "values" => parsed.values = boolean(name, value)?,
                "consistency" => (parsed.level, has_level) = (list_level(value)?, true),
                "revision" => parsed.revision = Some(Revision(number(name, value)?)),
                "encoding" => parsed.encoding = encoding(name, value)?,
                _ => {
                    let known = "prefix, after, limit, values, consistency, revision and encoding";
                    return Err(QueryError::Unknown(known));
                }
            }
        }
        match parsed.revision {
            Some(_) if has_level => Err(QueryError::Exclusive("revision", "consistency")),
            _ => Ok(parsed),
        }
    }
}

/// Decodes a key or a part of one.
fn bytes(name: &str, value: &str) -> Result<Vec<u8>, QueryError> {
    let bytes = percent::decode(value.as_bytes()).map(std::borrow::Cow::into_owned);
    let bytes = bytes.map_err(|_| QueryError::value(name, "percent-encoded"))?;
    match bytes.len() <= dkv_wire::limits::KEY_BYTES_MAX {
        true => Ok(bytes),
        false => Err(QueryError::value(name, "no longer than a key")),
    }
}

fn limit(name: &str, value: &str) -> Result<usize, QueryError> {
    let limit = usize::try_from(number(name, value)?).unwrap_or(usize::MAX);
    match (1..=LIST_LIMIT_MAX).contains(&limit) {
        true => Ok(limit),
        false => Err(QueryError::value(name, format!("from 1 to {LIST_LIMIT_MAX}"))),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, QueryError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(QueryError::value(name, "true or false")),
    }
}

fn encoding(name: &str, value: &str) -> Result<Encoding, QueryError> {
    match value {
        "text" => Ok(Encoding::Text),
        "base64" => Ok(Encoding::Base64),
        _ => Err(QueryError::value(name, "text or base64")),
    }
}

/// Splits a query into names and values, and refuses repeated names.
fn fields(query: Option<&str>) -> impl Iterator<Item = Result<(&str, &str), QueryError>> {
    let query = query.unwrap_or_default();
    let mut seen = Vec::new();
    let long = (query.len() > QUERY_BYTES_MAX).then_some(Err(QueryError::TooLong));
    let query = if long.is_some() { "" } else { query };
    let fields = query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return Err(QueryError::Repeated(name.to_owned()));
        }
        seen.push(name);
        Ok((name, value))
    });
    long.into_iter().chain(fields)
}

fn key_level(value: &str) -> Result<Level, QueryError> {
    match value {
        "strong" => Ok(Level::Strong),
        "eventual" => Ok(Level::Eventual),
        "all" => Ok(Level::All),
        _ => Err(QueryError::value("consistency", "strong, eventual or all")),
    }
}

fn list_level(value: &str) -> Result<Level, QueryError> {
    match value {
        "strong" => Ok(Level::Strong),
        "eventual" => Ok(Level::Eventual),
        _ => Err(QueryError::value("consistency", "strong or eventual")),
    }
}

fn number(name: &str, value: &str) -> Result<u64, QueryError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse::<u64>().ok().filter(|_| digits);
    number.ok_or_else(|| QueryError::value(name, "a whole number"))
}

/// Checks that a query is empty.
///
/// # Errors
/// [`QueryError::NotAllowed`].
pub fn expect_none(query: Option<&str>) -> Result<(), QueryError> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err(QueryError::NotAllowed),
    }
}

#[cfg(test)]
mod tests;
