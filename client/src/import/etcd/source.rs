//! The members of etcd as one source: whichever answers. A lost connection is replaced by one to
//! the next member.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_console::problem::Problem;
use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{
    AuthenticateRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, RangeRequest, RangeResponse,
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use futures::StreamExt;
use futures::channel::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status, Streaming};

use super::link::{Endpoint, Link, is_passing, tls};
use super::sum::Sum;
use super::target::first_key;
use crate::cli::ImportEtcdArgs;

/// The variable with the password, as for etcd's own client.
const PASSWORD: &str = "ETCDCTL_PASSWORD";
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How long no member may answer, before the first answer.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(5);
/// How long no member may answer later.
const PATIENCE: Duration = Duration::from_secs(600);
/// Shortest and longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Keys of the first page. Later ones have as many as come to `PAGE_BYTES`.
const PAGE_KEYS_FIRST: i64 = 32;
const PAGE_KEYS_MAX: i64 = 5000;
const PAGE_BYTES: usize = 2 << 20;

/// Why the source does not answer a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The revision is compacted.
    #[error("etcd has compacted the revision")]
    Compacted,
    /// It refuses, or no member has answered for long.
    #[error("{0}")]
    Failed(String),
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        Self::failed(error.to_string())
    }
}

/// The members.
pub(super) struct EtcdSource {
    endpoints: Vec<Endpoint>,
    /// The member that is asked next.
    next: usize,
    tls: Option<TlsConnector>,
    /// The user and the password.
    login: Option<(String, String)>,
    link: Option<Link>,
    /// The cluster to which all members must belong.
    cluster: Option<u64>,
    /// The granted times of leases, in seconds.
    ttls: HashMap<i64, i64>,
}

/// Asks a member to end a stream once it knows no leader.
const HAS_LEADER: &str = "hasleader";

/// The changes after a revision. It ends if the requests are dropped.
pub(super) struct Watching {
    answers: Streaming<WatchResponse>,
    _requests: mpsc::UnboundedSender<WatchRequest>,
}

impl Watching {
    /// Returns the next answer; `None` if the connection is lost.
    pub(super) async fn next(&mut self) -> Option<WatchResponse> {
        self.answers.message().await.ok().flatten()
    }
}

/// A page of keys.
pub(super) struct SourcePage {
    pub(super) keys: Vec<dkv_etcd::proto::mvccpb::KeyValue>,
    pub(super) more: bool,
    /// The revision of the source.
    pub(super) at: i64,
}

impl EtcdSource {
    /// Connects to the first member that answers.
    ///
    /// # Errors
    /// None does, or what is needed to connect is missing.
    pub(super) async fn open(args: &ImportEtcdArgs, shown: &str) -> Result<Self, Problem> {
        let endpoints: Option<Vec<Endpoint>> = shown.split(',').map(Endpoint::parse).collect();
        let endpoints = endpoints.ok_or_else(|| {
            // Not what was written, which may have a password.
            Problem::usage("write the members as http(s)://HOST:PORT, separated by commas")
        })?;
        let secure = endpoints.iter().filter(|endpoint| endpoint.tls).count();
        if secure != 0 && secure != endpoints.len() {
            return Err(Problem::usage("write https:// before all members, or before none"));
        }
        if secure == 0 && (args.ca.is_some() || args.cert.is_some()) {
            return Err(Problem::usage("--ca and --cert need members with https://"));
        }
        let tls = if secure > 0 { Some(tls(args).map_err(Problem::usage)?) } else { None };
        let login = match &args.user {
            Some(user) => Some((user.clone(), password(args)?)),
            None => None,
        };
        let (link, cluster, ttls) = (None, None, HashMap::new());
        let mut source = Self { endpoints, next: 0, tls, login, link, cluster, ttls };
        source.revision().await?;
        Ok(source)
    }

