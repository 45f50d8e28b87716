//! Decides on changes of the books: tokens, holders and servers.
//!
//! Until this server knows that there is a control group, the registry alone decides, on disk as
//! ever. From then on the control group orders the changes of all servers. A change is decided on
//! this server's copy, and takes effect only if no other server's came first: otherwise the server
//! fetches the newer books and decides again.
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
//! Deliberately missing: any way to decide alone while the control group has no majority. A server
//! could use a token that another one has used or revoked.

mod decision;
mod keeper;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::supervise::Failure;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use self::keeper::Keeper;
use crate::coordinator_link::{ControlGroupError, CoordinatorLink};
use crate::limits::WAITING_MAX;
use crate::registry::{Effects, RecordError, Registry};
use crate::registry_store::{PendingUpdate, RegistryStore, UpdateError, pending};

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
        let keeper =
            Keeper { store, control_group, address, fetched: None, seen: None, told: None };
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
