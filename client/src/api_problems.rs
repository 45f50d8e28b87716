//! Turns errors of the client library into problems: their kind, and what to do next.

use dkv_api::{Condition, ConnectError, Error};
use dkv_console::problem::{Failure, Problem};
use dkv_console::units::bytes;
use dkv_wire::join::{JoinError, TokenError};
use dkv_wire::local;
use dkv_wire::message::JoinRefusal;
use serde_json::Map;

use crate::grammar::Key;

/// Adds the key to the JSON document of a problem.
pub(crate) fn of_key(problem: Problem, key: &Key) -> Problem {
    let mut members = Map::new();
    let shown = dkv_gateway::bytes_json::Encoding::Text;
    dkv_gateway::bytes_json::put(&mut members, "key", key.as_bytes(), shown);
    problem.with_members(members)
}

/// Explains a failed read.
pub(crate) fn read_problem(key: &Key, error: &Error) -> Problem {
    let problem = match error {
        Error::NotFound { .. } => Problem::new(Failure::NotFound, format!("key not found: {key}")),
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("cannot read {key}: {why}; try again, or read it at level eventual"),
        ),
        other => request_problem(other),
    };
    of_key(problem, key)
}

/// Explains why a watch did not begin, or ended.
pub(crate) fn watch_problem(error: &Error) -> Problem {
    match error {
        Error::Unavailable(why) => {
            Problem::new(Failure::Unavailable, format!("cannot watch: {why}; try again"))
        }
        other => request_problem(other),
    }
}

/// Explains a failed scan.
pub(crate) fn scan_problem(error: &Error) -> Problem {
    match error {
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("the list is incomplete: {why}; try again, or continue with --after LAST-KEY"),
        ),
        other => request_problem(other),
    }
}

/// Explains a failed write or delete; `done` is `written` or `deleted`.
pub(crate) fn write_problem(key: &Key, condition: Condition, done: &str, error: &Error) -> Problem {
    let problem = match error {
        Error::NotFound { .. } => Problem::new(Failure::NotFound, format!("key not found: {key}")),
        Error::Conflict { current, .. } => {
            let is = match (current, condition) {
                (Some(revision), Condition::Absent) => {
                    format!("already exists (revision {revision})")
                }
                (Some(revision), Condition::Revision(wanted)) => {
                    format!("is at revision {revision}, not {wanted}")
                }
                (Some(revision), _) => format!("is at revision {revision}"),
                (None, _) => "does not exist".to_owned(),
            };
            let current = current.map(|revision| revision.0);
            Problem::new(Failure::Conflict, format!("{key} was not {done}: it {is}"))
                .with("current_revision", current)
        }
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("{key} was not {done}: {why}; nothing was changed, try again"),
        ),
        Error::Incomplete { missing, written } => Problem::new(
            Failure::Incomplete,
            format!(
                "{key} was {done} at revision {}, but not every replica has confirmed it: {} {} \
                 missing",
                written.receipt.revision,
                missing.join(", "),
                if missing.len() == 1 { "is" } else { "are" }
            ),
        )
        .with("revision", written.receipt.revision.0)
        .with("missing", missing.clone()),
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!(
                "outcome unknown: {key} may have been {done}, or may still be: {why}; read the \
                 key to check, or repeat the command"
            ),
        ),
        other => request_problem(other),
    };
    of_key(problem, key)
}

/// Explains any failed request.
pub(crate) fn request_problem(error: &Error) -> Problem {
    explained(error, "; nothing was changed", ", try again")
}

/// Explains a failed request of a command that may have done a part before.
pub(crate) fn partial_problem(error: &Error) -> Problem {
    explained(error, "", "")
}

