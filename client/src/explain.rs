//! Explains where a key is and who answers for it: `explain KEY`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dkv_api::{
    ChangeReason, Client, Error, GroupId, HistoryOptions, LeaderChange, Level, Lifetime,
    NetworkView, NodeId, ReadOptions, ShardInfo, Term,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::table::aligned;
use dkv_console::units::{duration, duration_ms, timestamp};
use dkv_gateway::bytes_json::{self, Encoding};
use serde_json::{Map, Value, json};

use crate::api_problems::request_problem;
use crate::grammar::Key;

/// Versions that are counted.
const VERSIONS_MAX: usize = 100;
/// Changes of the primary that are shown: as many as a node remembers.
const CHANGES_SHOWN: usize = 8;
/// Time that each question has.
const PATIENCE: Duration = Duration::from_secs(4);

/// Everything that is known of a key.
struct Explanation {
    keyspace: String,
    shard: GroupId,
    /// The first hash of the shard, and the last.
    hashes: (u64, u64),
    primary: Option<String>,
    replicas: Vec<ReplicaRow>,
    key: String,
    levels: Vec<(Level, Result<Answered, String>)>,
    /// The last changes of the primary, the newest first, with the names of the primary and of the
    /// one before.
    changes: Vec<(LeaderChange, String, Option<String>)>,
    /// The nodes that did not tell which changes they remember.
    silent: Vec<String>,
}

/// A replica of the key's shard.
struct ReplicaRow {
    name: String,
    region: String,
    role: &'static str,
    /// What it has of the key: the revision, that it is absent, or why it is not known.
    has: String,
    /// Latest revision of the shard on it, and the entries by which its state is behind.
    revision: Option<u64>,
    lag: Option<u64>,
}

/// An answer to a read of this client.
struct Answered {
    node: String,
    staleness_ms: Option<u64>,
    took: Duration,
}

/// Explains a key.
pub(crate) async fn run(key: &[u8], client: &Client, console: &mut Console) -> Result<(), Abort> {
    let key =
        Key::new(key).map_err(|error| Problem::usage(format!("{error}; give another key")))?;
    let view = client.refresh().await.map_err(|error| request_problem(&error))?;
    let Some(shard) = view.shard_of(client.keyspace_id(), key.as_bytes()) else {
        let why = "no node knows the keyspace yet; try again";
        return Err(Problem::new(Failure::Unavailable, why).into());
    };
    let (replicas, text, levels, (changes, silent)) = tokio::join!(
        replicas(&key, shard, &view, client),
        contents(&key, client),
        levels(&key, client),
        changes(shard, client),
    );
    let name = |node: NodeId| client.names(&[node]).concat();
    let named = |change: LeaderChange| (change, name(change.leader), change.before.map(name));
    let explanation = Explanation {
        keyspace: client.keyspace_name().to_owned(),
        shard: shard.group,
        hashes: hashes(&view, shard),
        primary: shard.primary.map(|node| client.names(&[node]).concat()),
        replicas: replicas.map_err(|error| request_problem(&error))?,
        key: text,
        levels,
        changes: changes.into_iter().map(named).collect(),
        silent: client.names(&silent),
    };
    console.result(&explanation.text(), || explanation.document(&key))?;
    Ok(explanation.available()?)
}

/// Returns the first and the last hash of a shard.
fn hashes(view: &NetworkView, shard: &ShardInfo) -> (u64, u64) {
    let after = view.shards_of(shard.keyspace).iter().map(|other| other.first_hash);
    let next = after.filter(|first| *first > shard.first_hash).min();
    (shard.first_hash, next.map_or(u64::MAX, |next| next - 1))
}

