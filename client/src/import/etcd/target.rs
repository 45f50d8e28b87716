//! The keyspace that is imported into.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{
    Attach, Client, Error, KeyRange, LeaseId, RangeOptions, RangePage, RangeRequest, Revision,
    Role, Transaction, TransactionOperation,
};
use dkv_console::problem::{Failure, Problem};
use dkv_console::quote::escaped;
use dkv_console::units::{number, plural};
use dkv_wire::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::leases::Leases;
use super::sum::Sum;
use super::touched::Touched;
use crate::api_problems::{partial_problem, request_problem};
use crate::store::Store;

/// How long a change is retried while the network is unavailable.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Most changes in one list of a transaction.
const LIST_MAX: usize = 100;
/// Most changes in one transaction, nested lists included.
const CHANGES_MAX: usize = 1900;
/// Most bytes of keys and values in one transaction, beyond its first change.
const BYTES_MAX: usize = 16 << 20;

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Bytes,
    /// The value and the lease, which is zero for none; `None` if the key is deleted.
    pub(super) put: Option<(Bytes, i64)>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.key.len() + self.put.as_ref().map_or(0, |(value, _)| value.len())
    }
}

/// The keyspace.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) leases: Leases,
    /// Whether it had no keys before the import.
    pub(super) is_fresh: bool,
    /// Whether something was changed, or may have been.
    pub(super) touched: Touched,
}

impl Target {
    /// Opens a keyspace with one shard, and creates it if there is none.
    ///
    /// # Errors
    /// It has several shards, or keys although this does not go on.
    pub(super) async fn open(store: &impl Store, name: &str, go_on: bool) -> Result<Self, Problem> {
        let failed = |error: Error| request_problem(&error);
        let touched = Touched::default();
        let client = store.client(Role::Client).await?;
        let client = match client.keyspace(name).await {
            Err(Error::NoKeyspace { .. }) => {
                let admin = store.client(Role::Admin).await?;
                let settings = dkv_etcd::keyspace_settings();
                let created = admin.create_keyspace(name, settings).await;
                created.map_err(|error| {
                    request_problem(&error).prefixed(&format!("cannot create keyspace {name}: "))
                })?;
                touched.set();
                let opened = client.keyspace(name).await;
                opened.map_err(|error| touched.told(partial_problem(&error), name))?
            }
            found => found.map_err(failed)?,
        };
        let failed = |error: Error| touched.told(partial_problem(&error), name);
        let view = client.view().await.map_err(failed)?;
        let shards = view.shards_of(client.keyspace_id()).len();
        if shards != 1 {
            let why = format!(
                "keyspace {name} has {shards} shards, and etcd's keys need one with a single \
                 shard; name another with --keyspace"
            );
            return Err(Problem::usage(why));
        }
        let count = RangeRequest::new(everything()).counted(true);
        let count = client.range(count).await.map_err(failed)?.1.count;
        if count > 0 && !go_on {
            let why = format!(
                "keyspace {name} has {} {} already; nothing was stored; --continue makes it equal \
                 to etcd, and --keyspace names another one",
                number(count),
                plural(count, "key", "keys")
            );
            return Err(Problem::new(Failure::Conflict, why));
        }
        let leases = Leases::new(touched.clone());
        Ok(Self { client, leases, is_fresh: count == 0, touched })
    }

