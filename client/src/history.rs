//! Earlier values: `get KEY --revision N`, `history KEY` and `compact`.

use dkv_api::{Bytes, Client, Error, GroupId, HistoryOptions, Revision, Version};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::{quote, units};
use serde_json::json;

use crate::api_problems::{read_problem, request_problem};
use crate::grammar::{History, Key};
use crate::json_results;

/// Characters of a value that a line on a terminal shows.
pub(crate) const VALUE_SHOWN: usize = 60;
/// Versions that are asked for at once.
const PAGE_VERSIONS: usize = 256;

/// Prints the value of a key at a revision.
pub(crate) async fn get(
    key: &Key,
    revision: Revision,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let read = client.read_at(key.as_bytes(), revision).await.map_err(|error| match error {
        Error::NotFound { .. } => {
            let why = format!("key not found: {key} did not exist at revision {revision}");
            crate::api_problems::of_key(Problem::new(Failure::NotFound, why), key)
        }
        other => read_problem(key, &other),
    })?;
    if console.json {
        return Ok(console.result("", || json_results::read_at(key, revision, &read))?);
    }
    console.value(&read.value, &format!("revision {}, {}", read.revision, time(read.stamp)))?;
    Ok(())
}

/// Lists the versions of a key, newest first.
pub(crate) async fn list(
    wanted: &History,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let History { key, before, limit, .. } = wanted;
    let mut left = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let (mut before, mut listed) = (*before, 0);
    if left == 0 {
        return Ok(());
    }
    loop {
        let mut options = HistoryOptions::default().limit(left.min(PAGE_VERSIONS));
        options.before = before;
        let found = client.history(key.as_bytes(), options).await;
        let found = found.map_err(|error| read_problem(key, &error))?;
        if listed == 0 && !console.json && !found.versions.is_empty() {
            console.line(&format!("{:>8}  {:<23}  {:<6}  VALUE", "REVISION", "TIME", "WHAT"))?;
        }
        for version in &found.versions {
            if console.json {
                console.document(&json_results::version(key, found.shard, version))?;
            } else {
                let row = row(version, console.terminal);
                console.line(row.trim_end())?;
            }
        }
        console.flush()?;
        listed += found.versions.len();
        left -= found.versions.len();
        match found.versions.last() {
            Some(last) if found.more && left > 0 => before = Some(last.revision),
            Some(last) if found.more => {
                console.note(&format!("there are older versions: --before {}", last.revision));
                return Ok(());
            }
            None if listed == 0 => {
                let why = match before {
                    Some(before) => format!(
                        "key not found: {key} has no version before revision {before}, as far as \
                         the history goes back (to revision {})",
                        found.floor
                    ),
                    None => format!(
                        "key not found: {key} has no versions since revision {}, where the \
                         history begins",
                        found.floor
                    ),
                };
                let problem = Problem::new(Failure::NotFound, why);
                return Err(crate::api_problems::of_key(problem, key).into());
            }
            _ => return Ok(()),
        }
    }
}

/// Forgets the history of a shard.
pub(crate) async fn compact(
    revision: Revision,
    shard: Option<u32>,
    yes: bool,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let view = client.view().await.map_err(|error| request_problem(&error))?;
    let shard = match (shard.map(GroupId), view.shards_of(client.keyspace_id())) {
        (Some(shard), _) => shard,
        (None, [only]) => only.group,
        (None, shards) => {
            let why = format!(
                "the keyspace has {} shards, and each has revisions of its own; name one with \
                 --shard",
                shards.len()
            );
            return Err(Problem::usage(why).into());
        }
    };
    if !yes {
        let why = format!(
            "nobody could read shard {shard} before revision {revision} any more; repeat the \
             command with --yes to forget that history permanently"
        );
        return Err(Problem::usage(why).into());
    }
    client.compact_shard(shard, revision).await.map_err(|error| request_problem(&error))?;
    let text = format!("the history of shard {shard} begins at revision {revision}, or later");
    console.changed(
        &text,
        || json!({ "command": "compact", "shard": shard.0, "revision": revision.0 }),
    )?;
    Ok(())
}

/// Returns the line of a version.
fn row(version: &Version, short: bool) -> String {
    let Version { revision, value, stamp, .. } = version;
    let (what, value) = what(value.as_ref(), short);
    format!("{revision:>8}  {:<23}  {what:<6}  {value}", time(*stamp))
}

/// Returns what a write did, and its value as text, shortened for a terminal.
pub(crate) fn what(value: Option<&Bytes>, short: bool) -> (&'static str, String) {
    let Some(value) = value else { return ("delete", String::new()) };
    let mut shown = quote::escaped(value);
    if short && shown.chars().count() > VALUE_SHOWN {
        shown = shown.chars().take(VALUE_SHOWN).chain("…".chars()).collect();
    }
    ("put", shown)
}

/// Returns the time of a write.
pub(crate) fn time(stamp: dkv_api::Stamp) -> String {
    match stamp.since_1970().as_millis() {
        0 => "-".to_owned(),
        ms => units::timestamp(ms as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dkv_api::{LeaseId, Stamp};

    use super::*;

    #[test]
    fn a_version_is_a_line() {
        let mut version = Version {
            revision: Revision(17),
            created: Revision(3),
            version: 4,
            stamp: Stamp::at(Duration::from_millis(1_772_368_496_000)),
            value: Some(Bytes::from_static(b"blue\n")),
            lease: LeaseId::default(),
            expiry: None,
        };
        assert_eq!(row(&version, true), "      17  2026-03-01 12:34:56 UTC  put     blue\\n");
        version.value = Some(vec![b'x'; 100].into());
        assert_eq!(row(&version, false).chars().count(), 43 + 100);
        assert_eq!(row(&version, true).chars().count(), 43 + VALUE_SHOWN + 1);
        (version.value, version.stamp) = (None, Stamp(0));
        assert_eq!(row(&version, true).trim_end(), "      17  -                        delete");
    }
}
