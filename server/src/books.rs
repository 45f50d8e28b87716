//! Decides on changes of the books: tokens, holders and servers.
//!
//! Until the first coordinator has reported, the registry alone decides, on disk as ever. From then
//! on the control group orders the changes of all servers. A change is decided on this server's
//! copy, and takes effect only if no other server's came first: otherwise the server fetches the
//! newer books and decides again.
//!
//! ```text
//! next = copy.clone(); answer = update(&mut next);
//! match control_group.change(at: copy.version, next - copy) {
//!     done     => copy = next on disk; send(answer)
//!     rejected => fetch; again
//!     silent   => send("joining waits for the control group")
//! }
//! ```
//!
//! These decisions have a queue of their own, so that registrations, reports and renewals never
//! wait for the control group: they are how the server learns who the coordinator is.
//!
//! While the control group has no majority, a server decides on one thing alone, and only if it is
//! the only one: it admits an administrator by a token without a number of uses. Otherwise nobody
//! could say which of two processes of the only node goes on (see [`Keeper::admit_alone`]).
//!
//! Deliberately missing: any other way to decide alone meanwhile. It could use a token that another
//! server has used.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::{HolderId, Revision};
use dkv_base::logging::AUDIT;
use dkv_base::supervise::Failure;
use dkv_base::sync::lock;
use dkv_wire::limits::BOOKS_CHANGE_RECORDS_MAX;
use dkv_wire::message::{BookKey, BooksChange, BooksVersion};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::coordinator_link::{ControlGroupError, CoordinatorLink, Fetched};
use crate::limits::{
    BOOKS_AGAIN, BOOKS_CHECK, BOOKS_CONFLICTS_MAX, BOOKS_FOLLOW_PATIENCE, BOOKS_LOST_PATIENCE,
    BOOKS_PATIENCE, BOOKS_REFRESH_MIN, GROUP_MAX, WAITING_MAX,
};
use crate::registry::{BooksCopy, Effects, RecordChanges, RecordError, Registry};
use crate::registry_store::{PendingUpdate, RegistryStore, UpdateError, pending, pending_joining};

/// A handle to the books and to the task that decides on them.
#[derive(Clone)]
pub(crate) struct Books {
    orders: mpsc::Sender<Order>,
    store: RegistryStore,
}

enum Order {
    Update(Box<dyn PendingUpdate>),
    /// Fetch the books. If they were fetched a moment ago, says how long to wait before asking
    /// again.
    Refresh(oneshot::Sender<Duration>),
}

/// Why a round did not succeed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    ControlGroup(#[from] ControlGroupError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Store(#[from] UpdateError),
    #[error("other servers change the books all the time; try again")]
    Conflicts,
    /// The control group has lost the books, and this server never had them.
    #[error(
        "the control group waits for the books from a server that had them; start one of those \
         that were in the network before"
    )]
    NoBooks,
}

impl From<RoundError> for UpdateError {
    fn from(error: RoundError) -> Self {
        match error {
            RoundError::Store(error) => error,
            RoundError::ControlGroup(ControlGroupError::Rejected(why)) => {
                Self::Rejected(why.into())
            }
            other => Self::Waiting(other.to_string().into()),
        }
    }
}

impl Books {
    /// Starts the task. `address` is where others reach this server, if that is known.
    pub(crate) fn start(
        store: RegistryStore,
        control_group: Arc<CoordinatorLink>,
        address: Option<SocketAddr>,
        failure: &Failure,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (orders, queue) = mpsc::channel(WAITING_MAX);
        let books = Self { orders, store: store.clone() };
        let keeper = Keeper {
            store,
            control_group,
            address,
            fetched: None,
            seen: None,
            is_refused: false,
            has_met: false,
            doubted: BTreeSet::new(),
            told: None,
        };
        let task = failure.if_ended("the task that decides on the books", keeper.run(queue));
        (books, tokio::spawn(task))
    }

    /// Updates the books. When this returns, the update has been decided: it is in the directory,
    /// or on this server's disk if there is no control group yet.
    ///
    /// `update` may run more than once, each time on another copy; the last run counts.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        update: impl FnMut(&mut Registry) -> (T, Effects) + Send + 'static,
    ) -> Result<T, UpdateError> {
        let (pending, answer) = pending(update);
        self.orders.send(Order::Update(pending)).await.map_err(|_| UpdateError::Stopping)?;
        answer.await.map_err(|_| UpdateError::Stopping)?
    }

    /// The same of an update by which a token may admit a holder.
    pub(crate) async fn join<T: Send + 'static>(
        &self,
        token: Uuid,
        holder: HolderId,
        update: impl FnMut(&mut Registry) -> (T, Effects) + Send + 'static,
    ) -> Result<T, UpdateError> {
        let (pending, answer) = pending_joining(Some((token, holder)), update);
        self.orders.send(Order::Update(pending)).await.map_err(|_| UpdateError::Stopping)?;
        answer.await.map_err(|_| UpdateError::Stopping)?
    }

    /// Updates the books when it can, without telling anybody. Drops the update if too many wait.
    pub(crate) fn update_later(
        &self,
        mut update: impl FnMut(&mut Registry) -> ((), Effects) + Send + 'static,
    ) {
        if self.store.snapshot().is_kept_by_control_group() {
            let (pending, _) = pending(move |registry| update(registry));
            let _ = self.orders.try_send(Order::Update(pending));
        }
    }

    /// Fetches the books if another server may have changed them. Anybody can cause this, so it
    /// costs the control group one small question now and then at most.
    pub(crate) async fn refresh(&self) {
        if !self.store.snapshot().is_kept_by_control_group() {
            return;
        }
        // The second time they are old enough, or were fetched for somebody else meanwhile.
        for _ in 0..2 {
            let (early, refreshed) = oneshot::channel();
            if self.orders.try_send(Order::Refresh(early)).is_err() {
                return;
            }
            match refreshed.await {
                Ok(wait) => sleep(wait).await,
                Err(_) => return,
            }
        }
    }
}

