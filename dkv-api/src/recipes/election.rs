//! An election: a lock whose holder everybody can find.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision};
use dkv_wire::message::KeyRange;

use super::line::{Place, contenders, prefix_of};
use crate::client::Client;
use crate::error::Error;
use crate::transaction::Compare;
use crate::watch::{WatchEvent, WatchOptions};

/// Who leads; see [`leader`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// if let Some(leader) = dkv_api::recipes::leader(client, "election/scheduler").await? {
///     println!("{:?} in term {}", leader.value, leader.term);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// What it said of itself, such as its address.
    pub value: Bytes,
    /// A number that grows with each leader.
    pub term: Revision,
}

/// The leadership that an election was won with.
///
/// It promises what a [`Lock`](super::Lock) does: there is one leader at a time, except for one
/// that is paused, whose [`condition`](Self::condition) and [`term`](Self::term) make it harmless.
/// Candidates are elected in the order in which they came. Dropping it resigns, in the background.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::recipes::Leadership;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let ttl = Duration::from_secs(5);
/// let leads = Leadership::campaign(client, "election/scheduler", "10.0.0.7:80", ttl).await?;
/// tokio::select! {
///     why = leads.lost() => println!("no longer the leader: {why}"),
///     () = async { /* lead */ } => leads.resign().await?,
/// }
/// # Ok(()) }
/// ```
#[must_use = "a leadership is given up when it is dropped"]
#[derive(Debug)]
pub struct Leadership {
    place: Place,
}

impl Leadership {
    /// Stands in an election, with a value that others can see, and waits until it is won. May be
    /// cancelled, and then stands no more.
    ///
    /// # Errors
    /// As for [`Lock::acquire`](super::Lock::acquire).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::recipes::Leadership;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let ttl = Duration::from_secs(5);
    /// let leads = Leadership::campaign(client, "election/scheduler", "10.0.0.7:80", ttl).await?;
    /// println!("leader of term {}", leads.term());
    /// # Ok(()) }
    /// ```
    pub async fn campaign(
        client: &Client,
        name: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Self, Error> {
        let place = Place::take(client, name.as_ref(), value.into(), ttl).await?;
        place.wait().await?;
        Ok(Self { place })
    }

    /// Returns a number that is greater than that of every leader before this one.
    ///
    /// # Examples
    /// ```
    /// # async fn example(leads: dkv_api::recipes::Leadership) -> Result<(), dkv_api::Error> {
    /// println!("leader of term {}", leads.term());
    /// # Ok(()) }
    /// ```
    pub fn term(&self) -> Revision {
        self.place.revision()
    }

    /// Returns the lease of the leadership, for keys to delete with it.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::Leadership};
    /// # async fn example(client: &Client, leads: Leadership) -> Result<(), Error> {
    /// let here = dkv_api::WriteOptions::default().lease(leads.lease());
    /// client.write_with("leader/address", "10.0.0.7:80", here).await?;
    /// # Ok(()) }
    /// ```
    pub fn lease(&self) -> LeaseId {
        self.place.lease()
    }

    /// Returns a condition for transactions, which holds only as long as the leadership.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::Leadership};
    /// # async fn example(client: &Client, leads: Leadership) -> Result<(), Error> {
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// let step = Transaction::new()
    ///     .when(leads.condition())
    ///     .then(TransactionOperation::put("step", "2"));
    /// assert!(client.transact(step).await?.succeeded);
    /// # Ok(()) }
    /// ```
    pub fn condition(&self) -> Compare {
        self.place.condition()
    }

    /// Returns whether the leadership is lost, or may be.
    ///
    /// # Examples
    /// ```
    /// # async fn example(leads: dkv_api::recipes::Leadership) -> Result<(), dkv_api::Error> {
    /// while !leads.is_lost() {
    ///     // Do a little.
    /// #     break;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_lost(&self) -> bool {
        self.place.is_lost()
    }

