//! Decides on updates of the books: alone while there is no control group, and together with it
//! from then on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dkv_base::id::HolderId;
use dkv_base::sync::lock;
use dkv_wire::message::BooksChange;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::keeper::{Keeper, after};
use super::{Order, RoundError};
use crate::coordinator_link::{ControlGroupError, Fetched};
use crate::limits::{BOOKS_CONFLICTS_MAX, BOOKS_LOST_PATIENCE, BOOKS_PATIENCE};
use crate::registry::{Effects, RecordChanges, Registry};
use crate::registry_store::{PendingUpdate, UpdateError};

impl Keeper {
    /// Decides on updates, and answers them.
    pub(super) async fn decide(
        &mut self,
        updates: Vec<Box<dyn PendingUpdate>>,
        queue: &mut mpsc::Receiver<Order>,
    ) {
        let Err(mut updates) = self.decide_alone(updates).await else { return };
        let decided = self.decide_together(&mut updates).await.map_err(UpdateError::from);
        let is_waiting = matches!(decided, Err(UpdateError::Waiting(_)));
        if let Err(error) = &decided {
            debug!(%error, "the books were not changed");
            // Those that came meanwhile have waited too: each is to have its answer in time.
            while is_waiting && let Ok(order) = queue.try_recv() {
                if let Order::Update(update) = order {
                    updates.push(update);
                }
            }
        }
        for update in updates {
            update.finish(decided.clone());
        }
    }

    /// Decides without the control group, if there is none yet. Otherwise returns the updates.
    async fn decide_alone(
        &self,
        updates: Vec<Box<dyn PendingUpdate>>,
    ) -> Result<(), Vec<Box<dyn PendingUpdate>>> {
        if self.store.snapshot().is_kept_by_control_group() {
            return Err(updates);
        }
        let shared = Arc::new(Mutex::new(updates));
        let applied = Arc::clone(&shared);
        let decided = self.store.update(move |next| {
            // It may have heard of one since.
            if next.is_kept_by_control_group() {
                return (false, Effects::default());
            }
            let mut effects = Effects::default();
            for update in lock(&applied).iter_mut() {
                let Effects { save, deny } = update.apply(next);
                effects.save |= save;
                effects.deny |= deny;
            }
            (true, effects)
        });
        let decided = decided.await;
        let updates = std::mem::take(&mut *lock(&shared));
        match decided {
            Ok(false) => return Err(updates),
            Ok(true) => updates.into_iter().for_each(|update| update.finish(Ok(()))),
            Err(error) => updates.into_iter().for_each(|update| update.finish(Err(error.clone()))),
        }
        Ok(())
    }

    /// Decides with the control group. After success, each update was applied to the copy that
    /// counts.
    async fn decide_together(
        &mut self,
        updates: &mut [Box<dyn PendingUpdate>],
    ) -> Result<(), RoundError> {
        if self.store.snapshot().books_version().is_none() {
            self.fetch(BOOKS_PATIENCE).await?;
        }
        let mut is_newest = false;
        for _ in 0..BOOKS_CONFLICTS_MAX {
            let registry = self.store.snapshot();
            let mut next = Registry::clone(&registry);
            for update in updates.iter_mut() {
                update.apply(&mut next);
            }
            let records = next.changed_records(&registry);
            if records.is_empty() {
                // Newer books may allow a refused update.
                if !std::mem::replace(&mut is_newest, true) {
                    self.fetch(BOOKS_LOST_PATIENCE).await?;
                    if self.store.snapshot().books_version() != registry.books_version() {
                        continue;
                    }
                }
                return Ok(());
            }
            match self.propose(&registry, records, Vec::new()).await {
                Err(RoundError::ControlGroup(ControlGroupError::Rejected(why))) => {
                    debug!(why, "another server has changed the books");
                    is_newest = true;
                    self.fetch(BOOKS_LOST_PATIENCE).await?;
                    if self.store.snapshot().books_version() == registry.books_version() {
                        // It was not because of another server.
                        return Err(ControlGroupError::Rejected(why).into());
                    }
                }
                other => return other,
            }
        }
        Err(RoundError::Conflicts)
    }

    /// Proposes a change on the books as this server has them, and applies it here once it is
    /// decided.
    ///
    /// A change that was decided counts, whether this server can write it to its disk or not: it
    /// fetches the books again before it decides on the next one.
    pub(super) async fn propose(
        &mut self,
        registry: &Registry,
        records: RecordChanges,
        servers: Vec<(HolderId, Option<SocketAddr>)>,
    ) -> Result<(), RoundError> {
        let Some(at) = registry.books_version() else {
            return Err(ControlGroupError::Silent("it has no books yet".into()).into());
        };
        let id = HolderId::random().0;
        let change = BooksChange { id, at, complete: true, records, servers };
        let version = after(at, id);
        let kept = match self.control_group.change(registry, change.clone()).await {
            Ok(()) => {
                let BooksChange { records, servers, .. } = change;
                let apply =
                    move |next: &mut Registry| next.apply_changes(&records, &servers, version);
                self.store.update(apply).await.map_err(RoundError::from).and_then(|it| Ok(it?))
            }
            Err(error @ ControlGroupError::Silent(_)) => {
                // Its answer may be all that was lost. Others may have changed the books since.
                let fetched =
                    self.control_group.fetch(registry, Some(at), BOOKS_LOST_PATIENCE).await;
                match fetched {
                    Ok(Fetched { copy: Some(copy), recent, .. }) if recent.contains(&id) => {
                        self.adopt(copy).await
                    }
                    _ => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = kept {
            warn!("a change of the books was made, and is not in this server's copy: {error}");
        }
        Ok(())
    }
}