async fn replicas(
    key: &Key,
    shard: &ShardInfo,
    view: &NetworkView,
    client: &Client,
) -> Result<Vec<ReplicaRow>, Error> {
    let (found, status) = tokio::join!(client.read_replicas(key.as_bytes()), client.status());
    // Those that answer may all be behind one that does not, but not behind the primary.
    let primary = status.nodes.iter().find(|(info, _)| Some(info.id) == shard.primary);
    let primary = primary.and_then(|(_, status)| status.as_ref().ok());
    let last = primary.and_then(|it| it.groups.iter().find(|it| it.group == shard.group));
    let last = last.map(|it| it.last_index);
    let row = |replica: dkv_api::ReplicaValue| {
        let node = replica.node;
        let own = status.nodes.iter().find(|(info, _)| info.id == node);
        let own = own.and_then(|(_, status)| status.as_ref().ok());
        let own = own.and_then(|it| it.groups.iter().find(|it| it.group == shard.group));
        let region = view.node(node).and_then(|info| info.region.clone());
        ReplicaRow {
            name: client.names(&[node]).concat(),
            region: region.map_or_else(|| "-".to_owned(), |region| region.to_string()),
            role: match () {
                () if shard.primary == Some(node) => "primary",
                () if shard.learners.contains(&node) => "learner",
                () => "voter",
            },
            has: match replica.found {
                Ok((receipt, _)) if receipt.pending.is_some() => "pending write".to_owned(),
                Ok((receipt, Some(_))) => format!("revision {}", receipt.revision),
                Ok((_, None)) => "absent".to_owned(),
                Err(error) => format!("no answer: {error}"),
            },
            revision: own.map(|own| own.revision.0),
            lag: own.zip(last).map(|(own, last)| last.saturating_sub(own.applied_index)),
        }
    };
    Ok(found?.into_iter().map(row).collect())
}

/// Says whether the key exists, what is kept of it, and for how long.
async fn contents(key: &Key, client: &Client) -> String {
    let options = HistoryOptions::default().limit(VERSIONS_MAX).timeout(PATIENCE);
    let (versions, life) =
        tokio::join!(client.history(key.as_bytes(), options), client.ttl(key.as_bytes()));
    let kept = match versions {
        Ok(history) if history.versions.len() >= VERSIONS_MAX => {
            format!("{VERSIONS_MAX} or more versions are kept")
        }
        Ok(history) => match history.versions.len() {
            1 => "1 version is kept".to_owned(),
            count => format!("{count} versions are kept"),
        },
        Err(error) => format!("its versions are unknown ({error})"),
    };
    match life {
        Ok(Lifetime::Ttl { remaining, .. }) => {
            format!("exists, for {} more; {kept}", duration(remaining))
        }
        Ok(Lifetime::Lease { lease, remaining, .. }) => format!(
            "exists as long as lease {lease}, which has {} left; {kept}",
            duration(remaining)
        ),
        Ok(_) => format!("exists until it is deleted; {kept}"),
        Err(Error::NotFound { .. }) => format!("does not exist; {kept}"),
        Err(error) => format!("cannot be read strongly ({error}); {kept}"),
    }
}

/// Reads the key at each level, and says who answered.
async fn levels(key: &Key, client: &Client) -> Vec<(Level, Result<Answered, String>)> {
    let ask = async |level| {
        let begun = Instant::now();
        let mut options = ReadOptions::default();
        (options.level, options.timeout) = (level, Some(PATIENCE));
        let receipt = match client.read_with(key.as_bytes(), options).await {
            Ok(read) => Ok(read.receipt),
            Err(Error::NotFound { receipt }) => Ok(receipt),
            Err(error) => Err(error.to_string()),
        };
        let answered = receipt.map(|receipt| Answered {
            node: client.names(&[receipt.node]).concat(),
            staleness_ms: receipt.staleness_ms,
            took: begun.elapsed(),
        });
        (level, answered)
    };
    let mut answers = Vec::new();
    for level in [Level::Strong, Level::Session, Level::Eventual, Level::All] {
        answers.push(ask(level).await);
    }
    answers
}

/// Returns the last changes of a shard's primary, the newest first, and the nodes that did not tell
/// which they remember.
async fn changes(shard: &ShardInfo, client: &Client) -> (Vec<LeaderChange>, Vec<NodeId>) {
    let members = shard.voters.iter().chain(&shard.learners);
    let asked = members.map(async |node| (*node, client.diagnose(*node).await));
    let (mut changes, mut silent) = (Vec::new(), Vec::new());
    for (node, told) in futures::future::join_all(asked).await {
        match told {
            Ok(diagnosis) => changes.extend(diagnosis.leader_changes),
            Err(_) => silent.push(node),
        }
    }
    (merged(changes.into_iter().filter(|change| change.group == shard.group)), silent)
}

