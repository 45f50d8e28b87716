//! A founder that is asked about its history, and watched, over real connections.

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp};
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::Role;
use dkv_wire::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX};
use dkv_wire::message::{
    Answer, Command, Condition, KeyRange, Level, Opening, Operation, RangeOptions, ReadBounds,
    ReadMode, Receipt, Refusal, Reply, Request, RequestBody, Span, Versions, WatchFrame,
    WatchRequest, Write,
};
use dkv_wire::network::Settings;
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::founder::Founder;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const SHARD: GroupId = GroupId(1);

/// A client without the client library.
struct Asker {
    connection: quinn::Connection,
    _endpoint: Endpoint,
    serial: u64,
}

impl Asker {
    async fn connect(founder: &Founder, node: &Node, role: Role) -> Self {
        let endpoint = Endpoint::dial_only(Some(founder.credentials(role))).unwrap();
        let connecting = endpoint.connect_to_watch(node.me().address, Expect::AnyNode);
        let connection = connecting.await.unwrap();
        Self { connection, _endpoint: endpoint, serial: 0 }
    }

    async fn ask(&self, body: RequestBody) -> Result<Answer, Refusal> {
        let request = Request { id: 1, deadline_ms: 5000, forward: true, user: None, body };
        let opening = Some(&Opening::Requests);
        let reply: Result<Reply, _> =
            call(&self.connection, opening, &request, FRAME_BYTES_MAX, PATIENCE).await;
        reply.unwrap().result
    }

    async fn propose(&self, command: &Command<'_>) -> Answer {
        let command = encode(command);
        self.ask(RequestBody::Propose { shard: SHARD, everywhere: false, command }).await.unwrap()
    }

    async fn write(&mut self, key: &str, value: Option<&[u8]>) -> Revision {
        let session = SessionId(Uuid::from_u128(7));
        if self.serial == 0 {
            self.propose(&Command::OpenSession(session)).await;
        }
        self.serial += 1;
        let serial = Serial(self.serial);
        let write = Write {
            session,
            serial,
            settled: serial,
            after: Stamp(0),
            condition: Condition::Always,
            key: key.as_bytes(),
            operation: value.map_or(Operation::Delete, Operation::Put),
        };
        match self.propose(&Command::Write(write)).await {
            Answer::Written { receipt, .. } => receipt.revision,
            other => panic!("{other:?}"),
        }
    }

