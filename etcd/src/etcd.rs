//! The face without its shells: the keyspace behind it, and what all services share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use dkv_api::{
    Client, ClientBuilder, Error, HistoryOptions, KeyspaceSettings, NodeId, Receipt, Revision,
    Role, Term, WatchOptions,
};
use dkv_base::sync::{lock, read, write};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info};

use crate::access::tokens::TokenKind;
use crate::access::{Auth, Shared};
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::hub::Hubs;
use crate::identity::{cluster_id, member_id};
use crate::limits::{
    HISTORY_AGE, HISTORY_BYTES, LEADER_KNOWN_FOR, LEADER_TIMEOUT, WATCH_ROOM_BYTES,
};
use crate::metrics::Metrics;
use crate::proto::etcdserverpb::ResponseHeader;

/// The messages of a caller's stream.
pub type Requests<T> = BoxStream<'static, Result<T, EtcdError>>;
/// The messages of an answer that is a stream. It ends after an error.
pub type Answers<T> = BoxStream<'static, Result<T, EtcdError>>;

/// Sends the messages of an answer.
pub(crate) type AnswerSender<T> = mpsc::Sender<Result<T, EtcdError>>;

/// Returns what a task sends. The task ends when the answers are dropped. Up to `waiting` answers
/// wait for their reader.
pub(crate) fn answers_of<T, F>(
    waiting: usize,
    task: impl FnOnce(AnswerSender<T>) -> F,
) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(waiting);
    let mut tasks = JoinSet::new();
    tasks.spawn(task(sender));
    stream::unfold((receiver, tasks), |(mut receiver, mut tasks)| async move {
        let answer = match receiver.recv().await {
            Some(answer) => answer,
            None => Err(panicked(&tasks.join_next().await?.err()?)?),
        };
        Some((answer, (receiver, tasks)))
    })
    .boxed()
}

/// Returns the error that ends a stream whose task has panicked; `None` if it was aborted. A stream
/// that stood still instead would look like one without news.
pub(crate) fn panicked(error: &JoinError) -> Option<EtcdError> {
    if !error.is_panic() {
        return None;
    }
    let why = "the task of a stream panicked; this is a bug in dkv";
    tracing::error!("{why}");
    Some(EtcdError::new(Code::Internal, format!("etcdserver: {why}")))
}

/// The options of a face, beside its client.
#[derive(Clone)]
pub struct Options {
    /// Name of the keyspace, which has one shard. It is created at the first use.
    pub keyspace: String,
    /// URLs at which clients reach the faces of this network, which the list of members shows.
    pub client_urls: Vec<String>,
    /// Time without events after which a watch that asks for progress gets it.
    pub progress_every: Duration,
    /// How to connect as an administrator, who creates the keyspace if the client may not.
    pub founder: Option<ClientBuilder>,
    /// How users' tokens are made.
    pub tokens: TokenKind,
}

/// etcd's interface over a network. Cloning is cheap; clones share everything.
#[derive(Clone)]
pub struct Etcd {
    inner: Arc<Inner>,
}

struct Inner {
    /// The client, of whichever keyspace.
    client: Client,
    options: Options,
    /// The client of the keyspace, once that is known to exist.
    store: RwLock<Option<Client>>,
    /// Held while the keyspace is looked up or created.
    opening: tokio::sync::Mutex<()>,
    /// The latest moment of the keyspace that this face has told of.
    seen: Mutex<Option<Seen>>,
    /// The latest term of the shard that this face has seen.
    term: AtomicU64,
    /// When a question was asked that a leader has answered.
    led: Mutex<Option<Instant>>,
    /// How often that term has changed.
    leader_changes: AtomicU64,
    metrics: Metrics,
    auth: Auth,
    shared: Shared,
    hubs: Hubs,
}

/// A moment of the keyspace.
#[derive(Clone, Copy)]
struct Seen {
    revision: Revision,
    /// The node that answered last.
    node: NodeId,
}

