//! The callers of requests, and their shares of the memory for bodies and of the watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use dkv_api::HolderId;
use dkv_base::sync::lock;
use dkv_wire::bearer::{Bearer, Rights};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BodyError;
use crate::limits::{BEARER_BODIES_BYTES_MAX, BEARER_WATCHES_MAX, READERS_BODIES_BYTES_MAX};

tokio::task_local! {
    /// The caller of the request that is being answered.
    static CALLER: Caller;
}

/// The bearer of a token, and the quotas that its bodies count against.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    quotas: Vec<Arc<Semaphore>>,
    watches: Arc<Semaphore>,
    is_read_only: bool,
}

/// The quotas of all bearers of tokens.
#[derive(Debug)]
pub(crate) struct CallerQuotas {
    /// Shared by all read-only bearers.
    readers: Arc<Semaphore>,
    bearers: Mutex<HashMap<HolderId, Weak<Semaphore>>>,
    watches: Mutex<HashMap<HolderId, Weak<Semaphore>>>,
}

impl Default for CallerQuotas {
    fn default() -> Self {
        let readers = Arc::new(Semaphore::new(READERS_BODIES_BYTES_MAX));
        Self { readers, bearers: Mutex::default(), watches: Mutex::default() }
    }
}

impl CallerQuotas {
    /// Returns the bearer of a token as a caller.
    pub(crate) fn caller(&self, bearer: &Bearer) -> Caller {
        let own = quota(&self.bearers, bearer.holder, BEARER_BODIES_BYTES_MAX);
        let watches = quota(&self.watches, bearer.holder, BEARER_WATCHES_MAX);
        let is_read_only = bearer.rights == Rights::Read;
        let readers = is_read_only.then(|| Arc::clone(&self.readers));
        Caller { quotas: [own].into_iter().chain(readers).collect(), watches, is_read_only }
    }
}

/// Returns the quota of a holder, which lives for as long as anything uses it.
fn quota(
    quotas: &Mutex<HashMap<HolderId, Weak<Semaphore>>>,
    holder: HolderId,
    most: usize,
) -> Arc<Semaphore> {
    let mut quotas = lock(quotas);
    let known = quotas.get(&holder).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        quotas.retain(|_, quota| quota.strong_count() > 0);
        let own = Arc::new(Semaphore::new(most));
        quotas.insert(holder, Arc::downgrade(&own));
        own
    })
}

impl Caller {
    /// Returns the current caller; `None` if requests need no token.
    pub(crate) fn current() -> Option<Self> {
        CALLER.try_with(Self::clone).ok()
    }

    /// Does something in the name of a caller of earlier.
    pub(crate) fn in_name_of<T>(caller: Option<&Self>, act: impl FnOnce() -> T) -> T {
        match caller {
            Some(caller) => CALLER.sync_scope(caller.clone(), act),
            None => act(),
        }
    }

    /// Takes a watch from the quota of this caller. `None` if it has as many as it may.
    pub(crate) fn take_watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().ok()
    }

    /// Answers a request in the name of this caller.
    pub(crate) async fn scope<T>(self, answering: impl Future<Output = T>) -> T {
        CALLER.scope(self, answering).await
    }

    /// Whether the current caller may only read.
    pub(crate) fn is_read_only() -> bool {
        CALLER.try_with(|caller| caller.is_read_only).unwrap_or(false)
    }

    /// Takes bytes from the quotas of the current caller.
    pub(super) fn reserve(bytes: u32) -> Result<Vec<OwnedSemaphorePermit>, BodyError> {
        let quotas = CALLER.try_with(|caller| caller.quotas.clone()).unwrap_or_default();
        let take = |quota: Arc<Semaphore>| quota.try_acquire_many_owned(bytes);
        quotas.into_iter().map(take).collect::<Result<_, _>>().map_err(|_| BodyError::NoRoom)
    }
}