    async fn value_at(&self, key: &'static str, revision: u64) -> Result<Option<Bytes>, Refusal> {
        let (key, revision) = (Bytes::from_static(key.as_bytes()), Revision(revision));
        match self.ask(RequestBody::ReadAt { shard: SHARD, key, at: revision.into() }).await? {
            Answer::VersionAt(receipt, version) => {
                assert_eq!(receipt.level, Level::Eventual);
                assert!(receipt.revision <= revision);
                Ok(version.and_then(|version| version.value))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn keys_at(&self, revision: u64) -> Result<Vec<Bytes>, Refusal> {
        let span = Span {
            prefix: Bytes::new(),
            after: Bytes::new(),
            keys_max: 100,
            bytes_max: 1 << 20,
            values: true,
        };
        let body = RequestBody::ScanAt { shard: SHARD, span, at: Revision(revision).into() };
        match self.ask(body).await? {
            Answer::Page(receipt, page) => {
                assert_eq!(receipt.revision, Revision(revision));
                Ok(page.pairs.into_iter().map(|pair| pair.key).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn versions(&self, key: &'static str, before: u64, most: u32) -> Versions {
        let key = Bytes::from_static(key.as_bytes());
        let before = Revision(before);
        let body = RequestBody::History { shard: SHARD, key, before, versions_max: most };
        match self.ask(body).await.unwrap() {
            Answer::Versions(receipt, versions) => {
                assert_eq!(receipt.level, Level::Strong);
                versions
            }
            other => panic!("{other:?}"),
        }
    }

    /// Returns the receipt of all keys, and their number.
    async fn range(&self, mode: ReadMode, at: Option<u64>) -> Result<(Receipt, u64), Refusal> {
        let (keys, after) = (KeyRange::Prefix(Bytes::new()), Bytes::new());
        let options = RangeOptions { at: at.map(Revision), ..RangeOptions::default() };
        let (shard, bytes_max, count) = (SHARD, 1 << 20, true);
        let body = RequestBody::Range { shard, keys, after, options, bytes_max, count, mode };
        match self.ask(body).await? {
            Answer::Ranged(receipt, page) => Ok((receipt, page.count)),
            other => panic!("{other:?}"),
        }
    }

    async fn compact(&self, floor: u64) -> Result<Answer, Refusal> {
        self.ask(RequestBody::Compact { shard: SHARD, floor: Revision(floor) }).await
    }

    async fn watch(&self, keys: KeyRange, after: Option<u64>) -> Watched {
        self.watch_shard(SHARD, keys, after).await
    }

    async fn watch_shard(&self, shard: GroupId, keys: KeyRange, after: Option<u64>) -> Watched {
        let (send, receive) = self.connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::Watch);
        let after = after.map(Revision);
        writer
            .send(&WatchRequest { shard, keys, after, previous: true, user: None })
            .await
            .unwrap();
        let reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        Watched { reader, _writer: writer, through: Revision(0) }
    }
}

/// The receiving end of a watch.
struct Watched {
    reader: FrameReader<quinn::RecvStream>,
    _writer: FrameWriter<quinn::SendStream>,
    through: Revision,
}

impl Watched {
    async fn frame(&mut self) -> WatchFrame {
        let frame = timeout(PATIENCE, self.reader.next()).await.expect("no frame");
        let frame = decode(&frame.unwrap().expect("it has ended")).unwrap();
        if let WatchFrame::Changes { changes, through } = &frame {
            assert!(*through >= self.through);
            for change in changes {
                assert!(self.through < change.version.revision);
                assert!(change.version.revision <= *through);
            }
            self.through = *through;
        }
        frame
    }

    /// Waits for this many changes, each as revision and key, with the values before and after.
    async fn changes(&mut self, count: usize) -> Vec<(u64, String, Option<Bytes>, Option<Bytes>)> {
        let mut all = Vec::new();
        while all.len() < count {
            let WatchFrame::Changes { changes, .. } = self.frame().await else { panic!("ended") };
            all.extend(changes.into_iter().map(|change| {
                let key = String::from_utf8(change.key.to_vec()).unwrap();
                let before = change.previous.and_then(|previous| previous.value);
                (change.version.revision.0, key, before, change.version.value)
            }));
        }
        assert_eq!(all.len(), count);
        all
    }

    async fn ended(&mut self) -> Refusal {
        loop {
            if let WatchFrame::Ended(refusal) = self.frame().await {
                let end = timeout(PATIENCE, self.reader.next()).await;
                assert!(matches!(end, Ok(Ok(None))), "{end:?}");
                return refusal;
            }
        }
    }
}

async fn begin() -> (Founder, Arc<Node>) {
    let founder = Founder::new(Settings::default());
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !node.group(SHARD).is_some_and(|group| group.leads()) {
        assert!(Instant::now() < deadline, "nobody leads the shard");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (founder, node)
}

fn bytes(value: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(value.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_read_until_it_is_compacted() {
    let (founder, node) = begin().await;
    let mut client = Asker::connect(&founder, &node, Role::Client).await;
    let admin = Asker::connect(&founder, &node, Role::Admin).await;
    assert_eq!(client.write("a", Some(b"1")).await, Revision(1));
    client.write("b", Some(b"2")).await;
    client.write("a", Some(b"3")).await;
    client.write("b", None).await;
    // Versions in the checkpoint and in memory.
    for _ in 0..2 {
        assert_eq!(client.value_at("a", 0).await, Ok(None));
        assert_eq!(client.value_at("a", 2).await, Ok(bytes("1")));
        assert_eq!(client.value_at("a", 3).await, Ok(bytes("3")));
        assert_eq!(client.value_at("b", 3).await, Ok(bytes("2")));
        assert_eq!(client.value_at("b", 4).await, Ok(None));
        assert_eq!(client.keys_at(3).await, Ok(vec![Bytes::from("a"), Bytes::from("b")]));
        assert_eq!(client.keys_at(4).await, Ok(vec![Bytes::from("a")]));
        let versions = client.versions("a", 0, 10).await;
        let revisions: Vec<_> = versions.versions.iter().map(|it| it.revision.0).collect();
        assert_eq!((revisions, versions.more), (vec![3, 1], false));
        assert_eq!(client.versions("a", 3, 1).await.versions[0].value, bytes("1"));
        assert!(client.versions("b", 0, 1).await.more);
        node.group(SHARD).unwrap().checkpoint().await;
    }
    let (receipt, keys) = client.range(ReadMode::All, None).await.unwrap();
    assert_eq!((receipt.level, receipt.revision, keys), (Level::All, Revision(4), 1));
    let eventual = || ReadMode::Eventual(ReadBounds::default());
    assert_eq!(client.range(eventual(), Some(3)).await.unwrap().1, 2);
    let not_yet = Refusal::NotYet { asked: Revision(5), latest: Revision(4) };
    assert_eq!(client.value_at("a", 5).await, Err(not_yet.clone()));
    assert_eq!(client.keys_at(5).await, Err(not_yet.clone()));
    assert_eq!(client.range(eventual(), Some(5)).await, Err(not_yet.clone()));

    assert_eq!(admin.compact(5).await, Err(not_yet));
    for floor in [3, 3, 1] {
        assert!(matches!(admin.compact(floor).await, Ok(Answer::Compacted { .. })));
    }
    let compacted = Refusal::Compacted { floor: Revision(3) };
    assert_eq!(client.value_at("a", 2).await, Err(compacted.clone()));
    assert_eq!(client.keys_at(2).await, Err(compacted));
    assert_eq!(client.value_at("b", 3).await, Ok(bytes("2")));
    let versions = client.versions("a", 0, 10).await;
    assert_eq!((versions.versions.len(), versions.floor), (1, Revision(3)));
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_each_change_once_from_wherever_it_begins() {
    let (founder, node) = begin().await;
    let mut client = Asker::connect(&founder, &node, Role::Client).await;
    let reader = Asker::connect(&founder, &node, Role::Reader).await;
    let key = |key: &'static str| KeyRange::Key(Bytes::from(key));
    let prefix = |prefix: &'static str| KeyRange::Prefix(Bytes::from(prefix));
    client.write("a1", Some(b"1")).await;
    let mut live = reader.watch(prefix("a"), None).await;
    let first = live.frame().await;
    assert_eq!(first, WatchFrame::Changes { changes: Vec::new(), through: Revision(1) });
    let mut other = reader.watch(key("b"), None).await;
    let mut range = reader.watch(KeyRange::Range("a2".into(), "b".into()), Some(0)).await;
    client.write("a1", Some(b"2")).await;
    client.write("a2", Some(b"3")).await;
    client.write("b", Some(b"4")).await;
    client.write("a1", None).await;
    assert_eq!(
        live.changes(3).await,
        [
            (2, "a1".to_owned(), bytes("1"), bytes("2")),
            (3, "a2".to_owned(), None, bytes("3")),
            (5, "a1".to_owned(), bytes("2"), None),
        ]
    );
    assert_eq!(other.changes(1).await, [(4, "b".to_owned(), None, bytes("4"))]);
    assert_eq!(range.changes(1).await, [(3, "a2".to_owned(), None, bytes("3"))]);
    // Those whose keys do not change learn how far the shard is.
    for watched in [&mut other, &mut range] {
        while watched.through < Revision(5) {
            watched.frame().await;
        }
    }
    // From the middle of the history, through the checkpoint, in order.
    node.group(SHARD).unwrap().checkpoint().await;
    let mut resumed = reader.watch(prefix(""), Some(2)).await;
    let revisions: Vec<_> = resumed.changes(3).await.into_iter().map(|it| it.0).collect();
    assert_eq!(revisions, [3, 4, 5]);

    // Below the floor there is nothing to resume from; those that are above go on.
    let admin = Asker::connect(&founder, &node, Role::Admin).await;
    assert!(matches!(admin.compact(4).await, Ok(Answer::Compacted { .. })));
    let compacted = Refusal::Compacted { floor: Revision(4) };
    assert_eq!(reader.watch(prefix("a"), Some(2)).await.ended().await, compacted);
    client.write("b", Some(b"6")).await;
    assert_eq!(resumed.changes(1).await, [(6, "b".to_owned(), bytes("4"), bytes("6"))]);
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_cannot_be_served_is_refused_at_once() {
    let (founder, node) = begin().await;
    let client = Asker::connect(&founder, &node, Role::Client).await;
    let all = || KeyRange::Prefix(Bytes::new());
    for keys in [
        KeyRange::Key(vec![b'k'; KEY_BYTES_MAX + 1].into()),
        KeyRange::Key(vec![b'k'; 1 << 20].into()),
        KeyRange::Range("b".into(), "a".into()),
    ] {
        let refusal = client.watch(keys, None).await.ended().await;
        assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");
    }
    let refusal = client.watch_shard(GroupId(99), all(), None).await.ended().await;
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");
    let refusal = client.watch_shard(GroupId::CONTROL, all(), None).await.ended().await;
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");
    let server = Asker::connect(&founder, &node, Role::Server).await;
    let refusal = server.watch(all(), None).await.ended().await;
    assert!(matches!(refusal, Refusal::Denied(_)), "{refusal:?}");
    node.stop(PATIENCE).await;
}

/// Far more watches than a connection may have streams otherwise. Those of which much is to be sent
/// are not read.
#[tokio::test(flavor = "multi_thread")]
async fn many_watches_of_one_connection_hold_up_neither_each_other_nor_requests() {
    let (founder, node) = begin().await;
    let mut client = Asker::connect(&founder, &node, Role::Client).await;
    let watcher = Asker::connect(&founder, &node, Role::Reader).await;
    let mut watched = Vec::new();
    for number in 0..1000 {
        let key = if number % 10 == 0 { "hot" } else { "cold" };
        let opened = timeout(PATIENCE, watcher.watch(KeyRange::Key(key.into()), None)).await;
        let mut opened = opened.expect("a stream is not allowed");
        opened.frame().await;
        watched.push(opened);
    }
    // The client does not read yet.
    let value = vec![7; 100_000];
    for _ in 0..20 {
        client.write("hot", Some(&value)).await;
    }
    client.write("cold", Some(b"1")).await;
    for (number, watched) in watched.iter_mut().enumerate() {
        if number % 10 != 0 {
            assert_eq!(watched.changes(1).await[0].0, 21);
        }
    }
    let last: Vec<_> = watched[0].changes(20).await.into_iter().map(|it| it.0).collect();
    assert_eq!(last, (1..=20).collect::<Vec<_>>());
    drop(watched);
    // The others end with their streams.
    let one = watcher.watch(KeyRange::Key("hot".into()), None).await.frame().await;
    assert_eq!(one.through(), Some(Revision(21)));
    node.stop(PATIENCE).await;
}
