//! Query strings of reads, writes and lists.

use std::time::Duration;

use dkv_api::{Level, ReadOptions, Revision};

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
}

impl Default for ReadQuery {
    fn default() -> Self {
        Self { level: Level::Strong, max_staleness: None, at_least: None }
    }
}

impl ReadQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "consistency" => parsed.level = key_level(value)?,
                "max_staleness" => {
                    parsed.max_staleness = Some(Duration::from_millis(number(name, value)?));
                }
                "at_least" => parsed.at_least = Some(Revision(number(name, value)?)),
                _ => return Err(QueryError::Unknown("consistency, max_staleness and at_least")),
            }
        }
        Ok(parsed)
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

/// Parses the query of a write, which may hold `consistency`: the level of the write.
///
/// # Errors
/// See [`QueryError`].
pub fn write_level(query: Option<&str>) -> Result<Level, QueryError> {
    let mut level = Level::Strong;
    for field in fields(query) {
        match field? {
            ("consistency", value) => level = key_level(value)?,
            _ => return Err(QueryError::Unknown("consistency")),
        }
    }
    Ok(level)
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
            encoding: Encoding::Text,
        };
        let bytes = |name: &str, value: &str| {
            let bytes = percent::decode(value.as_bytes()).map(std::borrow::Cow::into_owned);
            let bytes = bytes.map_err(|_| QueryError::value(name, "percent-encoded"))?;
            match bytes.len() <= dkv_wire::limits::KEY_BYTES_MAX {
                true => Ok(bytes),
                false => Err(QueryError::value(name, "no longer than a key")),
            }
        };
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "prefix" => parsed.prefix = bytes(name, value)?,
                "after" => parsed.after = bytes(name, value)?,
                "limit" => {
                    let limit = usize::try_from(number(name, value)?).unwrap_or(usize::MAX);
                    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
                        return Err(QueryError::value(name, format!("from 1 to {LIST_LIMIT_MAX}")));
                    }
                    parsed.limit = limit;
                }
                "values" => {
                    parsed.values = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(QueryError::value(name, "true or false")),
                    }
                }
                "consistency" => parsed.level = list_level(value)?,
                "encoding" => {
                    parsed.encoding = match value {
                        "text" => Encoding::Text,
                        "base64" => Encoding::Base64,
                        _ => return Err(QueryError::value(name, "text or base64")),
                    }
                }
                _ => {
                    let known = "prefix, after, limit, values, consistency and encoding";
                    return Err(QueryError::Unknown(known));
                }
            }
        }
        Ok(parsed)
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
