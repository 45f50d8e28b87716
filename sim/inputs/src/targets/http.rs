//! Requests to the gateway, over a store in memory. None causes an internal error, and errors below
//! `/v1` are problem documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use dkv_api::{
    Condition, Error, GroupId, History, HistoryOptions, KeyRange, LeaseId, LeaseInfo, LeaseKeys,
    Level, Lifetime, NetworkStatus, NodeId, OperationResult, Pair, ReadOptions, Receipt, Revision,
    ScanOptions, Term, Transacted, Transaction, TransactionOperation, Unfit, Uuid, Value, ValueAt,
    WatchOptions, WriteOptions, Written,
};
use dkv_base::sync;
use dkv_gateway::{Access, App, Options, Store, WatchFeed};
use dkv_wire::limits::KEY_BYTES_MAX;
use futures::stream::{self, Stream};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::parts::{Parts, join};

pub(super) fn read(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let store = Memory::default();
        let mut parts = Parts::new(input);
        // A few requests, so that one finds what another stored.
        for _ in 0..3 {
            let Some(request) = request(&mut parts) else { return };
            let below_v1 = request.uri().path().starts_with("/v1/");
            let options =
                Options { network: "here".into(), access: Access::Anybody, extra_metrics: None };
            let app = App::new(store.clone(), options).into_router();
            let answer = app.oneshot(request).await.expect("an answer");
            let status = answer.status();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
            let kind = answer.headers().get("content-type").cloned();
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            if below_v1 && status.as_u16() >= 400 && !body.is_empty() {
                assert_eq!(kind, Some(HeaderValue::from_static("application/problem+json")));
            }
        }
    });
}

/// The next request: method, target, header fields and body. `None` if an HTTP library would refuse
/// it.
fn request(parts: &mut Parts<'_>) -> Option<Request<Body>> {
    let method = Method::from_bytes(parts.piece()?).ok()?;
    let uri = Uri::try_from(parts.piece()?).ok()?;
    let fields = parts.piece()?;
    let body = parts.piece()?;
    let mut request = Request::builder().method(method).uri(uri);
    for field in fields.split(|byte| *byte == b'\n') {
        let cut = field.iter().position(|byte| *byte == b':').unwrap_or(field.len());
        let value = field.get(cut + 1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&field[..cut]), HeaderValue::from_bytes(value))
        {
            request = request.header(name, value);
        }
    }
    request.body(Body::from(body.to_vec())).ok()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let form = "content-type: application/x-www-form-urlencoded";
    let json = "content-type: application/json";
    let pair = r#"{"encoding": "string", "data": "a"}"#;
    let set = format!(r#"[{{"key": {pair}, "value": {{"encoding": "binary", "data": "0101"}}}}]"#);
    let keys = format!("[{pair}]");
    let batch = r#"{"operations": [{"op": "put", "key": "a", "value": "b", "if": "absent"},
        {"op": "get", "key_base64": "YQ=="}, {"op": "delete", "key": "a", "if_revision": 1}]}"#;
    let transaction = r#"{"if": [{"key": "a", "value": "b", "relation": "!="}], "then": [
        {"op": "put", "key": "a", "value_base64": "YQ=="}, {"op": "increment", "key": "n", "by": -1}],
        "else": [{"op": "list", "prefix": "a", "limit": 2}]}"#;
    let requests: [[&str; 4]; 26] = [
        ["PUT", "/v1/kv/a%2Fb", "if-none-match: *", "value"],
        ["GET", "/v1/kv/a/b?consistency=eventual&max_staleness=20&at_least=1", "", ""],
        ["PUT", "/v1/kv/k", "if-match: \"1\"", "value"],
        ["DELETE", "/v1/kv/k", "if-match: \"1\"", ""],
        ["HEAD", "/v1/kv/k", "if-none-match: W/\"1\", \"2\"", ""],
        ["GET", "/v1/status", "", ""],
        ["GET", "/v1/kv?prefix=a&limit=2&values=true", "", ""],
        ["GET", "/v1/kv?after=a%2F", "accept: application/json", ""],
        ["POST", "/v1/batch", json, batch],
        ["POST", "/v1/txn", json, transaction],
        ["POST", "/v1/increment/k?by=-2", "if-match: *", ""],
        ["POST", "/v1/append/k", "", "more"],
        ["POST", "/v1/leases?ttl=5000", "", ""],
        ["PUT", "/v1/kv/k?ttl=500", "", "value"],
        ["PUT", "/v1/kv/k?lease=7", "", "value"],
        ["GET", "/v1/leases/7?limit=2", "", ""],
        ["POST", "/v1/leases/7/keep", "", ""],
        ["GET", "/v1/kv/k", "range: bytes=0-1", ""],
        ["GET", "/livez", "", ""],
        ["PUT", "/kvs/bart", form, "val=a+b%26"],
        ["GET", "/kvs/bart", "", ""],
        ["DELETE", "/kvs/bart", "", ""],
        ["PUT", "/set", json, &set],
        ["POST", "/fetch", json, &keys],
        ["GET", "/fetch", "", ""],
        ["POST", "/query", json, &keys],
    ];
    let joined =
        |requests: &[[&str; 4]]| join(requests.iter().flatten().map(|part| part.as_bytes()));
    requests.windows(3).map(joined).chain([joined(&requests[22..25])]).collect()
}

/// A store in memory. Clones share it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<MemoryState>>);

#[derive(Default)]
struct MemoryState {
    revision: u64,
    values: BTreeMap<Vec<u8>, (Bytes, Revision)>,
}