impl Etcd {
    /// Creates the face of a client's network.
    pub fn new(client: Client, options: Options) -> Self {
        let auth = Auth::new(options.tokens.clone());
        let inner = Inner {
            client,
            options,
            store: RwLock::new(None),
            opening: tokio::sync::Mutex::default(),
            seen: Mutex::new(None),
            term: AtomicU64::new(0),
            led: Mutex::new(None),
            leader_changes: AtomicU64::new(0),
            metrics: Metrics::default(),
            auth,
            shared: Shared::default(),
            hubs: Hubs::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the client of the keyspace, which is created if it does not exist.
    ///
    /// # Errors
    /// It does not exist and this face may not create it, or it has several shards; the text says
    /// what to do.
    pub async fn store(&self) -> Result<Client, EtcdError> {
        if let Some(store) = self.known_store() {
            return Ok(store);
        }
        let _opening = self.inner.opening.lock().await;
        if let Some(store) = self.known_store() {
            return Ok(store);
        }
        let name = &self.inner.options.keyspace;
        let store = match self.inner.client.keyspace(name).await {
            Err(Error::NoKeyspace { .. }) => {
                self.create_keyspace(name, keyspace_settings()).await?;
                self.inner.client.keyspace(name).await?
            }
            found => found?,
        };
        let view = store.view().await?;
        let shards = view.shards_of(store.keyspace_id()).len();
        if shards != 1 {
            let why = format!(
                "etcdserver: the keyspace {name} has {shards} shards, and etcd's interface needs \
                 one with a single shard; name another with --etcd-keyspace"
            );
            return Err(EtcdError::new(Code::FailedPrecondition, why));
        }
        *write(&self.inner.store) = Some(store.clone());
        Ok(store)
    }

    fn known_store(&self) -> Option<Client> {
        read(&self.inner.store).clone()
    }

    /// Creates the keyspace, by this client or by one with more rights.
    pub(crate) async fn create_keyspace(
        &self,
        name: &str,
        settings: KeyspaceSettings,
    ) -> Result<(), EtcdError> {
        let create = |client: Client| {
            let (name, settings) = (name.to_owned(), settings.clone());
            async move { client.create_keyspace(&name, settings).await }.boxed()
        };
        let created = self.as_administrator(create).await;
        // Another face may have created it meanwhile, which the caller finds out.
        let Err(why) = created else {
            info!("created the keyspace {name}, with one shard");
            return Ok(());
        };
        if self.inner.client.keyspace(name).await.is_ok() {
            return Ok(());
        }
        let why = format!(
            "etcdserver: the keyspace {name} does not exist, and this gateway could not create it \
             ({why}); an administrator can: dkv SERVER keyspace create {name} --shards 1 \
             --history 24h,256MiB"
        );
        Err(EtcdError::new(Code::FailedPrecondition, why))
    }

    /// Does something with the rights of this face's client, or else of an administrator, if there
    /// are credentials of one.
    ///
    /// # Errors
    /// The text says why it was not done.
    pub(crate) async fn as_administrator<T>(
        &self,
        act: impl Fn(Client) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, String> {
        let denied = match act(self.inner.client.clone()).await {
            Err(Error::Denied(why)) => why,
            done => return done.map_err(|error| error.to_string()),
        };
        let Some(founder) = &self.inner.options.founder else { return Err(denied) };
        let admin = founder.clone().role(Role::Admin).connect().await;
        let admin = admin.map_err(|error| error.to_string())?;
        let done = act(admin.clone()).await;
        admin.close().await;
        done.map_err(|error| error.to_string())
    }

    /// Returns the header of an answer that shows the keyspace as it is now.
    ///
    /// # Errors
    /// There is no leader, or no keyspace.
    pub(crate) async fn moment(&self) -> Result<ResponseHeader, EtcdError> {
        let store = self.store().await?;
        let asked = Instant::now();
        let receipt = store.latest().await.map_err(|error| self.failed(error))?;
        // The answer says that there was a leader after the question, and may be long on its way.
        let mut led = lock(&self.inner.led);
        *led = Some(led.map_or(asked, |led| led.max(asked)));
        drop(led);
        Ok(self.header(&receipt, receipt.revision))
    }

    /// Returns the revision to which the history is compacted; none if it never was.
    ///
    /// # Errors
    /// There is no leader, or no keyspace.
    pub(crate) async fn compacted(&self) -> Result<Option<Revision>, EtcdError> {
        let store = self.store().await?;
        // Every shard has the same floor for all keys, and this one need not exist.
        let history = store.history([0], HistoryOptions::default().limit(1)).await;
        let floor = history.map_err(|error| self.failed(error))?.floor;
        Ok((floor > Revision(0)).then_some(floor))
    }

    /// Translates an error of the keyspace.
    pub(crate) fn failed(&self, error: Error) -> EtcdError {
        if matches!(error, Error::NoKeyspace { .. }) {
            // It may be created again under its name, and begins anew.
            *self.seen() = None;
            *write(&self.inner.store) = None;
        }
        debug!(%error, "a request failed");
        error.into()
    }

    /// Returns the header of an answer that shows the keyspace at a revision.
    pub(crate) fn header(&self, receipt: &Receipt, revision: Revision) -> ResponseHeader {
        let raft_term = self.note_term(receipt.term);
        let mut last = self.seen();
        let latest = last.map_or(revision, |last| last.revision.max(revision));
        *last = Some(Seen { revision: latest, node: receipt.node });
        ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: member_id(receipt.node),
            revision: etcd_revision(revision),
            raft_term,
        }
    }

    /// Notes a term of the shard; returns the latest that this face knows. A replica may lag behind
    /// what it has told already.
    fn note_term(&self, term: Term) -> u64 {
        let seen = self.inner.term.fetch_max(term.0, Ordering::Relaxed);
        if seen != 0 && seen < term.0 {
            self.inner.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        seen.max(term.0)
    }

    /// Returns the header of a status that a node has reported.
    pub(crate) fn status_header(
        &self,
        node: NodeId,
        term: Term,
        revision: Revision,
    ) -> ResponseHeader {
        let raft_term = self.note_term(term);
        let revision = self.seen().map_or(revision, |seen| seen.revision.max(revision));
        ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: member_id(node),
            revision: etcd_revision(revision),
            raft_term,
        }
    }

    /// Returns a header of the latest moment that this face has told of, for answers that show
    /// nothing of the keys. It asks the network only if there is none.
    ///
    /// # Errors
    /// As for [`moment`](Self::moment).
    pub(crate) async fn known_header(&self) -> Result<ResponseHeader, EtcdError> {
        let seen = *self.seen();
        match seen {
            Some(Seen { revision, node }) => Ok(ResponseHeader {
                cluster_id: self.cluster_id(),
                member_id: member_id(node),
                revision: etcd_revision(revision),
                raft_term: self.inner.term.load(Ordering::Relaxed),
            }),
            None => self.moment().await,
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        lock(&self.inner.seen)
    }

    /// Checks that the keyspace has a leader, if the caller asks for that. What this face believes
    /// does not count: it may be cut off from the network. A leader has answered it lately, or does
    /// so now.
    ///
    /// # Errors
    /// None answers in time.
    pub(crate) async fn check_leader(&self, context: &Context) -> Result<(), EtcdError> {
        if !context.requires_leader {
            return Ok(());
        }
        let led = *lock(&self.inner.led);
        if led.is_some_and(|led| led.elapsed() < LEADER_KNOWN_FOR) {
            return Ok(());
        }
        match tokio::time::timeout(LEADER_TIMEOUT, self.moment()).await {
            Ok(moment) => moment.map(drop),
            Err(_) => Err(EtcdError::NO_LEADER),
        }
    }

    /// Returns the number of changes of the shard's leader that this face has seen.
    pub(crate) fn leader_changes(&self) -> u64 {
        self.inner.leader_changes.load(Ordering::Relaxed)
    }

    /// Returns the cluster id of the network.
    pub(crate) fn cluster_id(&self) -> u64 {
        cluster_id(self.inner.client.identity().network)
    }

    /// Returns the client, of whichever keyspace.
    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Returns the options.
    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Returns what it needs to check users.
    pub(crate) fn auth(&self) -> &Auth {
        &self.inner.auth
    }

    /// Returns what the faces share, as this one has it.
    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Returns how its watches are served.
    pub(crate) fn hubs(&self) -> &Hubs {
        &self.inner.hubs
    }

    /// Returns the counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

/// Returns the options of a watch after a revision. There may be many of them.
pub(crate) fn watch_options(after: Revision) -> WatchOptions {
    WatchOptions::default().from(after).room_bytes(WATCH_ROOM_BYTES)
}

/// Returns the settings with which a keyspace for etcd's keys is created.
pub fn keyspace_settings() -> KeyspaceSettings {
    KeyspaceSettings {
        shards: 1,
        history_age_ms: HISTORY_AGE.as_millis() as u64,
        history_bytes: HISTORY_BYTES,
        ..KeyspaceSettings::default()
    }
}

/// Returns a revision in etcd's terms: an empty store is at 1.
pub(crate) fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0.saturating_add(1)).unwrap_or(i64::MAX)
}

/// Returns a revision of the shard; `None` for one that etcd never gives.
pub(crate) fn own_revision(revision: i64) -> Option<Revision> {
    u64::try_from(revision).ok()?.checked_sub(1).map(Revision)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::answers_of;
    use crate::error::Code;

    #[tokio::test]
    async fn a_stream_whose_task_panics_ends_with_an_error() {
        let mut answers = answers_of(4, |sender| async move {
            sender.send(Ok(1)).await.expect("a reader");
            panic!("as the test says");
        });
        assert_eq!(answers.next().await, Some(Ok(1)));
        let error = answers.next().await.expect("an error").expect_err("no answer");
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(answers.next().await, None);
    }
}
