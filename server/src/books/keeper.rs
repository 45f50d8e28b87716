//! The task that decides on the books: takes orders, and keeps this server's copy that of the
//! control group.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{HolderId, Revision};
use dkv_wire::limits::BOOKS_CHANGE_RECORDS_MAX;
use dkv_wire::message::{BooksChange, BooksVersion};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Order, RoundError};
use crate::coordinator_link::CoordinatorLink;
use crate::limits::{
    BOOKS_AGAIN, BOOKS_CHECK, BOOKS_FOLLOW_PATIENCE, BOOKS_REFRESH_MIN, GROUP_MAX,
};
use crate::registry::{BooksCopy, RecordChanges, Registry};
use crate::registry_store::RegistryStore;

/// The task that decides on the books.
pub(super) struct Keeper {
    pub(super) store: RegistryStore,
    pub(super) control_group: Arc<CoordinatorLink>,
    /// `None` if it is not known: the server lists no address then.
    pub(super) address: Option<SocketAddr>,
    /// When the books were last fetched.
    pub(super) fetched: Option<Instant>,
    /// The revision of the directory as of which they were.
    pub(super) seen: Option<Revision>,
    /// The problem that was logged last.
    pub(super) told: Option<String>,
}

impl Keeper {
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let mut orders = Vec::new();
        let mut check = Instant::now();
        loop {
            if self.control_group.is_removed() && !self.store.snapshot().is_removed() {
                // This fails only while the disk is full or the server is stopping.
                let _ = self.store.update(Registry::handle_removed).await;
            }
            // Also while there is always something to decide.
            if Instant::now() >= check {
                let follows = self.follow().await;
                check = Instant::now() + if follows { BOOKS_CHECK } else { BOOKS_AGAIN };
            }
            match timeout_at(check, queue.recv_many(&mut orders, GROUP_MAX)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => continue,
            }
            let (mut updates, mut waiting) = (Vec::new(), Vec::new());
            for order in orders.drain(..) {
                match order {
                    Order::Update(update) => updates.push(update),
                    Order::Refresh(done) => waiting.push(done),
                }
            }
            if !waiting.is_empty() {
                let age = self.fetched.map(|at| at.elapsed());
                let early = age.and_then(|age| BOOKS_REFRESH_MIN.checked_sub(age));
                match early.filter(|early| !early.is_zero()) {
                    Some(early) => waiting.into_iter().for_each(|asked| {
                        // The one that asked may be gone.
                        let _ = asked.send(early);
                    }),
                    None => {
                        if let Err(error) = self.fetch(BOOKS_FOLLOW_PATIENCE).await {
                            debug!(%error, "the books were not refreshed");
                            self.fetched = Some(Instant::now());
                        }
                        // Dropping the senders wakes those that wait.
                        drop(waiting);
                    }
                }
            }
            if !updates.is_empty() {
                self.decide(updates, &mut queue).await;
            }
        }
    }

    /// Hands the books over once there is a control group, and follows what other servers change.
    /// False if that failed.
    async fn follow(&mut self) -> bool {
        let registry = self.store.snapshot();
        if !registry.is_kept_by_control_group() {
            return true;
        }
        let revision = registry.view().map(|view| view.revision);
        let is_listed = self.is_listed(&registry);
        if registry.books_version().is_some() && is_listed && revision == self.seen {
            return true;
        }
        match self.synchronize().await {
            Ok(()) => {
                self.told = None;
                true
            }
            Err(error) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    warn!("the books are not up to date: {text}");
                    self.told = Some(text);
                }
                false
            }
        }
    }

    /// Whether the books say where others reach this server.
    fn is_listed(&self, registry: &Registry) -> bool {
        self.address.is_none() || registry.server_address(registry.server()) == self.address
    }

    async fn synchronize(&mut self) -> Result<(), RoundError> {
        self.fetch(BOOKS_FOLLOW_PATIENCE).await?;
        let registry = self.store.snapshot();
        let server = registry.server();
        if !self.is_listed(&registry) {
            let servers = vec![(server, self.address)];
            self.propose(&registry, Vec::new(), servers).await?;
        }
        Ok(())
    }

    /// Fetches the books. If the control group has none yet, hands them over.
    pub(super) async fn fetch(&mut self, patience: Duration) -> Result<(), RoundError> {
        let registry = self.store.snapshot();
        let known = registry.books_version();
        let fetched = self.control_group.fetch(&registry, known, patience).await?;
        if !fetched.is_complete {
            if !registry.may_hand_over() {
                return Err(RoundError::NoBooks);
            }
            self.hand_over(&registry, fetched.version).await?;
        } else if let Some(copy) = fetched.copy {
            self.adopt(copy).await?;
        }
        self.seen = registry.view().map(|view| view.revision);
        self.fetched = Some(Instant::now());
        Ok(())
    }

    pub(super) async fn adopt(&mut self, copy: BooksCopy) -> Result<(), RoundError> {
        let version = copy.version.number;
        self.store.update(move |next| next.adopt_books(&copy)).await??;
        debug!(version, "adopted the books of the control group");
        Ok(())
    }

    /// Hands the books over: those of the beginning, or this copy if the control group has lost
    /// them. This server decides on nothing before that is done, however often it has to begin.
    async fn hand_over(
        &mut self,
        registry: &Registry,
        version: BooksVersion,
    ) -> Result<(), RoundError> {
        let mut at = version;
        let records = registry.all_records();
        let count = records.len();
        let mut parts: Vec<RecordChanges> =
            records.chunks(BOOKS_CHANGE_RECORDS_MAX).map(<[_]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        let part = |at, complete, records, servers| {
            let id = HolderId::random().0;
            (BooksChange { id, at, complete, records, servers }, after(at, id))
        };
        for records in parts {
            let (change, next) = part(at, false, records, Vec::new());
            self.control_group.change(registry, change).await?;
            at = next;
        }
        let others = registry.servers().filter(|(id, _)| *id != registry.server());
        let mut servers: Vec<_> = others.map(|(id, address)| (id, Some(address))).collect();
        servers.extend(self.address.map(|address| (registry.server(), Some(address))));
        let (change, version) = part(at, true, last, servers.clone());
        self.control_group.change(registry, change).await?;
        let kept = move |next: &mut Registry| next.apply_changes(&Vec::new(), &servers, version);
        self.store.update(kept).await??;
        info!(records = count, "handed the books over to the control group");
        Ok(())
    }
}

/// Returns the version that a change makes.
pub(super) fn after(at: BooksVersion, change: Uuid) -> BooksVersion {
    BooksVersion { number: at.number + 1, change }
}
