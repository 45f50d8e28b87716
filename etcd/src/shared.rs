//! What the faces of a network share beside the keys: users, roles and alarms.
//!
//! It is one value in a keyspace of its own, which every face reads, and replaces under the
//! condition that nobody else has. A face looks at it again within [`SHARED_FRESH`] while it is
//! asked, and before it refuses anybody. So what is granted is granted at every face at once, and
//! what is taken away is gone at the face that took it at once, and at the others after that time.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use dkv_api::{Client, Condition, Error, Revision};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, warn};

use crate::alarms::Alarms;
use crate::auth::{AuthState, Grants};
use crate::error::{Code, EtcdError};
use crate::etcd::Etcd;
use crate::limits::{SHARED_BYTES_MAX, SHARED_FRESH, SHARED_GRACE, SHARED_LOAD_TIMEOUT};

/// The key of the value.
const KEY: &str = "settings";

/// What the faces share: plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedState {
    pub(crate) auth: AuthState,
    pub(crate) alarms: Alarms,
}

/// Whether a change has changed anything.
pub(crate) type Change = Result<bool, EtcdError>;

/// It, ready to be asked.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) state: SharedState,
    pub(crate) grants: Grants,
}

impl Rules {
    fn new(state: SharedState) -> Self {
        let grants = Grants::new(&state.auth);
        Self { state, grants }
    }
}

/// What the faces share, as one of them has it.
#[derive(Default)]
pub(crate) struct Shared {
    known: RwLock<Option<Known>>,
    /// The client of the keyspace, once it is known to exist.
    keyspace: Mutex<Option<Client>>,
    /// Held while the value is read or replaced.
    loading: AsyncMutex<()>,
}

/// What a face knows, and since when.
#[derive(Clone)]
struct Known {
    rules: Arc<Rules>,
    /// When the reading began that found it.
    asked: Instant,
    /// Until when it counts as fresh.
    fresh: Instant,
}

impl Shared {
    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, state: SharedState, asked: Instant) -> Arc<Rules> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let rules = match &*known {
            Some(before) if before.rules.state == state => Arc::clone(&before.rules),
            _ => Arc::new(Rules::new(state)),
        };
        let fresh = asked + SHARED_FRESH;
        *known = Some(Known { rules: Arc::clone(&rules), asked, fresh });
        rules
    }
}

impl Etcd {
    /// Returns the users and roles, as they were a short time ago.
    ///
    /// # Errors
    /// They cannot be read, and it is not known that authentication is off.
    pub(crate) async fn rules(&self) -> Result<Arc<Rules>, EtcdError> {
        let now = Instant::now();
        let known = self.shared().known();
        if let Some(known) = known.filter(|known| now < known.fresh) {
            if known.fresh - now < SHARED_FRESH / 2 && self.shared().loading.try_lock().is_ok() {
                let etcd = self.clone();
                tokio::spawn(async move { etcd.load(now).await });
            }
            return Ok(known.rules);
        }
        self.load(now).await
    }

    /// Returns the users and roles as they are now.
    ///
    /// # Errors
    /// As for [`rules`](Self::rules).
    pub(crate) async fn latest_rules(&self) -> Result<Arc<Rules>, EtcdError> {
        self.load(Instant::now()).await
    }

    /// Reads the value, unless somebody has begun to since `since`.
    async fn load(&self, since: Instant) -> Result<Arc<Rules>, EtcdError> {
        let (store, begun) = (self.shared(), Instant::now());
        let reading = async {
            let _loading = store.loading.lock().await;
            if let Some(known) = store.known().filter(|known| known.asked >= since) {
                return Ok(known.rules);
            }
            let asked = Instant::now();
            let state = self.read_value().await?;
            Ok(store.note(state, asked))
        };
        let why = match tokio::time::timeout(SHARED_LOAD_TIMEOUT, reading).await {
            Ok(Ok(rules)) => return Ok(rules),
            Ok(Err(why)) => why,
            Err(_) => EtcdError::TIMEOUT,
        };
        // Nobody has asked for authentication, as far as this face knows: the requests go on while
        // others than their own shard are out of reach. Where it is on, they go on for a while.
        let known = store.known();
        let known = known.filter(|known| {
            !known.rules.state.auth.enabled || begun.duration_since(known.asked) < SHARED_GRACE
        });
        let Some(known) = known else {
            warn!(error = %why, "the users and roles cannot be read");
            let why = format!("etcdserver: the users and roles cannot be read: {why}");
            return Err(EtcdError::new(Code::Unavailable, why));
        };
        debug!(error = %why, "the users and roles cannot be read; those of before count");
        let mut slot = store.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot.as_mut().filter(|slot| slot.asked == known.asked) {
            slot.fresh = Instant::now() + SHARED_FRESH;
        }
        Ok(known.rules)
    }

    /// Reads the value from its keyspace. Where there is none, nobody has added a user.
    async fn read_value(&self) -> Result<SharedState, EtcdError> {
        match self.shared_keyspace().await? {
            Some(keyspace) => Ok(self.read_value_in(&keyspace).await?.0),
            None => Ok(SharedState::default()),
        }
    }

    /// Reads the value, and the revision at which it was written, if it was.
    async fn read_value_in(
        &self,
        keyspace: &Client,
    ) -> Result<(SharedState, Option<Revision>), EtcdError> {
        match keyspace.read(KEY).await {
            Ok(read) => Ok((decode(&read.value)?, Some(read.receipt.revision))),
            Err(Error::NotFound { .. }) => Ok((SharedState::default(), None)),
            Err(error) => {
                if matches!(error, Error::NoKeyspace { .. }) {
                    *self.shared().keyspace() = None;
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
        format!("{}-settings", self.options().keyspace)
    }

    /// Changes the users and roles; `change` may run several times, each on what is there then.
    ///
    /// # Errors
    /// Those of `change`; a timeout if it may have been done.
    pub(crate) async fn change_shared(
        &self,
        mut change: impl FnMut(&mut SharedState) -> Change,
    ) -> Result<(), EtcdError> {
        let keyspace = match self.shared_keyspace().await? {
            Some(keyspace) => keyspace,
            None => {
                // Not for a change that is refused.
                change(&mut SharedState::default())?;
                self.create_keyspace(&self.shared_keyspace_name()).await?;
                self.shared_keyspace().await?.ok_or(EtcdError::TIMEOUT)?
            }
        };
        let store = self.shared();
        let _loading = store.loading.lock().await;
        loop {
            let asked = Instant::now();
            let (mut state, revision) = self.read_value_in(&keyspace).await?;
            if !change(&mut state)? {
                store.note(state, asked);
                return Ok(());
            }
            let value = serde_json::to_vec(&state)
                .map_err(|error| EtcdError::new(Code::Internal, error.to_string()))?;
            if value.len() > SHARED_BYTES_MAX {
                let why = "etcdserver: the users and roles take more than 1 MiB";
                return Err(EtcdError::new(Code::ResourceExhausted, why));
            }
            let condition = revision.map_or(Condition::Absent, Condition::Revision);
            match keyspace.write_with(KEY, value, condition.into()).await {
                Ok(_) => {
                    store.note(state, asked);
                    return Ok(());
                }
                // Somebody else has changed them.
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Shared {
    fn keyspace(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.keyspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(value: &[u8]) -> Result<SharedState, EtcdError> {
    serde_json::from_slice(value).map_err(|error| {
        EtcdError::new(
            Code::Internal,
            format!("etcdserver: the users and roles are damaged: {error}"),
        )
    })
}
