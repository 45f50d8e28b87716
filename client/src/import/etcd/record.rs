//! What the network remembers of an import, so that `--continue` deletes nobody's keys.
//!
//! It is a value beside the settings of the face, in the keyspace that has the name of the keys'
//! and `-settings` behind it. It says that an import runs, or was killed: then no other client
//! should have written. Or it says at which revision of the keyspace an import ended, well or not:
//! as long as that is the latest one, no client has written since. `docs/etcd.md` has the case that
//! it does not cover.

use dkv_api::{Client, Error, KeyspaceId, KeyspaceSettings, Revision, Role};
use dkv_console::problem::{Failure, Problem};
use serde::{Deserialize, Serialize};

use crate::api_problems::{partial_problem, request_problem};
use crate::store::Store;

/// The key of the value.
const KEY: &str = "import";

/// An import into a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Import {
    /// The keyspace: another one may get its name.
    keyspace: KeyspaceId,
    state: State,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It runs, or was killed.
    Running,
    /// It ended, when the keyspace had this revision: with all keys of the source, or by a failure.
    Ended { revision: u64 },
    /// It ended, and the keyspace had other keys than the source: somebody else writes.
    Different,
}

/// Why an import must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// No import is known that could go on.
    Unknown,
    /// The keyspace has changed since the end of the last one.
    Changed,
}

/// Returns whether an import may go on with a keyspace of some revision.
fn may_go_on(known: Option<Import>, keyspace: KeyspaceId, latest: Revision) -> Result<(), Refused> {
    let known = known.filter(|known| known.keyspace == keyspace);
    match known.map(|known| known.state) {
        Some(State::Running) => Ok(()),
        Some(State::Ended { revision }) if revision == latest.0 => Ok(()),
        Some(State::Ended { .. } | State::Different) => Err(Refused::Changed),
        None => Err(Refused::Unknown),
    }
}

/// Where it is remembered.
pub(super) struct ImportRecord {
    settings: Option<Client>,
    keyspace: KeyspaceId,
}

impl ImportRecord {
    /// Opens it, and creates its keyspace if there is none and an administrator asks.
    pub(super) async fn open(store: &impl Store, target: &Client) -> Result<Self, Problem> {
        let name = format!("{}{}", target.keyspace_name(), dkv_etcd::SETTINGS_SUFFIX);
        let keyspace = target.keyspace_id();
        let client = store.client(Role::Client).await?;
        match client.keyspace(&name).await {
            Ok(settings) => return Ok(Self { settings: Some(settings), keyspace }),
            Err(Error::NoKeyspace { .. }) => {}
            Err(error) => return Err(partial_problem(&error)),
        }
        // Who has no right to create it does without: `--continue` then asks for `--overwrite`.
        let Ok(admin) = store.client(Role::Admin).await else {
            return Ok(Self { settings: None, keyspace });
        };
        let settings = KeyspaceSettings { shards: 1, ..KeyspaceSettings::default() };
        let _ = admin.create_keyspace(&name, settings).await;
        Ok(Self { settings: client.keyspace(&name).await.ok(), keyspace })
    }

    /// Checks that an import may go on with a keyspace: nobody but imports has written to it.
    pub(super) async fn check(&self, name: &str, target: &Client) -> Result<(), Problem> {
        let latest = target.latest().await.map_err(|error| request_problem(&error))?.revision;
        let why = match may_go_on(self.read().await?, self.keyspace, latest) {
            Ok(()) => return Ok(()),
            Err(Refused::Changed) => {
                "it has changed since the last import ended: somebody has written to it, or a lease \
                 of it has ended"
            }
            Err(Refused::Unknown) => "no import into it is known that could go on",
        };
        let why = format!(
            "keyspace {name}: {why}; nothing was stored, because --continue deletes what the \
             source does not have; --overwrite does so all the same"
        );
        Err(Problem::new(Failure::Conflict, why))
    }

    async fn read(&self) -> Result<Option<Import>, Problem> {
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

    /// Notes that an import has failed or was interrupted, as far as the network answers: a
    /// later write is one of another client.
    pub(super) async fn fail(&self, target: &Client) {
        if let Ok(latest) = target.latest().await {
            let _ = self.end(Some(latest.revision)).await;
        }
    }

    async fn write(&self, state: State) -> Result<(), Problem> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let import = Import { keyspace: self.keyspace, state };
        let value = serde_json::to_vec(&import).unwrap_or_default();
        settings.write(KEY, value).await.map_err(|error| partial_problem(&error))?;
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
            (Some(State::Ended { revision: 6 }), Err(Refused::Changed)),
            // The keyspace was created anew.
            (Some(State::Ended { revision: 8 }), Err(Refused::Changed)),
            (Some(State::Different), Err(Refused::Changed)),
            (None, Err(Refused::Unknown)),
        ] {
            let (mine, other) = (KeyspaceId(3), KeyspaceId(4));
            let known = |keyspace| state.map(|state| Import { keyspace, state });
            assert_eq!(may_go_on(known(mine), mine, at), expected, "{state:?}");
            let unknown = Err(Refused::Unknown);
            assert_eq!(may_go_on(known(other), mine, at), unknown, "{state:?} of another");
        }
    }
}