struct Keeper {
    store: RegistryStore,
    control_group: Arc<CoordinatorLink>,
    /// `None` if it is not known: the server lists no address then.
    address: Option<SocketAddr>,
    /// When the books were last fetched.
    fetched: Option<Instant>,
    /// The revision of the directory as of which they were.
    seen: Option<Revision>,
    /// Whether the control group has refused a change since then. Its books count from then on,
    /// even if they are older than this copy: it may have lost its latest entries.
    is_refused: bool,
    /// Whether this copy has been that of the control group since this process began.
    has_met: bool,
    /// The tokens that may be gone: the control group did not say whether it removed them.
    doubted: BTreeSet<Uuid>,
    /// The problem that was logged last.
    told: Option<String>,
}

impl Keeper {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
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
        let is_behind = !registry.records_made_alone().is_empty();
        if registry.books_version().is_some() && is_listed && revision == self.seen && !is_behind {
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
        let registry = self.store.snapshot();
        let records = registry.records_made_alone();
        if !records.is_empty() {
            self.propose(&registry, records, Vec::new()).await?;
        }
        Ok(())
    }

    /// Fetches the books. If the control group has none yet, hands them over.
    async fn fetch(&mut self, patience: Duration) -> Result<(), RoundError> {
        let registry = self.store.snapshot();
        let known = registry.books_version();
        let fetched = self.control_group.fetch(&registry, known, patience).await?;
        if !fetched.is_complete {
            if !registry.may_hand_over() {
                return Err(RoundError::NoBooks);
            }
            self.hand_over(&registry, fetched.version).await?;
            self.has_met = true;
        } else if let Some(copy) = fetched.copy {
            self.adopt(copy).await?;
        }
        self.is_refused = false;
        self.has_met |= self.store.snapshot().books_version() == Some(fetched.version);
        self.seen = registry.view().map(|view| view.revision);
        self.fetched = Some(Instant::now());
        Ok(())
    }

    async fn adopt(&mut self, copy: BooksCopy) -> Result<(), RoundError> {
        let (version, lost) = (copy.version, self.is_refused);
        let adopt = move |next: &mut Registry| next.adopt_books(&copy, lost);
        self.store.update(adopt).await??;
        // Otherwise they were older than this copy.
        if self.store.snapshot().books_version() == Some(version) {
            // A change that was decided on other books has been made by now, or never will be.
            self.doubted.clear();
            debug!(version = version.number, "adopted the books of the control group");
        }
        Ok(())
    }

    /// Hands the books over. This server has decided on nothing since the first coordinator
    /// reported, so what it hands over is all there is, however often it has to begin.
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

    /// Decides on updates, and answers them.
    async fn decide(
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
            match update.joining() {
                Some((token, holder)) if is_waiting => {
                    if let Some(update) = self.admit_alone(token, holder, update).await {
                        update.finish(decided.clone());
                    }
                }
                _ => update.finish(decided.clone()),
            }
        }
    }

    /// Admits a holder without the control group, if no more than an administrator's use of an
    /// unlimited token depends on it; otherwise returns the update.
    ///
    /// No other server can have revoked the token: this is the only one, and its copy of the books
    /// is that of the control group but for changes of its own. None of those was a revocation
    /// whose outcome is unknown. The control group gets the holder's record when it answers.
    async fn admit_alone(
        &self,
        token: Uuid,
        holder: HolderId,
        update: Box<dyn PendingUpdate>,
    ) -> Option<Box<dyn PendingUpdate>> {
        let registry = self.store.snapshot();
        // A server that was revoked may have made changes until the latest report.
        let is_current = registry.view().map(|view| view.revision) == self.seen;
        if !self.has_met || self.is_refused || !is_current || self.doubted.contains(&token) {
            return Some(update);
        }
        let shared = Arc::new(Mutex::new(Some(update)));
        let applied = Arc::clone(&shared);
        let admitted = self.store.update(move |next| {
            if !next.may_admit_alone(token) {
                return (false, Effects::default());
            }
            let Some(update) = &mut *lock(&applied) else { return (false, Effects::default()) };
            let effects = update.apply(next);
            next.note_admitted_alone(holder);
            (true, effects)
        });
        let admitted = admitted.await;
        let update = lock(&shared).take()?;
        match admitted {
            Ok(true) => {
                info!(target: AUDIT, %holder, "admitted an administrator without the control group");
                update.finish(Ok(()));
            }
            Ok(false) => return Some(update),
            Err(error) => update.finish(Err(error)),
        }
        None
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
            // A coordinator may have reported since.
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
    async fn propose(
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
                    _ => {
                        let BooksChange { records, .. } = change;
                        let gone = records.into_iter().filter(|(_, record)| record.is_none());
                        self.doubted.extend(gone.filter_map(|(key, _)| match key {
                            BookKey::Token(token) => Some(token),
                            BookKey::Holder(_) => None,
                        }));
                        return Err(error.into());
                    }
                }
            }
            Err(error) => {
                self.is_refused = true;
                return Err(error.into());
            }
        };
        // A change that was decided on these books or older ones has been made by now, or never
        // will be.
        self.doubted.clear();
        self.has_met = kept.is_ok();
        if let Err(error) = kept {
            warn!("a change of the books was made, and is not in this server's copy: {error}");
        }
        Ok(())
    }
}

/// Returns the version that a change makes.
fn after(at: BooksVersion, change: Uuid) -> BooksVersion {
    BooksVersion { number: at.number + 1, change }
}
