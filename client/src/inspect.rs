//! Inspects single replicas: `search KEY` and `show-all NODE`.

use dkv_api::{Bytes, Error, Receipt, ReplicaValue};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::quote;
use dkv_console::units;

use crate::api_problems::request_problem;
use crate::grammar::Key;
use crate::json_results;
use crate::listing;
use crate::store::Store;

/// Characters of a value that the table shows.
const VALUE_SHOWN: usize = 60;

/// Shows what each replica has of a key, and whether the replicas differ.
pub(crate) async fn search(
    key: &Key,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let replicas = store.search(key.as_bytes()).await.map_err(|error| request_problem(&error))?;
    let nodes: Vec<_> = replicas.iter().map(|replica| replica.node).collect();
    let names = store.node_names(&nodes);
    if console.json {
        let behind = behind(&names, &replicas);
        return Ok(console.result("", || json_results::search(key, &names, &replicas, &behind))?);
    }
    console.line(&format!("{:<10}  {:>8}  {:<23}  VALUE", "NODE", "REVISION", "TIME"))?;
    for (name, replica) in names.iter().zip(&replicas) {
        console.line(row(name, replica).trim_end())?;
    }
    console.line(&verdict(&names, &replicas))?;
    Ok(())
}

fn row(name: &str, replica: &ReplicaValue) -> String {
    let (revision, time, value) = match &replica.found {
        Ok((receipt, Some(value))) => {
            let mut shown = quote::escaped(value);
            if shown.chars().count() > VALUE_SHOWN {
                shown = shown.chars().take(VALUE_SHOWN).chain("…".chars()).collect();
            }
            (revision(receipt), written(receipt), shown)
        }
        Ok((receipt, None)) => ("-".to_owned(), written(receipt), "absent".to_owned()),
        Err(error) => ("-".to_owned(), "-".to_owned(), format!("no answer: {error}")),
    };
    format!("{name:<10}  {revision:>8}  {time:<23}  {value}")
}

fn revision(receipt: &Receipt) -> String {
    match receipt.pending {
        Some(_) => "pending".to_owned(),
        None => receipt.revision.to_string(),
    }
}

/// Returns the time of the last write, or of the delete, if it is known.
fn written(receipt: &Receipt) -> String {
    match receipt.stamp.since_1970().as_millis() {
        0 => "-".to_owned(),
        ms => units::timestamp(ms as u64),
    }
}

/// Returns the latest value of any replica; `None` if no replica answers.
fn latest(replicas: &[ReplicaValue]) -> Option<&Option<Bytes>> {
    let found = replicas.iter().filter_map(|replica| replica.found.as_ref().ok());
    found.max_by_key(|(receipt, _)| receipt.stamp).map(|(_, value)| value)
}

/// Returns the replicas that answer without the latest value.
fn behind<'a>(names: &'a [String], replicas: &[ReplicaValue]) -> Vec<&'a str> {
    let latest = latest(replicas);
    let is_behind =
        |held: &ReplicaValue| held.found.as_ref().is_ok_and(|(_, it)| Some(it) != latest);
    let all = names.iter().zip(replicas);
    all.filter(|(_, held)| is_behind(held)).map(|(name, _)| name.as_str()).collect()
}

/// Sums up which replicas lack the latest value and which do not answer.
fn verdict(names: &[String], replicas: &[ReplicaValue]) -> String {
    let all = names.iter().zip(replicas);
    let silent: Vec<&str> =
        all.filter(|(_, replica)| replica.found.is_err()).map(|(name, _)| name.as_str()).collect();
    let latest = latest(replicas);
    let mut text = match (latest, behind(names, replicas).as_slice()) {
        (None, _) => "no replica answers".to_owned(),
        (Some(_), []) => "all replicas that answer agree".to_owned(),
        (Some(_), behind) => format!("behind: {}", behind.join(", ")),
    };
    if latest.is_some() && !silent.is_empty() {
        text.push_str(&format!("; no answer: {}", silent.join(", ")));
    }
    text
}

/// Lists all keys and values that a node holds, shard by shard.
pub(crate) async fn show_all(
    node: &str,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let said = store.show_all(node, |pair| listing::print(console, pair)).await?;
    console.flush()?;
    match said {
        Ok(()) => Ok(()),
        Err(Error::Invalid(why)) => Err(Problem::new(Failure::NotFound, why).into()),
        Err(error) => Err(request_problem(&error).prefixed("the list is incomplete: ").into()),
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::{GroupId, Level, NodeId, Revision, Stamp, Term, Uuid};

    use super::*;

    fn held(node: u128, stamp: u64, value: Option<&'static str>) -> ReplicaValue {
        let node = NodeId(Uuid::from_u128(node));
        let receipt = Receipt {
            shard: GroupId(1),
            revision: Revision(stamp),
            level: Level::Eventual,
            node,
            term: Term(1),
            staleness_ms: None,
            stamp: Stamp(stamp),
            pending: None,
        };
        ReplicaValue { node, found: Ok((receipt, value.map(Bytes::from))) }
    }

    #[test]
    fn replicas_without_the_latest_value_are_named() {
        let names: Vec<String> = ["n1", "n2", "n3"].map(String::from).into();
        let silent = || {
            let node = NodeId(Uuid::from_u128(3));
            ReplicaValue { node, found: Err(Error::Unavailable("it sleeps".into())) }
        };
        for (replicas, says) in [
            (
                [held(1, 5, Some("a")), held(2, 5, Some("a")), held(3, 5, Some("a"))],
                "all replicas that answer agree",
            ),
            ([held(1, 5, Some("a")), held(2, 4, Some("b")), held(3, 0, None)], "behind: n2, n3"),
            // A delete is the latest change.
            ([held(1, 6, None), held(2, 4, Some("b")), silent()], "behind: n2; no answer: n3"),
            ([silent(), silent(), silent()], "no replica answers"),
        ] {
            assert_eq!(verdict(&names, &replicas), says);
        }
    }
}
