//! What single replicas have: `search KEY` and `show-all NODE`.

use dkv_api::{Bytes, Error, Receipt, ReplicaValue};

use crate::documents;
use crate::grammar::{Key, quote};
use crate::human;
use crate::problem::{Failure, Problem, Stop, request_problem};
use crate::screen::Screen;
use crate::store::Store;

/// Characters of a value that a table shows.
const VALUE_SHOWN: usize = 60;

/// Shows what each replica has of a key, and says whether they differ.
pub(crate) async fn search(key: &Key, store: &impl Store, screen: &mut Screen) -> Result<(), Stop> {
    let replicas = store.search(key.as_bytes()).await.map_err(|error| request_problem(&error))?;
    let nodes: Vec<_> = replicas.iter().map(|replica| replica.node).collect();
    let names = store.node_names(&nodes);
    if screen.json {
        let behind = behind(&names, &replicas);
        return Ok(screen.result("", || documents::search(key, &names, &replicas, &behind))?);
    }
    screen.line(&format!("{:<10}  {:>8}  {:<23}  VALUE", "NODE", "REVISION", "TIME"))?;
    for (name, replica) in names.iter().zip(&replicas) {
        screen.line(row(name, replica).trim_end())?;
    }
    screen.line(&verdict(&names, &replicas))?;
    Ok(())
}

fn row(name: &str, replica: &ReplicaValue) -> String {
    let (revision, time, value) = match &replica.found {
        Ok((receipt, Some(value))) => {
            let mut shown = quote::shown(value);
            if shown.chars().count() > VALUE_SHOWN {
                shown = shown.chars().take(VALUE_SHOWN).chain("…".chars()).collect();
            }
            (revision(receipt), written(receipt), shown)
        }
        Ok((receipt, None)) => ("-".to_owned(), written(receipt), "not there".to_owned()),
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

/// When it was written, or deleted as far as that is known.
fn written(receipt: &Receipt) -> String {
    match receipt.stamp.since_1970().as_millis() {
        0 => "-".to_owned(),
        ms => human::moment(ms as u64),
    }
}

/// The latest value that a replica has, if any answers.
fn latest(replicas: &[ReplicaValue]) -> Option<&Option<Bytes>> {
    let found = replicas.iter().filter_map(|replica| replica.found.as_ref().ok());
    found.max_by_key(|(receipt, _)| receipt.stamp).map(|(_, value)| value)
}

/// Which replicas answer and do not have the latest.
fn behind<'a>(names: &'a [String], replicas: &[ReplicaValue]) -> Vec<&'a str> {
    let latest = latest(replicas);
    let is_behind =
        |held: &ReplicaValue| held.found.as_ref().is_ok_and(|(_, it)| Some(it) != latest);
    let all = names.iter().zip(replicas);
    all.filter(|(_, held)| is_behind(held)).map(|(name, _)| name.as_str()).collect()
}

/// Whether the replicas that answered have the same, and which do not have the latest.
fn verdict(names: &[String], replicas: &[ReplicaValue]) -> String {
    let all = names.iter().zip(replicas);
    let silent: Vec<&str> =
        all.filter(|(_, replica)| replica.found.is_err()).map(|(name, _)| name.as_str()).collect();
    let latest = latest(replicas);
    let mut text = match (latest, behind(names, replicas).as_slice()) {
        (None, _) => "no replica answers".to_owned(),
        (Some(_), []) => "no replica that answers differs".to_owned(),
        (Some(_), behind) => format!("behind: {}", behind.join(", ")),
    };
    if latest.is_some() && !silent.is_empty() {
        text.push_str(&format!("; no answer: {}", silent.join(", ")));
    }
    text
}

/// Shows all keys and values that a node holds, shard after shard.
pub(crate) async fn show_all(
    node: &str,
    store: &impl Store,
    screen: &mut Screen,
) -> Result<(), Stop> {
    let said = store.show_all(node, |pair| crate::run::list(screen, pair)).await?;
    screen.flush()?;
    match said {
        Ok(()) => Ok(()),
        Err(Error::Invalid(why)) => Err(Problem::new(Failure::NotFound, why).into()),
        Err(error) => Err(request_problem(&error).behind("the list is incomplete: ").into()),
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
    fn whoever_does_not_have_the_latest_is_named() {
        let names: Vec<String> = ["n1", "n2", "n3"].map(String::from).into();
        let silent = || {
            let node = NodeId(Uuid::from_u128(3));
            ReplicaValue { node, found: Err(Error::Unavailable("it sleeps".into())) }
        };
        for (replicas, says) in [
            (
                [held(1, 5, Some("a")), held(2, 5, Some("a")), held(3, 5, Some("a"))],
                "no replica that answers differs",
            ),
            ([held(1, 5, Some("a")), held(2, 4, Some("b")), held(3, 0, None)], "behind: n2, n3"),
            // A delete is the latest.
            ([held(1, 6, None), held(2, 4, Some("b")), silent()], "behind: n2; no answer: n3"),
            ([silent(), silent(), silent()], "no replica answers"),
        ] {
            assert_eq!(verdict(&names, &replicas), says);
        }
    }
}
