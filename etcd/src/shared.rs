//! What the faces of a network share beside the keys: users, roles and alarms.
//!
//! It is one value in a keyspace of its own, which every face reads, and replaces under the
//! condition that nobody else has. A face looks at it again within [`SHARED_FRESH`] while it is
//! asked, and before it refuses anybody. So what is granted is granted at every face at once, and
//! what is taken away is gone at the face that took it at once, and at the others after that time.
//! Streams that have begun are checked once a second, and end a little later ([`crate::auth`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use dkv_api::{Bytes, Client, Condition, Error, KeyspaceSettings, Revision};
use tracing::debug;

use crate::access::store::Known;
use crate::access::{Change, Rules, SharedState};
use crate::error::{Code, EtcdError};
use crate::etcd::Etcd;
use crate::limits::{
    SHARED_BYTES_MAX, SHARED_DENIED_FRESH, SHARED_FIRST_TIMEOUT, SHARED_FRESH, SHARED_LOAD_TIMEOUT,
};

/// What the name of the keyspace of the settings has behind that of the keys.
pub const SETTINGS_SUFFIX: &str = "-settings";
/// The key of the value.
const KEY: &str = "settings";
/// Time between two looks for a keyspace that exists and is not seen yet.
const SEEN_AGAIN: Duration = Duration::from_millis(100);

impl Etcd {
    /// Returns what all gateways share, as it was a short time ago.
    ///
    /// # Errors
    /// It cannot be read, and it is not known that authentication is off.
    pub(crate) async fn rules(&self) -> Result<Arc<Rules>, EtcdError> {
        let now = Instant::now();
        let Some(known) = self.shared().known() else { return self.load(now).await };
        let is_fresh = now < known.fresh;
        // Those who never asked for authentication do not wait for what they do not need.
        let counts = is_fresh || known.is_stale && !known.is_enabled();
        if !counts {
            return self.load(known.fresh).await;
        }
        let soon = known.fresh.saturating_duration_since(now) < SHARED_FRESH / 2;
        if soon {
            self.refresh_rules();
        }
        Ok(known.rules)
    }

    /// Has the shared state read again, without waiting for it.
    pub(crate) fn refresh_rules(&self) {
        if self.shared().loading.try_lock().is_ok() {
            let (etcd, now) = (self.clone(), Instant::now());
            tokio::spawn(async move { etcd.load(now).await });
        }
    }

    /// Returns the shared state as it is now.
    ///
    /// # Errors
    /// As for [`rules`](Self::rules).
    pub(crate) async fn latest_rules(&self) -> Result<Arc<Rules>, EtcdError> {
        self.load(Instant::now()).await
    }

    /// Returns the shared state, at most a moment old, so that unauthorized callers cannot force a
    /// read per request.
    ///
    /// # Errors
    /// As for [`rules`](Self::rules).
    pub(crate) async fn rules_again(&self) -> Result<Arc<Rules>, EtcdError> {
        let now = Instant::now();
        self.load(now.checked_sub(SHARED_DENIED_FRESH).unwrap_or(now)).await
    }

    /// Reads the value, unless somebody has begun to since `since`.
    async fn load(&self, since: Instant) -> Result<Arc<Rules>, EtcdError> {
        let store = self.shared();
        let patience = match store.known() {
            Some(_) => SHARED_LOAD_TIMEOUT,
            None => SHARED_FIRST_TIMEOUT,
        };
        let reading = async {
            let _loading = store.loading.lock().await;
            let known = store.known();
            if let Some(known) = known.as_ref().filter(|known| known.asked >= since) {
                return Ok(Arc::clone(&known.rules));
            }
            let asked = Instant::now();
            let was_enabled = known.as_ref().is_some_and(Known::is_enabled);
            let name = self.shared_keyspace_name();
            let keyspace = loop {
                let confirmed = async {
                    let keyspaces = self.client().list_keyspaces().await?;
                    Ok(keyspaces.into_iter().map(|used| used.keyspace.name).collect())
                };
                let seen = self.shared_keyspace().await?;
                match found_or_absent(&name, was_enabled, seen, confirmed).await? {
                    Found::There(keyspace) => break keyspace,
                    Found::Absent => {
                        let rules = Arc::new(Rules::new(SharedState::default()));
                        return Ok(store.note(rules, None, asked));
                    }
                    Found::NotSeenYet => tokio::time::sleep(SEEN_AGAIN).await,
                }
            };
            let (value, revision) = self.read_value(&keyspace).await?;
            let rules = match known {
                Some(known) if known.revision == revision && revision.is_some() => known.rules,
                _ => Arc::new(Rules::new(decode(value.as_deref())?)),
            };
            Ok(store.note(rules, revision, asked))
        };
        let why = match tokio::time::timeout(patience, reading).await {
            Ok(Ok(rules)) => return Ok(rules),
            Ok(Err(why)) => why,
            Err(_) => EtcdError::TIMEOUT,
        };
        debug!(error = %why, "cannot read the users and roles that all gateways share");
        store.note_failure().ok_or_else(|| {
            let why = format!("etcdserver: the users and roles cannot be read: {why}");
            EtcdError::new(Code::Unavailable, why)
        })
    }

    /// Reads the value, and the revision at which it was written, if it was.
    async fn read_value(
        &self,
        keyspace: &Client,
    ) -> Result<(Option<Bytes>, Option<Revision>), EtcdError> {
        match keyspace.read(KEY).await {
            Ok(read) => Ok((Some(read.value), Some(read.receipt.revision))),
            Err(Error::NotFound { .. }) => Ok((None, None)),
            Err(error) => {
                if matches!(error, Error::NoKeyspace { .. }) {
                    self.shared().forget_keyspace();
                }
                Err(error.into())
            }
        }
    }