fn receipt(revision: u64, level: Level) -> Receipt {
    Receipt {
        shard: GroupId(1),
        revision: Revision(revision),
        level,
        node: NodeId(Uuid::from_u128(1)),
        term: Term(1),
        staleness_ms: Some(0),
        stamp: Default::default(),
        pending: None,
    }
}

impl Memory {
    fn change(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        condition: Condition,
    ) -> Result<Written, Error> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::Invalid("a key has 1 to 4096 bytes".into()));
        }
        let mut state = sync::lock(&self.0);
        let state = &mut *state;
        let current = state.values.get(key).map(|(_, revision)| *revision);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(revision) => current == Some(revision),
        };
        if !holds {
            return Err(Error::Conflict {
                current,
                receipt: receipt(state.revision, Level::Strong),
            });
        }
        if value.is_none() && current.is_none() {
            return Err(Error::NotFound { receipt: receipt(state.revision, Level::Strong) });
        }
        state.revision += 1;
        match value {
            Some(value) => {
                drop(state.values.insert(key.to_vec(), (value, Revision(state.revision))));
            }
            None => drop(state.values.remove(key)),
        }
        let receipt = receipt(state.revision, Level::Strong);
        Ok(Written { receipt, existed: current.is_some() })
    }
}

impl Store for Memory {
    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        let state = sync::lock(&self.0);
        match state.values.get(key) {
            Some((value, revision)) => {
                let receipt = receipt(revision.0, options.level);
                Ok(Value { value: value.clone(), receipt, reach: Default::default() })
            }
            None => Err(Error::NotFound { receipt: receipt(state.revision, options.level) }),
        }
    }

    fn acting_for(&self, _user: dkv_api::User) -> Self {
        self.clone()
    }

    async fn keyspace(&self, name: &str) -> Result<Self, Error> {
        match name {
            "default" => Ok(self.clone()),
            name => Err(Error::NoKeyspace { name: name.to_owned() }),
        }
    }

    async fn keyspaces(&self) -> Result<Vec<dkv_api::KeyspaceUse>, Error> {
        Ok(Vec::new())
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.change(key, Some(value), options.condition)
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        self.change(key, None, options.condition)
    }

    /// Executes gets and puts, and finds everything else unfit.
    async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        let mut results = Vec::new();
        for (number, operation) in transaction.operations(true).iter().enumerate() {
            results.push(match operation {
                TransactionOperation::Get(_) => OperationResult::Got(None),
                TransactionOperation::Put(key, value) => {
                    self.change(key, Some(value.clone()), Condition::Always)?;
                    let created = Revision(sync::lock(&self.0).revision);
                    OperationResult::Put { created, version: 1 }
                }
                _ => {
                    let operation = number as u32;
                    return Err(Error::Unfit { operation, why: Unfit::NotANumber });
                }
            });
        }
        let receipt = receipt(sync::lock(&self.0).revision, Level::Strong);
        let (results, parts) = (Some(results), Vec::new());
        Ok(Transacted { succeeded: true, changed: true, results, receipt, parts })
    }

    async fn grant_lease(&self, _: Duration) -> Result<LeaseId, Error> {
        Ok(LeaseId(7))
    }

    async fn refresh_lease(&self, lease: LeaseId) -> Result<Duration, Error> {
        match lease {
            LeaseId(7) => Ok(Duration::from_secs(9)),
            _ => Err(Error::NoLease { lease }),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<u64, Error> {
        self.refresh_lease(lease).await.map(|_| 0)
    }

    async fn leases(&self) -> Result<Vec<LeaseInfo>, Error> {
        self.lease(LeaseId(7)).await.map(|lease| vec![lease])
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        let ttl = self.refresh_lease(lease).await?;
        Ok(LeaseInfo { id: lease, ttl, remaining: ttl, keys: 0, missing: Vec::new() })
    }

    async fn lease_keys(&self, lease: LeaseId, _: usize) -> Result<LeaseKeys, Error> {
        self.refresh_lease(lease).await.map(|_| LeaseKeys { keys: Vec::new(), more: false })
    }

    async fn ttl(&self, _: &[u8]) -> Result<Lifetime, Error> {
        let ttl = Duration::from_secs(9);
        Ok(Lifetime::Lease { lease: LeaseId(7), ttl, remaining: ttl })
    }

    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static {
        let state = sync::lock(&self.0);
        let wanted = |key: &[u8]| key.starts_with(&options.prefix) && key > &options.after[..];
        let pairs = state.values.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| {
            let (value, revision) = value;
            let value = options.values.then(|| value.clone());
            Ok(Pair::new(key.clone().into(), *revision, value))
        });
        let limit = options.limit.map_or(usize::MAX, |limit| limit as usize);
        stream::iter(pairs.take(limit).collect::<Vec<_>>())
    }

    async fn read_at(&self, _: &[u8], revision: Revision) -> Result<ValueAt, Error> {
        let latest = Revision(sync::lock(&self.0).revision);
        Err(match revision > latest {
            true => Error::NotYet { asked: revision, latest },
            false => Error::Compacted { floor: latest },
        })
    }

    async fn history(&self, _: &[u8], _: HistoryOptions) -> Result<History, Error> {
        Err(Error::Compacted { floor: Revision(sync::lock(&self.0).revision) })
    }

    async fn watch(&self, _: KeyRange, _: WatchOptions) -> Result<WatchFeed, Error> {
        Err(Error::Compacted { floor: Revision(sync::lock(&self.0).revision) })
    }

    async fn status(&self) -> NetworkStatus {
        NetworkStatus {
            server: Err(dkv_api::StatusError::Silent("there is none".into())),
            servers: Vec::new(),
            nodes: Vec::new(),
            view: None,
            placement: None,
        }
    }
}
