//! A place in a line. Each contender has a key of its own, which the network deletes when the
//! contender's lease ends. The contender whose key has the lowest revision is first.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision};
use dkv_wire::message::{Condition, KeyRange, Pair, Relation};

use super::shard_keys::{self, Listed};
use crate::client::Client;
use crate::error::Error;
use crate::lease::LeaseKeeper;
use crate::options::WriteOptions;
use crate::transaction::Compare;
use crate::watch::{WatchEvent, WatchOptions};

/// Pause after a failure, while the lease is kept alive.
const PAUSE: Duration = Duration::from_millis(100);

/// A place in the line of a name. Dropping it leaves the line, in the background.
#[derive(Debug)]
pub(super) struct Place {
    client: Client,
    /// `None` once the place was left.
    keeper: Option<LeaseKeeper>,
    lease: LeaseId,
    /// What the keys of the line begin with.
    prefix: Bytes,
    shard: GroupId,
    key: Bytes,
    /// The revision of the write that took the place.
    revision: Revision,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (Some(keeper), Ok(runtime)) =
            (self.keeper.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // If this fails, the lease ends by itself.
        runtime.spawn(async move { keeper.revoke().await.map(drop) });
    }
}

/// Returns what the keys of a line begin with.
///
/// # Errors
/// The name is empty.
pub(super) fn prefix_of(name: &[u8]) -> Result<Bytes, Error> {
    if name.is_empty() {
        return Err(Error::Invalid("a name has at least one byte".into()));
    }
    Ok([name, b"/"].concat().into())
}

/// Lists the contenders in a line, first to last.
///
/// # Errors
/// [`Error::Unavailable`].
pub(super) async fn contenders(
    client: &Client,
    shard: GroupId,
    prefix: &Bytes,
) -> Result<Listed, Error> {
    let mut listed = shard_keys::list(client, shard, prefix, Bytes::new(), usize::MAX).await?;
    listed.pairs.sort_by_key(|pair| pair.revision);
    Ok(listed)
}

impl Place {
    /// Takes the last place in the line of a name, with a value that others can see.
    pub(super) async fn take(
        client: &Client,
        name: &[u8],
        value: Bytes,
        ttl: Duration,
    ) -> Result<Self, Error> {
        let prefix = prefix_of(name)?;
        let view = client.view().await?;
        let keeper = client.hold_lease_of_recipe(ttl).await?;
        let lease = keeper.id();
        let stem = [prefix.as_ref(), lease.to_string().as_bytes()].concat();
        let (shard, key) = shard_keys::key_beside(client, &view, name, &stem)?;
        // From here on, whatever happens the lease is revoked.
        let mut place = Self {
            client: client.clone(),
            keeper: Some(keeper),
            lease,
            prefix,
            shard,
            key,
            revision: Revision(0),
        };
        let options = WriteOptions::from(Condition::Absent).lease(lease);
        let written = client.write_with(&place.key, value, options).await;
        place.revision = written.map_err(not_in_line)?.receipt.revision;
        Ok(place)
    }

    /// Returns whether this place is the first one.
    pub(super) async fn is_first(&self) -> Result<bool, Error> {
        let listed = contenders(&self.client, self.shard, &self.prefix).await?;
        self.before(&listed.pairs).map(|before| before.is_none())
    }

    /// Waits until this place is the first one.
    ///
    /// # Errors
    /// The lease was lost meanwhile.
    pub(super) async fn wait(&self) -> Result<(), Error> {
        tokio::select! {
            biased;
            lost = self.lost() => Err(lost),
            turn = self.turn() => turn,
        }?;
        match self.is_lost() {
            true => Err(Error::NoLease { lease: self.lease }),
            false => Ok(()),
        }
    }

    async fn turn(&self) -> Result<(), Error> {
        loop {
            let failed = match contenders(&self.client, self.shard, &self.prefix).await {
                Ok(listed) => match self.before(&listed.pairs)? {
                    None => return Ok(()),
                    Some(before) => {
                        let key = before.key.clone();
                        self.gone(key, listed.revision).await
                    }
                },
                Err(error) => Err(error),
            };
            match failed {
                Ok(()) => {}
                Err(error @ (Error::Denied(_) | Error::Invalid(_))) => return Err(error),
                // The lease says for how long to go on.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Waits until a key is deleted, after a revision.
    async fn gone(&self, key: Bytes, after: Revision) -> Result<(), Error> {
        let options = WatchOptions::default().from(after);
        let mut watch = self.client.watch(KeyRange::Key(key), options).await?;
        loop {
            if let WatchEvent::Change(change) = watch.next().await?
                && change.value.is_none()
            {
                return Ok(());
            }
        }
    }

    /// Returns the contender just before this place.
    fn before<'a>(&self, pairs: &'a [Pair]) -> Result<Option<&'a Pair>, Error> {
        match pairs.iter().position(|pair| pair.key == self.key) {
            Some(index) => Ok(index.checked_sub(1).and_then(|before| pairs.get(before))),
            // A client has deleted the key, or ended the lease.
            None => Err(Error::NoLease { lease: self.lease }),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Returns a condition that holds as long as the place is not lost.
    pub(super) fn condition(&self) -> Compare {
        Compare::created(&self.key, Relation::Equal, self.revision)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.keeper.as_ref().is_none_or(LeaseKeeper::is_lost)
    }

    /// Waits until the place is lost; returns the reason.
    pub(super) async fn lost(&self) -> Error {
        match &self.keeper {
            Some(keeper) => keeper.lost().await,
            None => Error::NoLease { lease: self.lease },
        }
    }

    /// Leaves the line.
    ///
    /// # Errors
    /// It could not be confirmed in time; the lease ends by itself then.
    pub(super) async fn leave(mut self) -> Result<(), Error> {
        match self.keeper.take().map(LeaseKeeper::revoke) {
            Some(revoked) => match revoked.await {
                // It has ended already.
                Ok(_) | Err(Error::NoLease { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }
}

/// A place that may have been taken is left again, so nothing has happened.
fn not_in_line(error: Error) -> Error {
    match error {
        Error::Unknown(why) => Error::Unavailable(why),
        other => other,
    }
}