/// Returns one account of each change, the newest first: among those of several nodes, the one that
/// says most.
fn merged(changes: impl Iterator<Item = LeaderChange>) -> Vec<LeaderChange> {
    let mut by_term = BTreeMap::<Term, LeaderChange>::new();
    for change in changes {
        let known = by_term.entry(change.term).or_insert(change);
        let (more, less) = match known.why.weight() >= change.why.weight() {
            true => (*known, change),
            false => (change, *known),
        };
        // The first that saw it knows when it was.
        let at_ms = more.at_ms.min(less.at_ms);
        *known = LeaderChange { at_ms, before: more.before.or(less.before), ..more };
    }
    by_term.into_values().rev().take(CHANGES_SHOWN).collect()
}

/// Says when and why a shard got its primary.
fn told_change(change: &LeaderChange, leader: &str, before: Option<&str>) -> String {
    let from = before.filter(|before| *before != leader);
    let from = from.map(|before| format!(" after {before}")).unwrap_or_default();
    let (when, term) = (timestamp(change.at_ms), change.term);
    match change.why {
        ChangeReason::FirstSeen => {
            format!("{leader} leads in term {term}, since {when} or before: no node remembers more")
        }
        why => format!("{leader}{from} at {when}, in term {term}: {why}"),
    }
}

