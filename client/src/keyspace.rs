//! Carries out the subcommands of `keyspace`.

use std::time::Duration;

use dkv_api::{Client, Error, KeyspaceChange, KeyspaceSettings, KeyspaceUse};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::table::aligned;
use dkv_console::units::{bytes, duration, plural};
use dkv_gateway::keyspace_json::object;
use serde_json::{Value, json};

use crate::api_problems::request_problem;
use crate::cli::{HistoryLimit, KeyspaceAction, Quota};
use crate::confirm::confirm;

/// Carries out a subcommand.
pub(crate) async fn run(
    action: &KeyspaceAction,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    match action {
        KeyspaceAction::Create { name, shards, replication, history, quota, .. } => {
            let KeyspaceChange { history_age_ms, history_bytes, .. } = limits(history)?;
            let usual = KeyspaceSettings::default();
            let settings = KeyspaceSettings {
                shards: *shards,
                replication: *replication,
                history_age_ms: history_age_ms.unwrap_or(usual.history_age_ms),
                history_bytes: history_bytes.unwrap_or(usual.history_bytes),
                quota_bytes: quota.and_then(|quota| quota.0),
            };
            check(&settings)?;
            let created = client.create_keyspace(name, settings).await;
            created.map_err(|error| change_problem(name, "created", &error))?;
            let text = format!(
                "keyspace {name} was created with {shards} {}; use it with --keyspace {name}",
                plural((*shards).into(), "shard", "shards")
            );
            console.changed(&text, || json!({ "command": "keyspace create", "name": name }))?;
        }
        KeyspaceAction::List { json, .. } => {
            // The step restores this.
            console.json |= json;
            let all = client.list_keyspaces().await.map_err(|error| request_problem(&error))?;
            console.result(&table(&all), || {
                let all: Vec<Value> = all.iter().map(object).collect();
                json!({ "command": "keyspace list", "keyspaces": all })
            })?;
        }
        KeyspaceAction::Show { name, json, .. } => {
            console.json |= json;
            let shown = find(name, client).await?;
            console.result(&description(&shown), || {
                let mut shown = object(&shown);
                shown["command"] = "keyspace show".into();
                shown
            })?;
        }
        KeyspaceAction::Set { name, replication, history, quota, .. } => {
            let change = KeyspaceChange {
                replication: *replication,
                quota_bytes: quota.map(|Quota(bytes)| bytes),
                ..limits(history)?
            };
            if change == KeyspaceChange::default() {
                let why = "nothing is to be changed; give --replication, --history or --quota";
                return Err(Problem::usage(why).into());
            }
            check(&change.applied_to(&KeyspaceSettings::default()))?;
            let set = client.set_keyspace(name, change).await;
            set.map_err(|error| change_problem(name, "changed", &error))?;
            let text = format!("keyspace {name} was changed");
            console.changed(&text, || json!({ "command": "keyspace set", "name": name }))?;
        }
        KeyspaceAction::Drop { name, yes, .. } => {
            let shown = find(name, client).await?;
            let name = &shown.keyspace.name;
            let effect =
                format!("deletes {} of keys and values in {name} permanently", bytes(shown.bytes));
            confirm(&effect, name, yes.as_deref(), console).await?;
            // The question may have stood for hours. A drop of one that is gone succeeds.
            if find(name, client).await?.keyspace.id != shown.keyspace.id {
                let why = format!(
                    "the keyspace {name} that was confirmed was dropped by somebody else; there is \
                     another one of that name, which stays"
                );
                return Err(Problem::new(Failure::NotFound, why).into());
            }
            let dropped = client.drop_keyspace_by_id(shown.keyspace.id).await;
            dropped.map_err(|error| change_problem(name, "dropped", &error))?;
            let text = format!("keyspace {name} was dropped, with everything in it");
            console.changed(&text, || json!({ "command": "keyspace drop", "name": name }))?;
        }
    }
    Ok(())
}

/// Returns the limits of a history as a change.
///
/// # Errors
/// There are two of one kind.
fn limits(history: &[HistoryLimit]) -> Result<KeyspaceChange, Problem> {
    let mut change = KeyspaceChange::default();
    for limit in history {
        let (slot, value) = match limit {
            HistoryLimit::Age(age) => (&mut change.history_age_ms, age.as_millis() as u64),
            HistoryLimit::Bytes(bytes) => (&mut change.history_bytes, *bytes),
        };
        if slot.replace(value).is_some() {
            let why = "--history takes one time and one size, as in 10m,64MiB";
            return Err(Problem::usage(why));
        }
    }
    Ok(change)
}

/// Checks settings before anything is sent.
fn check(settings: &KeyspaceSettings) -> Result<(), Problem> {
    use dkv_wire::limits;

    settings.check().map_err(|error| {
        let why = match error.setting {
            "history_age_ms" => format!(
                "the time of --history must be from {} to 365d",
                duration(Duration::from_millis(limits::KEYSPACE_HISTORY_AGE_MS_MIN))
            ),
            "history_bytes" => format!(
                "the size of --history must be from {} to {}",
                bytes(limits::SHARD_HISTORY_BYTES_MIN),
                bytes(limits::KEYSPACE_HISTORY_BYTES_MAX)
            ),
            "quota_bytes" => format!(
                "--quota must be from {} to {}, or none",
                bytes(limits::QUOTA_BYTES_MIN),
                bytes(limits::QUOTA_BYTES_MAX)
            ),
            _ => error.to_string(),
        };
        Problem::usage(why)
    })
}

