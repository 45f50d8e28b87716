//! Query strings of writes and leases.

use std::time::Duration;

use dkv_api::{Attach, LeaseId, Level};

use super::{QueryError, encoding, fields, key_level, limit, number};
use crate::bytes_json::Encoding;
use crate::limits::LIST_LIMIT_DEFAULT;

/// The query of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutQuery {
    /// `consistency`: level of the write.
    pub level: Level,
    /// `ttl` or `lease`: how long the key will live.
    pub attach: Option<Attach>,
}

impl PutQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let (mut level, mut attach) = (Level::Strong, None);
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "consistency" => level = key_level(value)?,
                "ttl" | "lease" if attach.is_some() => {
                    return Err(QueryError::Exclusive("ttl", "lease"));
                }
                "ttl" => attach = Some(Attach::Ttl(time(name, value)?)),
                "lease" => attach = Some(Attach::Lease(lease(name, value)?)),
                _ => return Err(QueryError::Unknown("consistency, ttl and lease")),
            }
        }
        Ok(Self { level, attach })
    }
}

/// The query of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantQuery {
    /// `ttl`: the time after which the lease ends unless it is kept alive.
    pub ttl: Duration,
}

impl GrantQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut ttl = None;
        for field in fields(query) {
            match field? {
                ("ttl", value) => ttl = Some(time("ttl", value)?),
                _ => return Err(QueryError::Unknown("ttl")),
            }
        }
        Ok(Self { ttl: ttl.ok_or(QueryError::Missing("ttl"))? })
    }
}

/// The query of a list of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasesQuery {
    /// `after`: only leases after this one.
    pub after: Option<LeaseId>,
    /// `limit`: number of leases at most.
    pub limit: usize,
}

impl LeasesQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self { after: None, limit: LIST_LIMIT_DEFAULT };
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "after" => parsed.after = Some(lease(name, value)?),
                "limit" => parsed.limit = limit(name, value)?,
                _ => return Err(QueryError::Unknown("after and limit")),
            }
        }
        Ok(parsed)
    }
}

/// The query of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseQuery {
    /// `limit`: number of keys at most.
    pub limit: usize,
    /// `encoding`: how keys are written.
    pub encoding: Encoding,
}

impl LeaseQuery {
    /// Parses the query of a request target.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self { limit: LIST_LIMIT_DEFAULT, encoding: Encoding::Text };
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "limit" => parsed.limit = limit(name, value)?,
                "encoding" => parsed.encoding = encoding(name, value)?,
                _ => return Err(QueryError::Unknown("limit and encoding")),
            }
        }
        Ok(parsed)
    }
}

fn time(name: &str, value: &str) -> Result<Duration, QueryError> {
    number(name, value).map(Duration::from_millis)
}

fn lease(name: &str, value: &str) -> Result<LeaseId, QueryError> {
    value.parse().map_err(|_| QueryError::value(name, "the hexadecimal id of a lease"))
}
