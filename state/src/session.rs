//! A session of the session table, and its row.

use std::collections::BTreeMap;

use dkv_base::id::{HolderId, LeaseId, Revision, Serial, SessionId};
use dkv_wire::codec;
use dkv_wire::limits as wire_limits;
use dkv_wire::message::Unfit;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::CommandResult;
use super::rows::MalformedRow;

/// The outcome of an executed write, remembered until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// See [`CommandResult::Written`].
    Written { revision: Revision, existed: bool },
    /// See [`CommandResult::Conflict`].
    Conflict { current: Option<Revision> },
    /// See [`CommandResult::Transacted`].
    Transacted { revision: Revision, succeeded: bool, changed: bool, path: u64 },
    /// See [`CommandResult::Unfit`].
    Unfit { operation: u32, why: Unfit },
    /// See [`CommandResult::Granted`].
    Granted { revision: Revision },
    /// See [`CommandResult::Revoked`].
    Revoked { revision: Revision, deleted: u16, left: u32 },
    /// See [`CommandResult::NoLease`].
    NoLease { lease: LeaseId },
    /// See [`CommandResult::LeaseExists`].
    LeaseExists { lease: LeaseId },
    /// See [`CommandResult::TooManyLeases`].
    TooManyLeases { own: bool },
}

impl From<Outcome> for CommandResult {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Written { revision, existed } => Self::Written { revision, existed },
            Outcome::Conflict { current } => Self::Conflict { current },
            Outcome::Transacted { revision, succeeded, changed, path } => {
                Self::Transacted { revision, succeeded, changed, path }
            }
            Outcome::Unfit { operation, why } => Self::Unfit { operation, why },
            Outcome::Granted { revision } => Self::Granted { revision },
            Outcome::Revoked { revision, deleted, left } => {
                Self::Revoked { revision, deleted, left }
            }
            Outcome::NoLease { lease } => Self::NoLease { lease },
            Outcome::LeaseExists { lease } => Self::LeaseExists { lease },
            Outcome::TooManyLeases { own } => Self::TooManyLeases { own },
        }
    }
}

/// A session and the outcomes it remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The holder that opened the session.
    pub(super) holder: HolderId,
    /// Serials below this one are settled: their results are gone, and they are never executed
    /// again.
    pub(super) settled: Serial,
    /// When the session last wrote or was opened, in milliseconds of the log's clock.
    pub(super) used_ms: u64,
    /// Outcomes of writes that were executed and are not settled.
    pub(super) results: BTreeMap<Serial, Outcome>,
}

/// The serialized form of a session.
#[derive(Serialize, Deserialize)]
struct SessionRow {
    holder: HolderId,
    settled: Serial,
    used_ms: u64,
    results: Vec<(Serial, Outcome)>,
}

impl Session {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode_vec(&SessionRow {
            holder: self.holder,
            settled: self.settled,
            used_ms: self.used_ms,
            results: self.results.iter().map(|(serial, outcome)| (*serial, *outcome)).collect(),
        })
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(SessionId, Self), MalformedRow> {
        let id = key.try_into().map_err(|_| MalformedRow("a session id is not of 16 bytes"))?;
        let row: SessionRow =
            codec::decode(value).map_err(|_| MalformedRow("a session is malformed"))?;
        if row.results.len() > wire_limits::SESSION_WINDOW_MAX {
            return Err(MalformedRow("a session has more results than a window holds"));
        }
        let ascending = row.results.is_sorted_by(|(left, _), (right, _)| left < right);
        if !ascending || row.results.first().is_some_and(|(serial, _)| *serial < row.settled) {
            return Err(MalformedRow("the serials of a session are out of order"));
        }
        let results = row.results.iter().copied().collect();
        let id = SessionId(Uuid::from_bytes(id));
        let SessionRow { holder, settled, used_ms, .. } = row;
        Ok((id, Self { holder, settled, used_ms, results }))
    }
}
