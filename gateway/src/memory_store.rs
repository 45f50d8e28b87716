//! An in-memory store, for tests.

mod leases;
mod transact;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use dkv_api::{
    Attach, Condition, DEFAULT_KEYSPACE, Error, GroupId, History, HistoryOptions, KeyChange,
    KeyRange, KeyspaceId, KeyspaceInfo, KeyspaceSettings, KeyspaceUse, LeaseId, LeaseInfo,
    LeaseKeys, Level, Lifetime, NetworkStatus, NodeId, Number, Pair, ReadOptions, Receipt,
    Revision, ScanOptions, Stamp, StatusError, Term, Transacted, Transaction, Uuid, Value, ValueAt,
    Version, WatchEvent, WatchOptions, WatchToken, WriteOptions, Written,
};
use futures::stream::{self, Stream, StreamExt};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::store::{Store, WatchFeed};

/// The store. Clones share their content.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    revision: u64,
    values: BTreeMap<Vec<u8>, (Bytes, u64)>,
    /// All changes since the floor.
    changes: Vec<(Vec<u8>, Version)>,
    floor: u64,
    leases: BTreeMap<LeaseId, Duration>,
    attached: BTreeMap<Vec<u8>, Attach>,
    failure: Option<Error>,
    /// The last event of each watch.
    watch_end: Option<Error>,
    /// Other keyspaces.
    others: BTreeMap<String, MemoryStore>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl TestResponse {
    /// Returns a header field; empty if it is missing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request to a gateway of the store.
pub(crate) async fn ask(store: &MemoryStore, request: Request<Body>) -> TestResponse {
    let access = crate::Access::Anybody;
    let options = crate::Options { network: "here".into(), access, extra_metrics: None };
    let answer = crate::App::new(store.clone(), options).router.oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    TestResponse { status: parts.status, headers: parts.headers, body }
}

impl MemoryStore {
    /// Creates a keyspace.
    pub(crate) fn create(&self, name: &str) {
        self.inner.lock().unwrap().others.insert(name.into(), Self::default());
    }

    /// Makes every request fail with this error from now on.
    pub(crate) fn fail_with(&self, error: Error) {
        self.inner.lock().unwrap().failure = Some(error);
    }

    /// Lets requests succeed again.
    pub(crate) fn recover(&self) {
        self.inner.lock().unwrap().failure = None;
    }

    /// Returns a receipt of the latest revision.
    pub(crate) fn receipt(&self, _: Condition) -> Receipt {
        receipt(self.inner.lock().unwrap().revision, Level::Strong)
    }

    /// Lets each watch end with this error from now on.
    pub(crate) fn end_watches_with(&self, error: Error) {
        self.inner.lock().unwrap().watch_end = Some(error);
    }

    /// Forgets the history before a revision.
    pub(crate) fn compact(&self, floor: u64) {
        self.inner.lock().unwrap().floor = floor;
    }

    fn change(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let inner = &mut *self.inner.lock().unwrap();
        check(inner, key)?;
        leases::check_attach(inner, options.attach)?;
        if options.level == Level::Eventual {
            if options.condition != Condition::Always {
                return Err(Error::Invalid("no condition".into()));
            }
            // This store never orders it.
            let (pending, revision) = (Some(Number(7)), 0);
            let receipt = Receipt { pending, ..receipt(revision, Level::Eventual) };
            return Ok(Written { receipt, existed: false });
        }
        let current = inner.values.get(key).map(|(_, revision)| Revision(*revision));
        let holds = match options.condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(revision) => current == Some(revision),
        };
        if !holds {
            let receipt = receipt(inner.revision, Level::Strong);
            return Err(Error::Conflict { current, receipt });
        }
        if value.is_none() && current.is_none() {
            return Err(Error::NotFound { receipt: receipt(inner.revision, Level::Strong) });
        }
        inner.revision += 1;
        let changed = Version {
            revision: Revision(inner.revision),
            created: Revision(inner.revision),
            version: 1,
            stamp: Stamp::default(),
            value: value.clone(),
            lease: LeaseId::default(),
            expiry: None,
        };
        inner.changes.push((key.to_vec(), changed));
        inner.attached.remove(key);
        inner.attached.extend(options.attach.map(|attach| (key.to_vec(), attach)));
        match value {
            Some(value) => drop(inner.values.insert(key.to_vec(), (value, inner.revision))),
            None => drop(inner.values.remove(key)),
        }
        let receipt = receipt(inner.revision, options.level);
        if options.level == Level::All && key == b"not everywhere" {
            let written = Written { receipt, existed: current.is_some() };
            return Err(Error::Incomplete { written, missing: vec!["n3".into()] });
        }
        Ok(Written { receipt, existed: current.is_some() })
    }
}

