//! Watches and transactions of etcd's clients.

use std::time::Duration;

use dkv_etcd::proto::etcdserverpb::request_op::Request;
use dkv_etcd::proto::etcdserverpb::watch_client::WatchClient;
use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RequestOp, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use futures::StreamExt;
use futures::channel::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Streaming};

use super::{Channel, Face};
use crate::harness::Network;

pub(super) struct Watching {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    pub(super) async fn start(face: &Face) -> Self {
        Self::start_with(face, MetadataMap::new()).await
    }

    async fn start_with(face: &Face, metadata: MetadataMap) -> Self {
        let (channel, origin) = face.channel();
        Self::on(channel, origin, metadata).await
    }

    /// Starts a stream of a connection.
    pub(super) async fn on(channel: Channel, origin: hyper::Uri, metadata: MetadataMap) -> Self {
        let mut client: WatchClient<Channel> = WatchClient::with_origin(channel, origin);
        let (requests, sent) = mpsc::unbounded();
        let request = tonic::Request::from_parts(metadata, Extensions::default(), sent);
        let answers = client.watch(request).await.unwrap().into_inner();
        Self { requests, answers }
    }

    /// Starts one, unless nobody serves there.
    pub(super) async fn try_on(channel: Channel, origin: hyper::Uri) -> Option<Self> {
        let mut client: WatchClient<Channel> = WatchClient::with_origin(channel, origin);
        let (requests, sent) = mpsc::unbounded();
        let answers = client.watch(sent).await.ok()?.into_inner();
        Some(Self { requests, answers })
    }

    /// Returns the next answer; none if the stream ends or none comes in time.
    pub(super) async fn within(&mut self, time: Duration) -> Option<WatchResponse> {
        tokio::time::timeout(time, self.answers.message()).await.ok()?.ok()?
    }

    pub(super) fn ask(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.unbounded_send(request).unwrap();
    }

    /// Creates a watch of all keys.
    pub(super) fn create(&self, watch_id: i64, start_revision: i64) {
        self.ask(RequestUnion::CreateRequest(WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision,
            watch_id,
            prev_kv: true,
            ..WatchCreateRequest::default()
        }));
    }

    pub(super) async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(Duration::from_secs(20), self.answers.message());
        next.await.expect("an answer in time").unwrap().expect("an answer")
    }
}

fn put(key: &'static str) -> RequestOp {
    let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(key: &'static str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_whole_revisions_in_the_order_of_operations() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let first = face.put("b", "1").await.revision;
    let mut watching = Watching::start(&face).await;
    watching.create(0, first);
    let created = watching.next().await;
    assert!(created.created && !created.canceled);
    assert_eq!(created.watch_id, 0);
    let nested = TxnRequest { success: vec![put("a")], ..TxnRequest::default() };
    let nested = RequestOp { request: Some(Request::RequestTxn(nested)) };
    let success = vec![put("c"), delete("b"), nested];
    let transaction = TxnRequest { success, ..TxnRequest::default() };
    let done = face.kv().txn(transaction).await.unwrap().into_inner();
    assert!(done.succeeded);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(watching.next().await.events);
    }
    let told: Vec<_> = seen
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().unwrap();
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            (key, event.r#type, kv.mod_revision - first, event.prev_kv.is_some())
        })
        .collect();
    let expected = [("b", 0, 0, false), ("c", 0, 1, false), ("b", 1, 1, true), ("a", 0, 1, false)];
    assert_eq!(
        told,
        expected.map(|(key, kind, at, previous)| (key.to_owned(), kind, at, previous))
    );
    // An id is given once.
    watching.create(7, 0);
    assert_eq!(watching.next().await.watch_id, 7);
    watching.create(7, 0);
    let refused = watching.next().await;
    assert!(refused.created && refused.canceled);
    assert_eq!(refused.watch_id, -1);
    assert!(refused.cancel_reason.contains("duplicate watch ID"));
    // The progress comes once everything is shown.
    watching.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.unwrap().revision, first + 1);
    watching.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 }));
    let canceled = watching.next().await;
    assert!(canceled.canceled && canceled.watch_id == 7);
    // A watch may begin with the revision that was compacted, and not below.
    let compact = |revision| CompactionRequest { revision, physical: false };
    face.kv().compact(compact(first + 1)).await.unwrap();
    let again = face.kv().compact(compact(first + 1)).await.unwrap_err();
    assert!(again.message().contains("has been compacted"));
    watching.create(8, first + 1);
    assert!(watching.next().await.created);
    assert_eq!(watching.next().await.events.len(), 3);
    watching.create(9, first);
    assert!(watching.next().await.created);
    let compacted = watching.next().await;
    assert!(compacted.canceled && compacted.watch_id == 9);
    assert_eq!(compacted.compact_revision, first + 1);
}