    /// Executes changes of different keys: in one transaction, if they fit one.
    pub(super) async fn apply(&self, changes: &[Change]) -> Result<(), Problem> {
        let mut rest = changes;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(CHANGES_MAX).take_while(|change| {
                let is_first = bytes == 0;
                bytes += change.bytes();
                is_first || bytes <= BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count());
            self.transact(now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn transact(&self, changes: &[Change]) -> Result<(), Problem> {
        let begun = Instant::now();
        self.touched.set();
        loop {
            let transaction = match changes.len() {
                ..=LIST_MAX => list(changes),
                _ => changes.chunks(LIST_MAX).fold(Transaction::new(), |all, part| {
                    all.then(TransactionOperation::nested(list(part)))
                }),
            };
            match self.client.transact(transaction).await {
                Ok(_) => return Ok(()),
                // To store the same once more does no harm.
                Err(error)
                    if (error.is_retryable() || error.may_have_had_effect())
                        && begun.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(partial_problem(&error)),
            }
        }
    }

    /// Returns a page of keys from `from` on up to `last`, or up to the last of all.
    pub(super) async fn page(
        &self,
        from: &Bytes,
        last: Option<&Bytes>,
        after: &Bytes,
        at: Option<Revision>,
    ) -> Result<RangePage, Problem> {
        // Empty means that there is no end.
        let end = last.map_or_else(Bytes::new, |last| [last, &[0][..]].concat().into());
        let options = RangeOptions { at, ..RangeOptions::default() };
        let begun = Instant::now();
        loop {
            let request = RangeRequest::new(KeyRange::Range(from.clone(), end.clone()));
            match self.client.range(request.options(options).after(after.clone())).await {
                Ok((_, page)) => return Ok(page),
                Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(partial_problem(&error)),
            }
        }
    }

    /// Returns the sum of all keys as they are now, and the revision that is.
    pub(super) async fn sum(&self) -> Result<(Sum, Revision), Problem> {
        let (mut sum, mut after, mut at) = (Sum::default(), Bytes::new(), None);
        loop {
            let page = self.page(&first_key(), None, &after, at).await?;
            at = Some(page.at);
            for (key, version) in page.keys {
                let value = version.value.unwrap_or_default();
                sum.add(&key, &value, version.lease.0 as i64);
                after = key;
            }
            if !page.more {
                return Ok((sum, page.at));
            }
        }
    }

    /// Deletes the keys that shall not be kept.
    pub(super) async fn delete_others(
        &self,
        is_kept: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Problem> {
        let mut after = Bytes::new();
        loop {
            let page = self.page(&first_key(), None, &after, None).await?;
            let Some((last, _)) = page.keys.last() else { return Ok(()) };
            after = last.clone();
            let others = page.keys.iter().filter(|(key, _)| !is_kept(key));
            let others: Vec<Change> =
                others.map(|(key, _)| Change { key: key.clone(), put: None }).collect();
            self.apply(&others).await?;
            if !page.more {
                return Ok(());
            }
        }
    }
}

/// Returns the first key that there can be.
pub(super) fn first_key() -> Bytes {
    Bytes::from_static(&[0])
}

fn everything() -> KeyRange {
    KeyRange::Range(first_key(), Bytes::new())
}

fn list(changes: &[Change]) -> Transaction {
    changes.iter().fold(Transaction::new(), |all, Change { key, put }| {
        all.then(match put {
            None => TransactionOperation::delete(key),
            Some((value, 0)) => TransactionOperation::put(key, value.clone()),
            Some((value, lease)) => {
                let lease = LeaseId(u64::try_from(*lease).unwrap_or_default());
                TransactionOperation::put_attached(key, value.clone(), Attach::Lease(lease))
            }
        })
    })
}

/// Checks that a key of etcd and its value can be those of dkv.
pub(super) fn check_pair(key: &[u8], value: &[u8]) -> Result<(), Problem> {
    check_key(key)?;
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let start = escaped(&key[..key.len().min(64)]);
    Err(Problem::failed(format!(
        "the value of the key that begins with {start} has {} bytes; those of dkv have at most \
         {VALUE_BYTES_MAX}",
        value.len()
    )))
}

/// Checks that a key of etcd can be one of dkv.
pub(super) fn check_key(key: &[u8]) -> Result<(), Problem> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let start = escaped(&key[..64]);
    Err(Problem::failed(format!(
        "the key that begins with {start} has {} bytes; those of dkv have at most {KEY_BYTES_MAX}",
        key.len()
    )))
}