    /// Returns the connection, and makes one if there is none.
    async fn link(&mut self) -> Result<Link, Status> {
        if let Some(link) = &self.link {
            return Ok(link.clone());
        }
        let endpoint = &self.endpoints[self.next % self.endpoints.len()];
        self.next += 1;
        let failed = |why| Status::unavailable(format!("{}: {why}", endpoint.url()));
        let mut link = Link::connect(endpoint, self.tls.as_ref()).await.map_err(failed)?;
        if let Some((name, password)) = &self.login {
            let login = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let answer = timeout(ANSWER, link.auth().authenticate(login)).await;
            let answer = answer.map_err(|_| failed("it does not answer".into()))??;
            let token = answer.into_inner().token.parse();
            link.token = Some(token.map_err(|_| failed("its token is malformed".into()))?);
        }
        self.link = Some(link.clone());
        Ok(link)
    }

    /// Asks until a member answers.
    async fn ask<T>(
        &mut self,
        mut send: impl AsyncFnMut(Link) -> Result<Response<T>, Status>,
    ) -> Result<T, SourceError> {
        let begun = Instant::now();
        let patience = if self.cluster.is_some() { PATIENCE } else { PATIENCE_AT_FIRST };
        let mut pause = PAUSE;
        loop {
            let link = self.link().await;
            let answer = match link {
                Ok(link) => match timeout(ANSWER, send(link)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Status::unavailable("it does not answer")),
                },
                Err(status) => Err(status),
            };
            let status = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if status.code() == Code::OutOfRange && status.message().contains("compacted") {
                return Err(SourceError::Compacted);
            }
            self.link = None;
            // It may have control characters.
            let why = status.message().escape_debug();
            if !is_passing(&status) {
                return Err(SourceError::Failed(format!("etcd refuses: {why}")));
            }
            if begun.elapsed() > patience {
                return Err(SourceError::Failed(format!("etcd does not answer: {why}")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Takes the header of an answer. Returns its revision.
    fn header(&mut self, header: Option<ResponseHeader>) -> Result<i64, SourceError> {
        let header = header.unwrap_or_default();
        match self.cluster.replace(header.cluster_id) {
            Some(cluster) if cluster != header.cluster_id => {
                let why = "the members are of different clusters";
                Err(SourceError::Failed(why.into()))
            }
            _ => Ok(header.revision),
        }
    }

    async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, SourceError> {
        let ask = async |link: Link| link.kv().range(link.request(request.clone())).await;
        self.ask(ask).await
    }

    /// Returns the latest revision.
    pub(super) async fn revision(&mut self) -> Result<i64, SourceError> {
        let all = RangeRequest { count_only: true, ..everything() };
        let answer = self.range(all).await?;
        self.header(answer.header)
    }

    /// Reads a page of all keys from `from` on, as of a revision, or of the latest one if it is
    /// zero. `keys` is the number of keys, which is adjusted to their size.
    pub(super) async fn page(
        &mut self,
        from: Bytes,
        revision: i64,
        keys: &mut i64,
    ) -> Result<SourcePage, SourceError> {
        let limit = (*keys).clamp(PAGE_KEYS_FIRST, PAGE_KEYS_MAX);
        let page = RangeRequest { key: from.clone(), revision, limit, ..everything() };
        let answer = self.range(page).await?;
        let at = self.header(answer.header)?;
        let bytes: usize = answer.kvs.iter().map(|key| key.key.len() + key.value.len()).sum();
        let wanted = PAGE_BYTES.saturating_mul(answer.kvs.len()) / bytes.max(1);
        *keys = i64::try_from(wanted).unwrap_or(PAGE_KEYS_MAX).min(limit.saturating_mul(8));
        // Each page brings this further.
        let ordered = answer.kvs.is_sorted_by(|one, other| one.key < other.key);
        let first = answer.kvs.first().is_some_and(|first| first.key >= from);
        if !ordered || (!first && (answer.more || !answer.kvs.is_empty())) {
            return Err(SourceError::Failed("etcd sends keys out of order".into()));
        }
        Ok(SourcePage { keys: answer.kvs, more: answer.more, at })
    }

    /// Returns the sum of all keys as of a revision.
    pub(super) async fn sum(&mut self, revision: i64) -> Result<Sum, SourceError> {
        let (mut sum, mut from, mut keys) = (Sum::default(), first_key(), 0);
        loop {
            let page = self.page(from.clone(), revision, &mut keys).await?;
            for key in &page.keys {
                sum.add(&key.key, &key.value, key.lease);
            }
            match page.keys.last() {
                Some(last) if page.more => from = after(&last.key),
                _ => return Ok(sum),
            }
        }
    }

    /// Returns the time that a lease was granted, in seconds; `None` if it has ended.
    pub(super) async fn ttl(&mut self, id: i64) -> Result<Option<i64>, SourceError> {
        if let Some(ttl) = self.ttls.get(&id) {
            return Ok(Some(*ttl));
        }
        let ask = async |link: Link| {
            let request = LeaseTimeToLiveRequest { id, keys: false };
            link.lease().lease_time_to_live(link.request(request)).await
        };
        let answer = self.ask(ask).await?;
        let ttl = (answer.ttl >= 0).then_some(answer.granted_ttl);
        // That it has ended is not remembered: its id may be granted again.
        self.ttls.extend(ttl.map(|ttl| (id, ttl)));
        Ok(ttl)
    }

    /// Returns all leases, and the revision then.
    pub(super) async fn leases(&mut self) -> Result<(BTreeSet<i64>, i64), SourceError> {
        let ask =
            async |link: Link| link.lease().lease_leases(link.request(LeaseLeasesRequest {})).await;
        let answer = self.ask(ask).await?;
        let leases: BTreeSet<i64> = answer.leases.iter().map(|lease| lease.id).collect();
        // An id that ended may be granted again, with another time.
        self.ttls.retain(|id, _| leases.contains(id));
        Ok((leases, self.header(answer.header)?))
    }

    /// Watches all keys from a revision on.
    pub(super) async fn watch(&mut self, from: i64) -> Result<Watching, SourceError> {
        let create = WatchCreateRequest {
            key: first_key(),
            range_end: first_key(),
            start_revision: from,
            ..WatchCreateRequest::default()
        };
        let mut kept = None;
        let ask = async |link: Link| {
            let (sender, requests) = mpsc::unbounded();
            let request = Some(RequestUnion::CreateRequest(create.clone()));
            // The receiver is here.
            let _ = sender.unbounded_send(WatchRequest { request_union: request });
            kept = Some(sender);
            let mut request = link.request(requests.boxed());
            // A member that is cut off from its cluster has nothing new, and is to say so.
            request.metadata_mut().insert(HAS_LEADER, MetadataValue::from_static("true"));
            link.watch().watch(request).await
        };
        let answers = self.ask(ask).await?;
        let Some(requests) = kept else {
            return Err(SourceError::Failed("the watch was not sent".into()));
        };
        Ok(Watching { answers, _requests: requests })
    }

    /// Gives up the connection, so that the next request goes to the next member.
    pub(super) fn disconnect(&mut self) {
        self.link = None;
    }
}

/// Returns the first key after this one.
pub(super) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

fn everything() -> RangeRequest {
    RangeRequest { key: first_key(), range_end: first_key(), ..RangeRequest::default() }
}

fn password(args: &ImportEtcdArgs) -> Result<String, Problem> {
    match &args.password_file {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                let why = format!("cannot read the password from {}: {error}", file.display());
                Err(Problem::failed(why))
            }
        },
        None => dkv_base::environment::text(PASSWORD).ok_or_else(|| {
            Problem::usage(format!("--user needs a password, in {PASSWORD} or --password-file"))
        }),
    }
}