    async fn shared_keyspace(&self) -> Result<Option<Client>, EtcdError> {
        let known = self.shared().keyspace().clone();
        if known.is_some() {
            return Ok(known);
        }
        match self.client().keyspace(&self.shared_keyspace_name()).await {
            Ok(found) => {
                *self.shared().keyspace() = Some(found.clone());
                Ok(Some(found))
            }
            Err(Error::NoKeyspace { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn shared_keyspace_name(&self) -> String {
        format!("{}{SETTINGS_SUFFIX}", self.options().keyspace)
    }

    /// Changes what the faces share; `change` may run several times, each on what is there then.
    ///
    /// # Errors
    /// Those of `change`; a timeout if it may have been done.
    pub(crate) async fn change_shared(
        &self,
        change: impl FnMut(&mut SharedState) -> Change,
    ) -> Result<(), EtcdError> {
        self.change_shared_within(SHARED_BYTES_MAX, change).await
    }

    /// Changes it, as long as it has no more bytes then.
    ///
    /// # Errors
    /// As for [`change_shared`](Self::change_shared).
    pub(crate) async fn change_shared_within(
        &self,
        bytes_max: usize,
        mut change: impl FnMut(&mut SharedState) -> Change,
    ) -> Result<(), EtcdError> {
        let keyspace = match self.shared_keyspace().await? {
            Some(keyspace) => keyspace,
            None => {
                // Not for a change that is refused, or changes nothing.
                if !change(&mut SharedState::default())? {
                    return Ok(());
                }
                let settings = KeyspaceSettings { shards: 1, ..KeyspaceSettings::default() };
                self.create_keyspace(&self.shared_keyspace_name(), settings).await?;
                self.shared_keyspace().await?.ok_or(EtcdError::TIMEOUT)?
            }
        };
        let store = self.shared();
        let _loading = store.loading.lock().await;
        loop {
            let asked = Instant::now();
            let (before, revision) = self.read_value(&keyspace).await?;
            let mut state = decode(before.as_deref())?;
            if !change(&mut state)? {
                store.note(Arc::new(Rules::new(state)), revision, asked);
                return Ok(());
            }
            let value = serde_json::to_vec(&state)
                .map_err(|error| EtcdError::new(Code::Internal, error.to_string()))?;
            if value.len() > bytes_max && value.len() > before.map_or(0, |before| before.len()) {
                let why = "etcdserver: the users and roles take more than 1 MiB";
                return Err(EtcdError::new(Code::ResourceExhausted, why));
            }
            let condition = revision.map_or(Condition::Absent, Condition::Revision);
            match keyspace.write_with(KEY, value, condition.into()).await {
                Ok(written) => {
                    let revision = Some(written.receipt.revision);
                    store.note(Arc::new(Rules::new(state)), revision, asked);
                    return Ok(());
                }
                // Somebody else has changed them.
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The keyspace of users and roles, as far as it is known.
#[derive(Debug, PartialEq)]
enum Found<K> {
    There(K),
    /// It does not exist: without it authentication is off.
    Absent,
    /// It exists, and the view is from before.
    NotSeenYet,
}

/// Finds the keyspace of users and roles, as the view shows it. The view may be that of a node that
/// lags, so its absence has to be `confirmed`: by the names of all keyspaces, from the coordinator
/// and a majority.
///
/// # Errors
/// It is gone though authentication `was_enabled`; those of `confirmed`.
async fn found_or_absent<K>(
    name: &str,
    was_enabled: bool,
    seen: Option<K>,
    confirmed: impl Future<Output = Result<Vec<String>, EtcdError>>,
) -> Result<Found<K>, EtcdError> {
    match seen {
        Some(found) => Ok(Found::There(found)),
        None if was_enabled => {
            let why = format!("etcdserver: the keyspace {name} is gone");
            Err(EtcdError::new(Code::Unavailable, why))
        }
        None if confirmed.await?.iter().any(|other| other == name) => Ok(Found::NotSeenYet),
        None => Ok(Found::Absent),
    }
}

/// Returns the state of a value; that of no value is empty.
fn decode(value: Option<&[u8]>) -> Result<SharedState, EtcdError> {
    let Some(value) = value else { return Ok(SharedState::default()) };
    serde_json::from_slice(value).map_err(|error| {
        let why = format!("etcdserver: the users and roles are damaged: {error}");
        EtcdError::new(Code::Internal, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "etcd-settings";

    /// Returns what is found if the view shows the keyspace or not, and the coordinator names
    /// these.
    async fn found(
        seen: Option<()>,
        was_enabled: bool,
        confirmed: Result<&[&str], EtcdError>,
    ) -> Result<Found<()>, EtcdError> {
        let confirmed = confirmed.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        found_or_absent(NAME, was_enabled, seen, async { confirmed }).await
    }

    #[tokio::test]
    async fn authentication_is_off_only_where_the_keyspace_is_known_not_to_exist() {
        let (others, all) = (["default", "etcd", "other-settings"], ["etcd", NAME]);
        assert_eq!(found(None, false, Ok(&others)).await, Ok(Found::Absent));
        // A node that lags does not see it.
        assert_eq!(found(None, false, Ok(&all)).await, Ok(Found::NotSeenYet));
        let unknown = Err(EtcdError::TIMEOUT);
        assert_eq!(found(None, false, unknown.clone()).await, Err(EtcdError::TIMEOUT));
        for confirmed in [Ok(&others[..]), Ok(&all), unknown.clone()] {
            let error = found(None, true, confirmed).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "it was on");
        }
        // The coordinator is not asked for what is there.
        for was_enabled in [false, true] {
            assert_eq!(found(Some(()), was_enabled, unknown.clone()).await, Ok(Found::There(())));
        }
    }
}
