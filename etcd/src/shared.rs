//! What the faces of a network share beside the keys: users, roles and alarms.
//!
//! It is one value in a keyspace of its own, which every face reads, and replaces under the
//! condition that nobody else has. A face looks at it again within [`SHARED_FRESH`] while it is
//! asked, and before it refuses anybody. So what is granted is granted at every face at once, and
//! what is taken away is gone at the face that took it at once, and at the others after that time.

use std::sync::Arc;
use std::time::Instant;

use dkv_api::{Bytes, Client, Condition, Error, KeyspaceSettings, Revision};
use tracing::debug;

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
        if soon && self.shared().loading.try_lock().is_ok() {
            let etcd = self.clone();
            tokio::spawn(async move { etcd.load(now).await });
        }
        Ok(known.rules)
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
            let Some(keyspace) = self.shared_keyspace().await? else {
                if known.is_some_and(|known| known.is_enabled()) {
                    let name = self.shared_keyspace_name();
                    let why = format!("etcdserver: the keyspace {name} is gone");
                    return Err(EtcdError::new(Code::Unavailable, why));
                }
                // The view may be that of a node that lags. What the coordinator says is confirmed
                // by a majority.
                let keyspaces = self.client().list_keyspaces().await?;
                let mut names = keyspaces.iter().map(|used| used.keyspace.name.as_str());
                check_absent(&self.shared_keyspace_name(), &mut names)?;
                return Ok(store.note(Arc::new(Rules::new(SharedState::default())), None, asked));
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

/// Checks that the keyspace of users and roles does not exist, by the names of all keyspaces.
/// Without it authentication is off.
fn check_absent<'a>(name: &str, mut names: impl Iterator<Item = &'a str>) -> Result<(), EtcdError> {
    if !names.any(|other| other == name) {
        return Ok(());
    }
    let why = format!("etcdserver: the keyspace {name} is not seen yet; try again");
    Err(EtcdError::new(Code::Unavailable, why))
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

    #[test]
    fn authentication_is_off_only_where_the_keyspace_is_known_not_to_exist() {
        let check = |names: &[&str]| check_absent("etcd-settings", &mut names.iter().copied());
        assert_eq!(check(&["default", "etcd", "other-settings"]), Ok(()));
        let error = check(&["default", "etcd-settings"]).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
    }
}
