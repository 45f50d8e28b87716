//! What the faces of a network share, as one of them has it, and since when.

use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Instant;

use dkv_api::{Client, Revision};
use dkv_base::sync::{lock, read, write};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use super::alarms::Alarms;
use super::state::{AuthState, Grants};
use crate::limits::{RIGHTS_UNKNOWN_MAX, SHARED_FRESH, SHARED_GRACE};

/// What the faces share: plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedState {
    pub(crate) auth: AuthState,
    pub(crate) alarms: Alarms,
}

/// It, ready to be asked.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) state: SharedState,
    pub(crate) grants: Grants,
}

impl Rules {
    pub(crate) fn new(state: SharedState) -> Self {
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
    pub(crate) loading: AsyncMutex<()>,
}

/// What a face knows, and since when.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) rules: Arc<Rules>,
    /// The revision of the value; none if there is no value.
    pub(crate) revision: Option<Revision>,
    /// When the reading began that found it.
    pub(crate) asked: Instant,
    /// Until when it counts as fresh.
    pub(crate) fresh: Instant,
    /// Whether it could not be read again since.
    pub(crate) is_stale: bool,
}

impl Known {
    pub(crate) fn is_enabled(&self) -> bool {
        self.rules.state.auth.enabled
    }

    /// Returns whether a right that is known here may have been withdrawn long ago. Age alone says
    /// nothing: a face that nobody asks reads nothing.
    pub(crate) fn is_too_old(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.asked);
        self.is_enabled() && self.is_stale && age >= RIGHTS_UNKNOWN_MAX
    }
}

impl Shared {
    pub(crate) fn known(&self) -> Option<Known> {
        read(&self.known).clone()
    }

    pub(crate) fn note(
        &self,
        rules: Arc<Rules>,
        revision: Option<Revision>,
        asked: Instant,
    ) -> Arc<Rules> {
        let fresh = asked + SHARED_FRESH;
        let known = Known { rules: Arc::clone(&rules), revision, asked, fresh, is_stale: false };
        *write(&self.known) = Some(known);
        rules
    }

    /// Notes that the value could not be read; returns what counts nevertheless. Where nobody has
    /// asked for authentication, as far as this face knows, requests go on while others than their
    /// own shard are out of reach. Where it is on, they go on for a while.
    pub(crate) fn note_failure(&self) -> Option<Arc<Rules>> {
        let mut known = write(&self.known);
        let (known, now) = (known.as_mut()?, Instant::now());
        let until = match known.is_enabled() {
            true => known.asked + SHARED_GRACE,
            false => now + SHARED_FRESH,
        };
        known.is_stale = true;
        known.fresh = until.min(now + SHARED_FRESH).max(known.fresh);
        (until > now).then(|| Arc::clone(&known.rules))
    }

    /// Forgets the keyspace, which is gone. Another one may be created under its name, whose
    /// revisions begin anew.
    pub(crate) fn forget_keyspace(&self) {
        *self.keyspace() = None;
        if let Some(known) = &mut *write(&self.known) {
            known.revision = None;
        }
    }

    pub(crate) fn keyspace(&self) -> MutexGuard<'_, Option<Client>> {
        lock(&self.keyspace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_too_old_only_if_it_could_not_be_read_again() {
        let asked = Instant::now();
        let late = asked + RIGHTS_UNKNOWN_MAX;
        let known = |is_enabled, is_stale| {
            let mut state = SharedState::default();
            state.auth.enabled = is_enabled;
            let rules = Arc::new(Rules::new(state));
            Known { rules, revision: None, asked, fresh: asked, is_stale }
        };
        assert!(known(true, true).is_too_old(late));
        assert!(!known(true, false).is_too_old(late), "nobody asked");
        assert!(!known(true, true).is_too_old(asked));
        assert!(!known(false, true).is_too_old(late), "there are no rights to lose");
    }
}