    /// Waits until the leadership is lost; returns the reason. May be cancelled.
    ///
    /// # Examples
    /// ```
    /// # async fn example(leads: dkv_api::recipes::Leadership) -> Result<(), dkv_api::Error> {
    /// println!("no longer the leader: {}", leads.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Error {
        self.place.lost().await
    }

    /// Resigns; the next candidate is elected.
    ///
    /// # Errors
    /// As for [`Lock::release`](super::Lock::release).
    ///
    /// # Examples
    /// ```
    /// # async fn example(leads: dkv_api::recipes::Leadership) -> Result<(), dkv_api::Error> {
    /// leads.resign().await?;
    /// # Ok(()) }
    /// ```
    pub async fn resign(self) -> Result<(), Error> {
        self.place.leave().await
    }
}

/// Returns who leads, if anybody does: as of a moment after this call began.
///
/// # Errors
/// [`Error::Unavailable`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// println!("{:?}", dkv_api::recipes::leader(client, "election/scheduler").await?);
/// # Ok(()) }
/// ```
pub async fn leader(client: &Client, name: impl AsRef<[u8]>) -> Result<Option<Leader>, Error> {
    let elections = Elections::new(client, name.as_ref()).await?;
    Ok(elections.present().await?.map(|(leader, ..)| leader))
}

/// The leaders of an election, one after the other.
///
/// It shows each leader that it meets once. One that was elected and gone between two looks may be
/// missing.
///
/// # Examples
/// ```
/// use dkv_api::recipes::Elections;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let mut elections = Elections::new(client, "election/scheduler").await?;
/// loop {
///     match elections.next().await? {
///         Some(leader) => println!("{:?} leads", leader.value),
///         None => println!("nobody leads"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Elections {
    client: Client,
    prefix: Bytes,
    shard: GroupId,
    /// The leader that was shown last.
    shown: Option<Option<Leader>>,
}

impl Elections {
    /// Begins to follow an election.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the network has no shards yet.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::recipes::Elections;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let elections = Elections::new(client, "election/scheduler").await?;
    /// # Ok(()) }
    /// ```
    pub async fn new(client: &Client, name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let name = name.as_ref();
        let prefix = prefix_of(name)?;
        let view = client.view().await?;
        let shard = client.shard_of(&view, name)?.group;
        Ok(Self { client: client.clone(), prefix, shard, shown: None })
    }

    /// Returns the present leader, then waits for each next one; `None` if no candidate leads. May
    /// be cancelled.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; it may be called again then.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Error, recipes::Elections};
    /// # async fn example(mut elections: Elections) -> Result<(), Error> {
    /// println!("{:?}", elections.next().await?);
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        loop {
            // Begun before the look, so that no change falls between the two.
            let present = self.present().await?;
            let leader = present.as_ref().map(|(leader, ..)| leader.clone());
            if self.shown.as_ref() != Some(&leader) {
                self.shown = Some(leader.clone());
                return Ok(leader);
            }
            let changed = match present {
                Some((_, key, revision)) => {
                    let options = WatchOptions::default().from(revision);
                    let mut watch = self.client.watch(KeyRange::Key(key), options).await?;
                    next_change(&mut watch).await
                }
                None => {
                    let keys = KeyRange::Prefix(self.prefix.clone());
                    let mut watch = self.client.watch(keys, WatchOptions::default()).await?;
                    match self.present().await? {
                        Some(_) => Ok(()),
                        None => next_change(&mut watch).await,
                    }
                }
            };
            match changed {
                // The look that follows shows what has happened.
                Ok(()) | Err(Error::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the present leader, its key, and a revision as of which it is.
    async fn present(&self) -> Result<Option<(Leader, Bytes, Revision)>, Error> {
        let listed = contenders(&self.client, self.shard, &self.prefix).await?;
        let revision = listed.revision;
        Ok(listed.pairs.into_iter().next().map(|pair| {
            let value = pair.value.unwrap_or_default();
            (Leader { value, term: pair.revision }, pair.key, revision)
        }))
    }
}

async fn next_change(watch: &mut crate::watch::Watch) -> Result<(), Error> {
    loop {
        if let WatchEvent::Change(_) = watch.next().await? {
            return Ok(());
        }
    }
}