/// Finds a keyspace by its name.
async fn find(name: &str, client: &Client) -> Result<KeyspaceUse, Problem> {
    let all = client.list_keyspaces().await.map_err(|error| request_problem(&error))?;
    let names: Vec<String> = all.iter().map(|used| used.keyspace.name.clone()).collect();
    let found = all.into_iter().find(|used| used.keyspace.name == name);
    found.ok_or_else(|| {
        let shown = name.escape_debug();
        let why = format!("there is no keyspace {shown}; there are {}", names.join(", "));
        Problem::new(Failure::NotFound, why)
    })
}

/// Explains a failed change of a keyspace; `done` is what did not happen.
fn change_problem(name: &str, done: &str, error: &Error) -> Problem {
    match error {
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("keyspace {name} was not {done}: {why}; try again"),
        ),
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!("keyspace {name} may have been {done}: {why}; see keyspace show {name}"),
        ),
        Error::Invalid(why) => Problem::failed(format!("keyspace {name} was not {done}: {why}")),
        other => request_problem(other),
    }
}

fn quota_text(settings: &KeyspaceSettings) -> String {
    settings.quota_bytes.map_or_else(|| "none".to_owned(), bytes)
}

fn history_text(settings: &KeyspaceSettings) -> String {
    let age = duration(Duration::from_millis(settings.history_age_ms));
    format!("{age}, {}", bytes(settings.history_bytes))
}

fn table(all: &[KeyspaceUse]) -> String {
    let mut rows =
        vec![["NAME", "SHARDS", "REPLICATION", "USED", "QUOTA", "HISTORY"].map(str::to_owned)];
    for KeyspaceUse { keyspace, shards_led, bytes: used } in all {
        let settings = &keyspace.settings;
        let shards = match settings.shards - (*shards_led).min(settings.shards) {
            0 => settings.shards.to_string(),
            _ => format!("{shards_led} of {}", settings.shards),
        };
        rows.push([
            keyspace.name.clone(),
            shards,
            settings.replication.to_string(),
            bytes(*used),
            quota_text(settings),
            history_text(settings),
        ]);
    }
    aligned(&rows)
}

fn description(shown: &KeyspaceUse) -> String {
    let KeyspaceUse { keyspace, shards_led, bytes: used } = shown;
    let settings = &keyspace.settings;
    let missing = settings.shards - (*shards_led).min(settings.shards);
    let shards = match missing {
        0 => settings.shards.to_string(),
        _ => format!("{}, of which {missing} without a known primary", settings.shards),
    };
    let full = match settings.quota_bytes {
        Some(quota) if *used >= quota => " (full: writes that add to it are refused)",
        _ => "",
    };
    format!(
        "name         {}\nshards       {shards}\nreplication  {}\nhistory      {}\nquota        \
         {}\nused         {}{full}",
        keyspace.name,
        settings.replication,
        history_text(settings),
        quota_text(settings),
        bytes(*used),
    )
}

#[cfg(test)]
mod tests {
    use dkv_api::{KeyspaceId, KeyspaceInfo};

    use super::*;

    fn used(name: &str, quota_bytes: Option<u64>, bytes: u64) -> KeyspaceUse {
        let settings = KeyspaceSettings { shards: 2, quota_bytes, ..KeyspaceSettings::default() };
        let keyspace = KeyspaceInfo { id: KeyspaceId(1), name: name.into(), settings };
        KeyspaceUse { keyspace, shards_led: 2, bytes }
    }

    #[test]
    fn keyspaces_are_listed_with_their_use() {
        let all = [used("default", None, 17), used("k8s", Some(4 << 30), 3 << 20)];
        let table = table(&all);
        assert_eq!(
            table,
            "NAME     SHARDS  REPLICATION  USED     QUOTA    HISTORY\n\
             default  2       3            17 B     none     10 min, 64.0 MiB\n\
             k8s      2       3            3.0 MiB  4.0 GiB  10 min, 64.0 MiB"
        );
        let waiting = KeyspaceUse { shards_led: 1, ..used("k", None, 0) };
        assert!(description(&waiting).contains("2, of which 1 without a known primary"));
        assert!(description(&used("k", Some(10), 10)).contains("(full: writes"));
        assert_eq!(object(&used("k", Some(10), 7))["used_bytes"], 7);
    }

    #[test]
    fn a_history_has_one_time_and_one_size() {
        let (age, size) = (HistoryLimit::Age(Duration::from_secs(5)), HistoryLimit::Bytes(1 << 20));
        let change = limits(&[age, size]).unwrap();
        assert_eq!((change.history_age_ms, change.history_bytes), (Some(5000), Some(1 << 20)));
        assert!(limits(&[age, age]).unwrap_err().message.contains("one time and one size"));
        let short = KeyspaceSettings { history_age_ms: 1, ..KeyspaceSettings::default() };
        assert!(check(&short).unwrap_err().message.contains("from 1.0 s to 365d"));
    }
}
