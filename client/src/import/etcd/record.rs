//! What the network remembers of an import, so that `--continue` deletes nobody's keys.
//!
//! It is a value beside the settings of the face, in the keyspace that has the name of the keys'
//! and `-settings` behind it. It says that an import runs, or was cut off: then nobody else should
//! have written. Or it says at which revision of the keyspace an import ended: as long as that is
//! the latest one, nobody has written since. `docs/etcd.md` has the case that it does not cover.

use dkv_api::{Client, Error, KeyspaceSettings, Revision, Role};
use dkv_console::problem::{Failure, Problem};
use serde::{Deserialize, Serialize};

use crate::api_problems::request_problem;
use crate::store::Store;

/// The key of the value.
const KEY: &str = "import";

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It runs, or was cut off.
    Running,
    /// It ended, when the keyspace had this revision and all keys of the source.
    Ended { revision: u64 },
    /// It ended, and the keyspace had other keys than the source: somebody else writes.
    Different,
}

/// Why an import must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// No import is known that could go on.
    Unknown,
    /// Somebody has written since the end of the last one.
    Written,
}

/// Returns whether an import may go on with a keyspace of some revision.
fn may_go_on(state: Option<State>, latest: Revision) -> Result<(), Refused> {
    match state {
        Some(State::Running) => Ok(()),
        Some(State::Ended { revision }) if revision == latest.0 => Ok(()),
        Some(State::Ended { .. } | State::Different) => Err(Refused::Written),
        None => Err(Refused::Unknown),
    }
}

/// Where it is remembered.
pub(super) struct ImportRecord {
    settings: Option<Client>,
}

impl ImportRecord {
    /// Opens it, and creates its keyspace if there is none and an administrator asks.
    pub(super) async fn open(store: &impl Store, keyspace: &str) -> Result<Self, Problem> {
        let name = format!("{keyspace}{}", dkv_etcd::SETTINGS_SUFFIX);
        let client = store.client(Role::Client).await?;
        match client.keyspace(&name).await {
            Ok(settings) => return Ok(Self { settings: Some(settings) }),
            Err(Error::NoKeyspace { .. }) => {}
            Err(error) => return Err(request_problem(&error)),
        }
        // Who has no right to create it does without: `--continue` then asks for `--overwrite`.
        let Ok(admin) = store.client(Role::Admin).await else {
            return Ok(Self { settings: None });
        };
        let settings = KeyspaceSettings { shards: 1, ..KeyspaceSettings::default() };
        let _ = admin.create_keyspace(&name, settings).await;
        Ok(Self { settings: client.keyspace(&name).await.ok() })
    }

    /// Checks that an import may go on with a keyspace: nobody but imports has written to it.
    pub(super) async fn check(&self, name: &str, target: &Client) -> Result<(), Problem> {
        let latest = target.latest().await.map_err(|error| request_problem(&error))?.revision;
        let why = match may_go_on(self.read().await?, latest) {
            Ok(()) => return Ok(()),
            Err(Refused::Written) => "somebody has written to it since the last import ended",
            Err(Refused::Unknown) => "no import into it is known that could go on",
        };
        let why = format!(
            "keyspace {name}: {why}; nothing was stored, because --continue deletes what the \
             source does not have; --overwrite does so all the same"
        );
        Err(Problem::new(Failure::Conflict, why))
    }

    async fn read(&self) -> Result<Option<State>, Problem> {
        let Some(settings) = &self.settings else { return Ok(None) };
        match settings.read(KEY).await {
            // One of a later version says nothing that this one knows.
            Ok(found) => Ok(serde_json::from_slice(&found.value).ok()),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(request_problem(&error)),
        }
    }

    /// Notes that an import begins.
    pub(super) async fn begin(&self) -> Result<(), Problem> {
        self.write(State::Running).await
    }

    /// Notes that an import has ended with a keyspace that equals its source as of a revision of
    /// the keyspace, or that does not.
    pub(super) async fn end(&self, equal_at: Option<Revision>) -> Result<(), Problem> {
        let ended = |revision: Revision| State::Ended { revision: revision.0 };
        self.write(equal_at.map_or(State::Different, ended)).await
    }

    async fn write(&self, state: State) -> Result<(), Problem> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let value = serde_json::to_vec(&state).unwrap_or_default();
        settings.write(KEY, value).await.map_err(|error| request_problem(&error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_only_where_nobody_else_has_written() {
        let at = Revision(7);
        for (state, expected) in [
            (Some(State::Running), Ok(())),
            (Some(State::Ended { revision: 7 }), Ok(())),
            (Some(State::Ended { revision: 6 }), Err(Refused::Written)),
            // The keyspace was created anew.
            (Some(State::Ended { revision: 8 }), Err(Refused::Written)),
            (Some(State::Different), Err(Refused::Written)),
            (None, Err(Refused::Unknown)),
        ] {
            assert_eq!(may_go_on(state, at), expected, "{state:?}");
        }
    }
}