/// Puts some keys, many enough that a watch needs several answers for them; returns the first and
/// the last revision.
async fn backlog(face: &Face) -> (i64, i64) {
    let value = "v".repeat(1000);
    let first = face.put("k", &value).await.revision;
    let puts = (0..400).map(|number| face.put(["a", "b", "c"][number % 3], &value));
    let headers = futures::stream::iter(puts).buffer_unordered(50).collect::<Vec<_>>().await;
    (first, headers.iter().map(|header| header.revision).max().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_after_the_backlog_of_all_watches() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let (first, last) = backlog(&face).await;
    for _ in 0..5 {
        let mut watching = Watching::start(&face).await;
        let ask = || watching.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        // A stream without watches has none.
        ask();
        watching.create(1, first);
        ask();
        // It begins after the wait for the first one has begun.
        watching.create(2, first);
        let mut seen = [None; 3];
        let told = loop {
            let answer = watching.next().await;
            if answer.watch_id == -1 {
                break answer;
            }
            let shown = answer.events.last().map_or(0, |it| it.kv.as_ref().unwrap().mod_revision);
            seen[answer.watch_id as usize] = Some(shown);
        };
        assert_eq!(told.header.unwrap().revision, last);
        assert_eq!(seen, [None, Some(last), Some(last)]);
        drop(watching);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_watch_comes_after_its_end() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let (first, _) = backlog(&face).await;
    let mut watching = Watching::start(&face).await;
    for id in 1..=50 {
        watching.create(id, first);
        assert!(watching.next().await.created);
        watching.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }));
        loop {
            let answer = watching.next().await;
            assert_eq!(answer.watch_id, id, "nothing of the watch before");
            if answer.canceled {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_beyond_the_limit_are_refused_with_an_error() {
    const STREAM_MAX: i64 = 4096;
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.put("k", "v").await;
    let (mut one, mut other) = (Watching::start(&face).await, Watching::start(&face).await);
    let create = async |watching: &mut Watching, count: i64| {
        (0..count).for_each(|_| watching.create(0, 0));
        for _ in 0..count {
            let created = watching.next().await;
            assert!(created.created && !created.canceled, "{created:?}");
        }
    };
    // An address may have three times as many as are left of 8192, and a connection without a user
    // as many as are left of that. So there are some left for others.
    const OTHER: i64 = 700;
    tokio::join!(create(&mut one, STREAM_MAX), create(&mut other, OTHER));
    let refused = async |watching: &mut Watching| {
        watching.create(0, 0);
        let refused = watching.next().await;
        assert!(refused.created && refused.canceled, "{refused:?}");
        refused.cancel_reason
    };
    assert_eq!(refused(&mut one).await, "etcdserver: a stream has at most 4096 watches");
    let mut third = Watching::start(&face).await;
    let mut extra = 0;
    let why = loop {
        third.create(0, 0);
        let created = third.next().await;
        assert!(created.created);
        if created.canceled {
            break created.cancel_reason;
        }
        extra += 1;
        assert!(extra <= 1100, "a connection has more than its share");
    };
    assert_eq!(why, "etcdserver: too many requests");
    assert!(extra > 500, "a third connection has {extra}");
    // One that ends makes room.
    third.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    assert!(third.next().await.canceled);
    create(&mut third, 1).await;
    assert_eq!(refused(&mut third).await, "etcdserver: too many requests");
    // All watches work.
    other.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    assert!(other.next().await.canceled);
    face.put("k", "w").await;
    let mut seen = 0;
    while seen < OTHER - 1 {
        seen += other.next().await.events.len() as i64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_leader_hears_that_there_is_none() {
    let mut network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.put("k", "v").await;
    let mut needs = MetadataMap::new();
    needs.insert("hasleader", "true".parse().unwrap());
    let mut watching = Watching::start_with(&face, needs).await;
    let mut patient = Watching::start(&face).await;
    for watching in [&mut watching, &mut patient] {
        watching.create(0, 0);
        assert!(watching.next().await.created);
    }
    // Long enough for some looks at the leader that there is.
    let more = tokio::time::timeout(Duration::from_secs(5), watching.answers.message());
    assert!(more.await.is_err(), "nothing is said as long as there is one");
    network.kill_node(0);
    let ended = tokio::time::timeout(Duration::from_secs(15), watching.answers.message());
    let ended = ended.await.expect("an answer in time").unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    let more = tokio::time::timeout(Duration::from_secs(1), patient.answers.message());
    assert!(more.await.is_err(), "the other waits until there is one again");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_as_often_as_the_option_says() {
    let network = Network::start(1).await;
    let face = Face::start_with(&network, &["--etcd-progress", "200ms"]).await;
    let revision = face.put("k", "v").await.revision;
    let mut watching = Watching::start(&face).await;
    watching.ask(RequestUnion::CreateRequest(WatchCreateRequest {
        key: "k".into(),
        progress_notify: true,
        watch_id: 5,
        ..WatchCreateRequest::default()
    }));
    assert!(watching.next().await.created);
    for _ in 0..3 {
        let progress = watching.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (5, 0));
        assert_eq!(progress.header.unwrap().revision, revision);
    }
    // The face has created the keyspace, with a history as clients of etcd expect it.
    let view = network.client().await.view().await.unwrap();
    let etcd = view.keyspaces.iter().find(|keyspace| keyspace.name == "etcd").unwrap();
    assert_eq!(etcd.settings.history_age_ms, 24 * 3600 * 1000);
    assert_eq!(etcd.settings.history_bytes, 256 * 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_first_revision_is_refused_once_there_is_a_floor() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let first = face.put("a", "1").await.revision;
    face.kv().compact(CompactionRequest { revision: first, physical: false }).await.unwrap();
    // Nothing would be missed, but etcd counts from 1.
    let mut watching = Watching::start(&face).await;
    watching.create(1, 1);
    assert!(watching.next().await.created);
    let compacted = watching.next().await;
    assert!(compacted.canceled, "{compacted:?}");
    assert_eq!(compacted.compact_revision, first);
    let hash = face.maintenance().hash_kv(HashKvRequest::default()).await.unwrap().into_inner();
    assert_eq!(hash.compact_revision, first);
}