/// Explains a failed request; `unchanged` says that nothing was changed, and `again` what to do.
fn explained(error: &Error, unchanged: &str, again: &str) -> Problem {
    match error {
        Error::Compacted { floor } => Problem::failed(format!(
            "compacted: the shard has forgotten what was before revision {floor}; give that \
             revision or a later one"
        ))
        .with("floor_revision", floor.0),
        Error::NotYet { asked, latest } => Problem::failed(format!(
            "revision {asked} does not exist yet: the shard is at revision {latest}; give that \
             revision or an earlier one"
        ))
        .with("latest_revision", latest.0),
        Error::Denied(why) => Problem::new(
            Failure::Denied,
            format!("denied: {why}; use a token that allows this, with --token-file"),
        ),
        Error::TooLarge { what, bytes, limit } => Problem::failed(format!(
            "the {what} is too large: {bytes} bytes, but the limit is {limit}{unchanged}"
        )),
        Error::Unavailable(why) => {
            Problem::new(Failure::Unavailable, format!("{why}{unchanged}{again}"))
        }
        Error::Limited { why, .. } => {
            Problem::new(Failure::Unavailable, format!("{why}{unchanged}{again}"))
        }
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!("outcome unknown: {why}; check with status, or repeat the command"),
        ),
        Error::Incomplete { .. } => Problem::new(Failure::Incomplete, error.to_string()),
        Error::NotEverywhere { missing } => Problem::new(
            Failure::Incomplete,
            format!("{error}: they may act as before until they hear from the control group again"),
        )
        .with("missing", missing.clone()),
        Error::OverQuota { used, limit } => Problem::failed(format!(
            "over quota: the shard has {} of its share of {} of the keyspace's quota{unchanged}; \
             delete something, or raise the quota with keyspace set",
            bytes(*used),
            bytes(*limit)
        ))
        .with("used_bytes", *used)
        .with("limit_bytes", *limit),
        Error::NoKeyspace { name } => Problem::new(
            Failure::NotFound,
            format!("there is no keyspace {}; keyspace list shows them", name.escape_debug()),
        ),
        Error::NotFound { .. } => Problem::new(Failure::NotFound, error.to_string()),
        Error::Conflict { .. } => Problem::new(Failure::Conflict, error.to_string()),
        Error::Invalid(_) => Problem::failed(error.to_string()),
        other => Problem::failed(other.to_string()),
    }
}

/// Explains a failed attempt to connect.
pub(crate) fn connect_problem(error: &ConnectError) -> Problem {
    let (failure, advice) = match error {
        // The error says itself what to do; the server is running.
        ConnectError::Join(JoinError::Connect(dkv_wire::quic::ConnectError::Clock { .. })) => {
            (Failure::Unavailable, "")
        }
        ConnectError::Unreachable(_)
        | ConnectError::Join(JoinError::Connect(_) | JoinError::Call(..)) => (
            Failure::Unavailable,
            "; check that the server is running there, or start one with dkv server or dkv local",
        ),
        ConnectError::Join(JoinError::OtherNetwork(_)) => (
            Failure::Denied,
            "; give a token of that server's network with --token-file, or another address",
        ),
        ConnectError::Join(JoinError::Refused(JoinRefusal::Unknown)) => (
            Failure::Denied,
            "; ask an administrator of the network for a token, and give it with --token-file",
        ),
        ConnectError::Join(JoinError::Refused(
            JoinRefusal::Busy | JoinRefusal::Storage(_) | JoinRefusal::Waiting(_),
        )) => (Failure::Unavailable, ""),
        ConnectError::Join(JoinError::Refused(_)) => (Failure::Denied, ""),
        ConnectError::Join(JoinError::Certificate(_)) => (Failure::Failed, ""),
        // A token would not help.
        ConnectError::Token(TokenError::Missing { server, .. }) if !local::may_listen(*server) => {
            return Problem::new(
                Failure::Unavailable,
                format!(
                    "nothing listens at {server}; check that the server is running there, or \
                     start one with dkv server or dkv local"
                ),
            );
        }
        ConnectError::Token(TokenError::File { .. }) => (Failure::Failed, ""),
        ConnectError::Token(_) => {
            (Failure::Denied, "; a server of this user on this machine would have left one")
        }
        ConnectError::Denied(_) => (
            Failure::Denied,
            "; an administrator has revoked this client: ask for a new token, and join with \
             another DKV_HOME",
        ),
        ConnectError::Unresolved(_) => {
            (Failure::Unavailable, "; check the name, or give the IP address of the server")
        }
        ConnectError::Address { .. } | ConnectError::NoAddress => {
            (Failure::Usage, "; give the address of the server as HOST:PORT")
        }
        ConnectError::Socket(_) => {
            (Failure::Failed, "; check this user's limits on open files and sockets")
        }
        ConnectError::NoCredentials { .. } | ConnectError::Expired { .. } => (Failure::Denied, ""),
        ConnectError::Region(_) | ConnectError::Role(_) => (Failure::Usage, ""),
        ConnectError::Stored { .. } => (Failure::Failed, ""),
        _ => (Failure::Failed, ""),
    };
    Problem::new(failure, format!("{error}{advice}"))
}

#[cfg(test)]
mod tests;