impl Explanation {
    /// Checks that the key can be read and written.
    fn available(&self) -> Result<(), Problem> {
        let why = match () {
            () if self.levels.iter().all(|(_, answered)| answered.is_err()) => {
                format!("no replica of shard {} answers a read", self.shard)
            }
            () if self.primary.is_none() => format!("shard {} has no known primary", self.shard),
            () => return Ok(()),
        };
        Err(Problem::new(Failure::Unavailable, format!("the key is unavailable: {why}")))
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("keyspace   {}", self.keyspace),
            format!(
                "shard      {}, of the hashes {:016x} to {:016x}",
                self.shard, self.hashes.0, self.hashes.1
            ),
            format!("primary    {}", self.primary.as_deref().unwrap_or("nobody known")),
            format!("key        {}", self.key),
        ];
        for (level, answered) in &self.levels {
            let told = match answered {
                Ok(Answered { node, staleness_ms, took }) => {
                    let age = match staleness_ms {
                        Some(0) => String::new(),
                        Some(ms) => format!(", at most {} old", duration_ms(*ms)),
                        None => ", of unknown age".to_owned(),
                    };
                    format!("{node} answers in {}{age}", duration(*took))
                }
                Err(error) => format!("no answer: {error}"),
            };
            lines.push(format!("{:<9}  {told}", level.word()));
        }
        for (change, leader, before) in &self.changes {
            lines.push(format!("changed    {}", told_change(change, leader, before.as_deref())));
        }
        match (self.changes.is_empty(), self.silent.as_slice()) {
            (true, []) => {
                lines.push("changed    no node remembers a change of the primary".to_owned());
            }
            (true, silent) => {
                lines.push(format!("changed    not known: no answer from {}", silent.join(", ")));
            }
            (false, []) => {}
            (false, silent) => lines.push(format!(
                "changed    there may have been others: no answer from {}",
                silent.join(", ")
            )),
        }
        let head = ["REPLICA", "REGION", "ROLE", "KEY", "SHARD AT", "LAG"].map(str::to_owned);
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |it| it.to_string());
        let rows = self.replicas.iter().map(|row| {
            [
                row.name.clone(),
                row.region.clone(),
                row.role.to_owned(),
                row.has.clone(),
                number(row.revision),
                number(row.lag),
            ]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        lines.push(aligned(&rows));
        lines.join("\n")
    }

    fn document(&self, key: &Key) -> Value {
        let mut object = Map::new();
        object.insert("command".into(), "explain".into());
        bytes_json::put(&mut object, "key", key.as_bytes(), Encoding::Text);
        let replicas = self.replicas.iter().map(|row| {
            json!({
                "name": row.name,
                "region": (row.region != "-").then_some(&row.region),
                "role": row.role,
                "has": row.has,
                "shard_revision": row.revision,
                "applied_lag": row.lag,
            })
        });
        let levels = self.levels.iter().map(|(level, answered)| match answered {
            Ok(answered) => json!({
                "level": level.word(),
                "node": answered.node,
                "staleness_ms": answered.staleness_ms,
                "took_us": answered.took.as_micros() as u64,
            }),
            Err(error) => json!({ "level": level.word(), "error": error }),
        });
        let changes = self.changes.iter().map(|(change, leader, before)| {
            json!({
                "primary": leader,
                "before": before,
                "term": change.term.0,
                "at_ms": change.at_ms,
                "why": change.why.to_string(),
            })
        });
        let rest = json!({
            "keyspace": self.keyspace,
            "shard": self.shard.0,
            "first_hash": format!("{:016x}", self.hashes.0),
            "last_hash": format!("{:016x}", self.hashes.1),
            "primary": self.primary,
            "state": self.key,
            "replicas": replicas.collect::<Vec<_>>(),
            "levels": levels.collect::<Vec<_>>(),
            "changes": changes.collect::<Vec<_>>(),
            "changes_unknown_to": self.silent,
        });
        if let Value::Object(rest) = rest {
            object.extend(rest);
        }
        object.into()
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::Uuid;

    use super::*;

    fn change(term: u64, at_ms: u64, why: ChangeReason) -> LeaderChange {
        let node = |number| NodeId(Uuid::from_u128(number));
        let before = (why != ChangeReason::FirstSeen).then(|| node(1));
        LeaderChange { group: GroupId(1), term: Term(term), leader: node(2), before, at_ms, why }
    }

    #[test]
    fn each_change_is_told_by_the_node_that_knows_most() {
        let told = merged(
            [
                change(3, 50, ChangeReason::Stopping),
                change(4, 110, ChangeReason::Unknown),
                change(4, 105, ChangeReason::ProcessGone),
                change(4, 100, ChangeReason::FirstSeen),
            ]
            .into_iter(),
        );
        let newest = LeaderChange { at_ms: 100, ..change(4, 105, ChangeReason::ProcessGone) };
        assert_eq!(told, [newest, change(3, 50, ChangeReason::Stopping)]);
        assert_eq!(merged(std::iter::empty()), []);
    }

    fn explanation() -> Explanation {
        let answered =
            Answered { node: "n1".into(), staleness_ms: Some(0), took: Duration::from_millis(1) };
        Explanation {
            keyspace: "default".into(),
            shard: GroupId(1),
            hashes: (0, u64::MAX),
            primary: Some("n1".into()),
            replicas: Vec::new(),
            key: "exists".into(),
            levels: vec![(Level::Strong, Err("no quorum".into())), (Level::Eventual, Ok(answered))],
            changes: Vec::new(),
            silent: Vec::new(),
        }
    }

    #[test]
    fn a_key_that_nobody_serves_is_unavailable() {
        assert_eq!(explanation().available(), Ok(()));
        let without = Explanation { primary: None, ..explanation() };
        assert_eq!(without.available().unwrap_err().failure, Failure::Unavailable);
        let mut silent = explanation();
        silent.levels.truncate(1);
        assert!(silent.available().unwrap_err().message.contains("answers a read"));
    }

    #[test]
    fn what_a_silent_node_remembers_is_not_called_nothing() {
        assert!(explanation().text().contains("no node remembers a change"));
        let silent = Explanation { silent: vec!["n2".into()], ..explanation() };
        assert!(silent.text().contains("not known: no answer from n2"), "{}", silent.text());
        let newest = (change(4, 1, ChangeReason::ProcessGone), "n2".to_owned(), None);
        let some = Explanation { changes: vec![newest], ..silent };
        assert!(some.text().contains("there may have been others: no answer from n2"));
    }

    #[test]
    fn a_change_is_told_in_one_sentence() {
        let told = told_change(&change(4, 0, ChangeReason::ProcessGone), "n2", Some("n1"));
        assert_eq!(
            told,
            "n2 after n1 at 1970-01-01 00:00:00 UTC, in term 4: the process of the primary before was gone"
        );
        let told = told_change(&change(4, 0, ChangeReason::FirstSeen), "n2", None);
        assert!(told.contains("no node remembers more"), "{told}");
    }
}
