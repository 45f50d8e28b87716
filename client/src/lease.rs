//! Leases: `lease grant`, `keep`, `revoke`, `list` and `show`; and `ttl KEY`.

use std::time::Duration;

use dkv_api::{Client, Error, LeaseId, LeaseInfo, Lifetime};
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::signals::Signals;
use dkv_console::units::{self, plural};
use dkv_console::{Console, quote};
use dkv_gateway::bytes_json::Encoding;
use dkv_gateway::{bytes_json, lease_json};
use serde_json::{Map, Value, json};

use crate::api_problems::{of_key, read_problem, request_problem};
use crate::cli::LeaseAction;
use crate::grammar::Key;

/// Carries out a subcommand of `lease`.
pub(crate) async fn run(
    action: &LeaseAction,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let explained = |error: Error| lease_problem(&error);
    match action {
        LeaseAction::Grant { ttl, .. } => {
            let lease = client.grant_lease(*ttl).await.map_err(explained)?;
            console.changed(&lease.to_string(), || {
                document("lease grant", json!({ "lease": lease.to_string(), "ttl_ms": ms(*ttl) }))
            })?;
            let time = units::duration(*ttl);
            console.note(&format!("it ends after {time}; to keep it alive: lease keep {lease}"));
        }
        LeaseAction::Keep { id, .. } => keep(*id, client, console).await?,
        LeaseAction::Revoke { id, .. } => {
            let deleted = client.revoke_lease(*id).await.map_err(explained)?;
            let keys = plural(deleted, "key", "keys");
            console.changed(&format!("lease {id} has ended; {deleted} {keys} deleted"), || {
                document("lease revoke", json!({ "lease": id.to_string(), "deleted": deleted }))
            })?;
        }
        LeaseAction::List { .. } => {
            let leases = client.leases().await.map_err(explained)?;
            if !console.json && !leases.is_empty() {
                console.line(&format!("{:<16}  {:>9}  {:>9}  KEYS", "LEASE", "TTL", "LEFT"))?;
            }
            for lease in &leases {
                if console.json {
                    console.document(&lease_json::lease(lease))?;
                } else {
                    console.line(&row(lease))?;
                }
            }
            console.flush()?;
        }
        LeaseAction::Show { id, limit, .. } => {
            let lease = client.lease(*id).await.map_err(explained)?;
            let found = client.lease_keys(*id, *limit as usize).await.map_err(explained)?;
            let mut lines = row(&lease).trim_end().to_owned();
            for key in &found.keys {
                lines.push('\n');
                lines.push_str(&quote::quoted(key));
            }
            console.result(&lines, || {
                document("lease show", lease_json::lease_with_keys(&lease, &found, Encoding::Text))
            })?;
            if found.more {
                console.note("it has more keys; show more with --limit");
            }
        }
    }
    Ok(())
}

/// Keeps a lease alive until a signal, or until it is lost.
async fn keep(id: LeaseId, client: &Client, console: &mut Console) -> Result<(), Abort> {
    let mut signals = Signals::take()
        .map_err(|error| Problem::failed(format!("cannot listen for signals: {error}")))?;
    let begun = tokio::select! {
        begun = client.keep_lease(id) => begun,
        _ = signals.next() => return Ok(()),
    };
    let keeper = begun.map_err(|error| lease_problem(&error))?;
    let said = |what: &str, left: Duration| json!({ "what": what, "lease": id.to_string(), "remaining_ms": ms(left) });
    if console.json {
        console.document(&said("begin", keeper.remaining()))?;
        console.flush()?;
    } else {
        console.note(&format!("keeping lease {id} alive; Ctrl-C ends that"));
    }
    let lost = tokio::select! {
        biased;
        _ = signals.next() => None,
        lost = keeper.lost() => Some(lost),
    };
    if console.json {
        console.document(&said("end", keeper.remaining()))?;
        console.flush()?;
    }
    match lost {
        Some(error) => Err(lease_problem(&error).into()),
        None => {
            let left = units::duration(keeper.remaining());
            console.note(&format!("the lease ends in {left}, unless it is kept alive again"));
            Ok(())
        }
    }
}

/// Prints how long a key will live.
pub(crate) async fn ttl(key: &[u8], client: &Client, console: &mut Console) -> Result<(), Abort> {
    let key =
        Key::new(key).map_err(|error| Problem::usage(format!("{error}; give another key")))?;
    let lifetime = client.ttl(key.as_bytes()).await;
    let lifetime = lifetime.map_err(|error| read_problem(&key, &error))?;
    let text = match lifetime {
        Lifetime::Ttl { remaining, .. } => units::duration(remaining),
        Lifetime::Lease { lease, remaining, .. } => {
            format!("as long as lease {lease}, which has {} left", units::duration(remaining))
        }
        _ => "until it is deleted".to_owned(),
    };
    console.result(&text, || {
        let mut object = Map::new();
        bytes_json::put(&mut object, "key", key.as_bytes(), Encoding::Text);
        lease_json::put_lifetime(&mut object, &lifetime);
        document("ttl", object.into())
    })?;
    Ok(())
}

/// Explains why a put with a lease or a time to live failed.
pub(crate) fn attach_problem(key: &Key, error: &Error) -> Option<Problem> {
    let failure = match error {
        Error::NoLease { .. } => Failure::Conflict,
        Error::TtlOutOfBounds { .. } => Failure::Usage,
        _ => return None,
    };
    Some(of_key(Problem::new(failure, format!("{key} was not written: {error}")), key))
}

/// Explains any other failure that has to do with leases.
pub(crate) fn lease_problem(error: &Error) -> Problem {
    match error {
        Error::NoLease { lease } => {
            Problem::new(Failure::NotFound, error.to_string()).with("lease", lease.to_string())
        }
        Error::TtlOutOfBounds { .. } => Problem::usage(error.to_string()),
        other => request_problem(other),
    }
}

/// Returns a document that begins with the name of its command.
fn document(command: &str, rest: Value) -> Value {
    let mut object = Map::new();
    object.insert("command".into(), command.into());
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    object.into()
}

fn row(lease: &LeaseInfo) -> String {
    let LeaseInfo { id, ttl, remaining, keys, missing } = lease;
    let left = if remaining.is_zero() { "ending".to_owned() } else { units::duration(*remaining) };
    let partly = if missing.is_empty() { "" } else { "  (not in every shard: it will end)" };
    format!("{id}  {:>9}  {left:>9}  {keys}{partly}", units::duration(*ttl))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use dkv_api::GroupId;

    use super::*;

    #[test]
    fn a_lease_is_a_line() {
        let mut lease = LeaseInfo {
            id: LeaseId(31),
            ttl: Duration::from_secs(30),
            remaining: Duration::from_millis(12_500),
            keys: 3,
            missing: Vec::new(),
        };
        assert_eq!(row(&lease), "000000000000001f     30.0 s     12.5 s  3");
        (lease.remaining, lease.missing) = (Duration::ZERO, vec![GroupId(2)]);
        assert!(row(&lease).ends_with("ending  3  (not in every shard: it will end)"));
    }
}
