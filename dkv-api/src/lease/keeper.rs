//! The task that keeps a lease alive.

use std::collections::BTreeMap;
use std::time::Duration;

use dkv_base::id::{GroupId, LeaseId};
use dkv_base::supervise::caught;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::keeping::Keeping;
use crate::client::Client;
use crate::error::Error;

/// Least time that a shard has to answer.
const ANSWER_MIN: Duration = Duration::from_millis(10);

/// Keeps a lease alive while it exists; from [`Client::keep_lease`] or [`Client::hold_lease`].
///
/// Dropping it ends that, and the lease ends when its time is over. [`revoke`](Self::revoke) ends
/// the lease at once.
///
/// A process can be paused at any moment, and go on after its lease has ended without knowing. What
/// it does then must be harmless: see [`recipes`](crate::recipes).
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let lease = client.hold_lease(Duration::from_secs(10)).await?;
/// tokio::select! {
///     why = lease.lost() => println!("stopping: {why}"),
///     () = async { /* work that needs the lease */ } => {}
/// }
/// # Ok(()) }
/// ```
#[must_use = "the lease is kept alive until its keeper is dropped"]
#[derive(Debug)]
pub struct LeaseKeeper {
    id: LeaseId,
    client: Client,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct State {
    valid_until: Instant,
    /// Why it was lost.
    lost: Option<Error>,
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LeaseKeeper {
    /// Begins with the times that the shards gave when they were asked at `sent`.
    pub(super) fn start(
        client: Client,
        id: LeaseId,
        sent: Instant,
        times: BTreeMap<GroupId, Duration>,
    ) -> Self {
        let keeping = Keeping::new(Duration::ZERO, times);
        let valid_until = at(sent, keeping.valid_until());
        let (sender, state) = watch::channel(State { valid_until, lost: None });
        let keeper = client.clone();
        let task = tokio::spawn(async move {
            let kept = caught(keep(&keeper, id, sent, keeping, &sender)).await;
            let lost = kept.unwrap_or_else(|panicked| {
                let why = format!("the lease's task {panicked}; this is a bug in dkv");
                tracing::error!("{why}");
                Error::Unavailable(why)
            });
            let shards = keeper.lease_shards().await.unwrap_or_default();
            sender.send_modify(|state| state.lost = Some(lost));
            // The other shards would hold up those that wait for its keys to be deleted.
            keeper.revoke_in_background(id, shards);
        });
        Self { id, client, state, task }
    }

    /// Returns the id of the lease.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseKeeper};
    /// # async fn example(client: &Client, keeper: LeaseKeeper) -> Result<(), Error> {
    /// let here = dkv_api::WriteOptions::default().lease(keeper.id());
    /// client.write_with("service/7", "10.0.0.7:80", here).await?;
    /// # Ok(()) }
    /// ```
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Returns whether the lease is lost, or may be: it was not confirmed for as long as it lives.
    ///
    /// # Examples
    /// ```
    /// # async fn example(keeper: dkv_api::LeaseKeeper) -> Result<(), dkv_api::Error> {
    /// if keeper.is_lost() {
    ///     println!("its keys may be gone");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_lost(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Returns for how long the lease will certainly not have ended, unless somebody revokes it;
    /// zero if it is lost.
    ///
    /// # Examples
    /// ```
    /// # async fn example(keeper: dkv_api::LeaseKeeper) -> Result<(), dkv_api::Error> {
    /// println!("safe for {:?}", keeper.remaining());
    /// # Ok(()) }
    /// ```
    pub fn remaining(&self) -> Duration {
        let state = self.state.borrow();
        match state.lost {
            Some(_) => Duration::ZERO,
            None => state.valid_until.saturating_duration_since(Instant::now()),
        }
    }

    /// Waits until the lease is lost, and returns the reason. May be cancelled.
    ///
    /// # Examples
    /// ```
    /// # async fn example(keeper: dkv_api::LeaseKeeper) -> Result<(), dkv_api::Error> {
    /// println!("the lease is lost: {}", keeper.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Error {
        let mut state = self.state.clone();
        match state.wait_for(|state| state.lost.is_some()).await {
            Ok(state) => state.lost.clone().unwrap_or(Error::NoLease { lease: self.id }),
            // The runtime is shutting down.
            Err(_) => Error::Unavailable("the lease is no longer kept alive".into()),
        }
    }

    /// Ends the lease and deletes its keys; returns how many.
    ///
    /// # Errors
    /// As for [`Client::revoke_lease`].
    ///
    /// # Examples
    /// ```
    /// # async fn example(keeper: dkv_api::LeaseKeeper) -> Result<(), dkv_api::Error> {
    /// println!("{} keys are gone", keeper.revoke().await?);
    /// # Ok(()) }
    /// ```
    pub async fn revoke(self) -> Result<u64, Error> {
        self.task.abort();
        self.client.revoke_lease(self.id).await
    }
}

/// Keeps a lease alive until it is lost; returns the reason. `base` is where the times begin.
async fn keep(
    client: &Client,
    lease: LeaseId,
    base: Instant,
    mut keeping: Keeping,
    state: &watch::Sender<State>,
) -> Error {
    let mut asked = FuturesUnordered::new();
    let mut last_failure = None;
    loop {
        let valid_until = at(base, keeping.valid_until());
        state.send_modify(|state| state.valid_until = valid_until);
        let now = base.elapsed();
        if now >= keeping.valid_until() {
            let why = match last_failure {
                Some(why) => format!("the lease could not be kept alive: {why}"),
                None => "the lease was not kept alive: this process was held up".to_owned(),
            };
            return Error::Unavailable(why);
        }
        for shard in keeping.due(now) {
            let left = (keeping.valid_until() - now).max(ANSWER_MIN);
            asked.push(async move {
                (shard, base.elapsed(), client.keep_in(lease, shard, Some(left)).await)
            });
        }
        let next = keeping.next().unwrap_or(keeping.valid_until()).min(keeping.valid_until());
        tokio::select! {
            () = tokio::time::sleep_until(at(base, next)) => {}
            Some((shard, sent, answer)) = asked.next(), if !asked.is_empty() => match answer {
                // It came so late that the keeper has called the lease lost meanwhile.
                Ok(_) if base.elapsed() >= keeping.valid_until() => {}
                Ok((ttl, _)) => keeping.answered(sent, shard, ttl),
                Err(error @ (Error::NoLease { .. } | Error::Denied(_))) => return error,
                Err(error) => {
                    last_failure = Some(error.to_string());
                    keeping.failed(base.elapsed(), shard);
                }
            },
        }
    }
}

/// Returns the moment that is this long after `base`; a far one if there is none.
fn at(base: Instant, after: Duration) -> Instant {
    /// A lease of more time than this is kept alive long before.
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    base + after.min(FAR)
}