impl Store for MemoryStore {
    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, key)?;
        // An eventual read with bounds meets a replica that is behind.
        let bounded = options.at_least.is_some_and(|least| least.0 > inner.revision)
            || options.max_staleness.is_some_and(|most| most.as_millis() < 40);
        let level = if bounded { Level::Strong } else { options.level };
        match inner.values.get(key) {
            Some((value, revision)) => {
                let (value, receipt) = (value.clone(), receipt(*revision, level));
                Ok(Value { value, receipt, reach: Default::default() })
            }
            None => Err(Error::NotFound { receipt: receipt(inner.revision, level) }),
        }
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.change(key, Some(value), options)
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        self.change(key, None, options)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.grant(ttl)
    }

    async fn refresh_lease(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.info(lease).map(|info| info.ttl)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<u64, Error> {
        self.revoke(lease).await
    }

    async fn leases(&self) -> Result<Vec<LeaseInfo>, Error> {
        self.infos()
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        self.info(lease)
    }

    async fn lease_keys(&self, lease: LeaseId, limit: usize) -> Result<LeaseKeys, Error> {
        self.keys_of(lease, limit)
    }

    async fn ttl(&self, key: &[u8]) -> Result<Lifetime, Error> {
        Ok(self.lifetime(key))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        let inner = &mut *self.inner.lock().unwrap();
        let mut operations = transaction.operations(true).iter();
        operations.try_for_each(|operation| check(inner, operation.first_key()))?;
        transact::execute(inner, &transaction)
    }

    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static {
        let inner = self.inner.lock().unwrap();
        let pairs: Vec<Result<Pair, Error>> = match &inner.failure {
            Some(error) => vec![Err(error.clone())],
            None => inner
                .values
                .iter()
                .filter(|(key, _)| {
                    key.starts_with(&options.prefix) && key.as_slice() > &options.after[..]
                })
                .take(options.limit.unwrap_or(u64::MAX) as usize)
                .map(|(key, (value, revision))| {
                    let value = options.values.then(|| value.clone());
                    Ok(Pair::new(key.clone().into(), Revision(*revision), value))
                })
                .collect(),
        };
        stream::iter(pairs)
    }

    async fn read_at(&self, key: &[u8], revision: Revision) -> Result<ValueAt, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, key)?;
        check_revision(&inner, revision)?;
        let mut versions = inner
            .changes
            .iter()
            .rev()
            .filter(|(changed, version)| changed == key && version.revision <= revision);
        let receipt = receipt(revision.0, Level::Strong);
        match versions.next() {
            Some((_, Version { revision, created, version, stamp, value: Some(value), .. })) => {
                Ok(ValueAt {
                    value: value.clone(),
                    revision: *revision,
                    created: *created,
                    version: *version,
                    stamp: *stamp,
                    receipt,
                })
            }
            _ => Err(Error::NotFound { receipt }),
        }
    }

    fn acting_for(&self, _user: dkv_api::User) -> Self {
        self.clone()
    }

    async fn keyspace(&self, name: &str) -> Result<Self, Error> {
        let known = self.inner.lock().unwrap().others.get(name).cloned();
        match known {
            Some(store) => Ok(store),
            None if name == DEFAULT_KEYSPACE => Ok(self.clone()),
            None => Err(Error::NoKeyspace { name: name.to_owned() }),
        }
    }

    async fn keyspaces(&self) -> Result<Vec<KeyspaceUse>, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, b"any")?;
        let names = inner.others.keys().map(String::as_str);
        let names = std::iter::once(DEFAULT_KEYSPACE).chain(names);
        let of = |(id, name): (u32, &str)| KeyspaceUse {
            keyspace: KeyspaceInfo {
                id: KeyspaceId(id),
                name: name.to_owned(),
                settings: KeyspaceSettings::default(),
            },
            shards_led: 1,
            bytes: 17,
        };
        Ok((0..).zip(names).map(of).collect())
    }

    async fn history(&self, key: &[u8], options: HistoryOptions) -> Result<History, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, key)?;
        let versions = inner.changes.iter().rev().filter(|(changed, version)| {
            changed == key && options.before.is_none_or(|before| version.revision < before)
        });
        let mut versions: Vec<_> = versions.map(|(_, version)| version.clone()).collect();
        let limit = options.limit.unwrap_or(usize::MAX);
        let more = versions.len() > limit;
        versions.truncate(limit);
        Ok(History { versions, more, floor: Revision(inner.floor), shard: GroupId(1) })
    }

    /// Shows what has changed by now, and ends.
    async fn watch(&self, keys: KeyRange, options: WatchOptions) -> Result<WatchFeed, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, b"")?;
        let token = |revision: Revision| format!("1:{revision}").parse::<WatchToken>().unwrap();
        let from = options.from.and_then(|from| from.revision(GroupId(1)));
        let from = from.unwrap_or(Revision(inner.revision));
        if let Err(error) = check_revision(&inner, from) {
            let events = stream::iter([Err(error)]).boxed();
            return Ok(WatchFeed { token: token(from), events });
        }
        let changes = inner.changes.iter().filter(|(key, version)| {
            let is_watched = match &keys {
                KeyRange::Key(watched) => key == watched,
                KeyRange::Prefix(prefix) => key.starts_with(prefix),
                KeyRange::Range(..) => false,
            };
            is_watched && version.revision > from
        });
        let events: Vec<_> = changes
            .map(|(key, version)| {
                let Version { revision, created, version, stamp, value, lease, expiry } =
                    version.clone();
                let change = KeyChange {
                    shard: GroupId(1),
                    key: key.clone().into(),
                    value,
                    revision,
                    created,
                    version,
                    stamp,
                    lease,
                    expiry,
                    previous: None,
                };
                Ok((WatchEvent::Change(Box::new(change)), token(revision)))
            })
            .chain(inner.watch_end.clone().map(Err))
            .collect();
        Ok(WatchFeed { token: token(from), events: stream::iter(events).boxed() })
    }

    async fn status(&self) -> NetworkStatus {
        NetworkStatus {
            servers: Vec::new(),
            server: Err(StatusError::Silent("no server".into())),
            nodes: Vec::new(),
            view: None,
            placement: None,
        }
    }
}

fn check(inner: &Inner, key: &[u8]) -> Result<(), Error> {
    let limit = dkv_wire::limits::KEY_BYTES_MAX;
    if key.len() > limit {
        let (bytes, limit) = (key.len() as u64, limit as u64);
        return Err(Error::TooLarge { what: "key".into(), bytes, limit });
    }
    inner.failure.clone().map_or(Ok(()), Err)
}

fn check_revision(inner: &Inner, asked: Revision) -> Result<(), Error> {
    let (floor, latest) = (Revision(inner.floor), Revision(inner.revision));
    if asked < floor {
        return Err(Error::Compacted { floor });
    }
    if asked > latest { Err(Error::NotYet { asked, latest }) } else { Ok(()) }
}

fn receipt(revision: u64, level: Level) -> Receipt {
    let staleness_ms = Some(if level == Level::Strong { 0 } else { 40 });
    Receipt {
        shard: GroupId(1),
        revision: Revision(revision),
        level,
        node: NodeId(Uuid::from_u128(1)),
        term: Term(2),
        stamp: Default::default(),
        pending: None,
        staleness_ms,
    }
}
