//! A founder with several shards that executes transactions over them, with real groups. Drivers
//! die by never having lived: the test proposes their commands itself, and stops anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, Revision, Serial, SessionId, Stamp, Term};
use dkv_wire::codec::encode;
use dkv_wire::identity::Role;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, Attempt, AttemptId, Command, Compare, Condition, Decide, Decision, Keys, Opening,
    Operation, OperationResult, PartReceipt, Prepare, PrepareAnswer, PrepareHome, ReadMode,
    Refusal, Relation, Reply, Request, RequestBody, Span, Test, TransactOver, Transaction,
    TransactionOperation, Unfit, Write,
};
use dkv_wire::network::Settings;
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use futures::future::join_all;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::founder::Founder;
use super::*;
use crate::net::reply::ReplyTo;
use crate::replica::backlog::Place;
use crate::replica::write_batches::PendingWrite;

const PATIENCE: Duration = Duration::from_secs(20);
const SHARDS: u32 = 4;
const HOME: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);

/// A client without the client library. Keys are in the shard that it says.
#[derive(Clone)]
struct Asker {
    connection: quinn::Connection,
    _endpoint: Arc<Endpoint>,
    session: SessionId,
    serial: Arc<AtomicU64>,
}

impl Asker {
    async fn connect(founder: &Founder, node: &Node, number: u128) -> Self {
        let credentials = founder.credentials(Role::Client);
        let endpoint = Arc::new(Endpoint::dial_only(Some(credentials)).unwrap());
        let connection = endpoint.connect(node.me().address, Expect::AnyNode).await.unwrap();
        let session = SessionId(Uuid::from_u128(number));
        let serial = Arc::new(AtomicU64::new(0));
        let asker = Self { connection, _endpoint: endpoint, session, serial };
        for shard in 1..=SHARDS {
            let open = encode(&Command::OpenSession(session));
            asker.propose(GroupId(shard), open).await.unwrap();
        }
        asker
    }

    async fn ask(&self, body: RequestBody) -> Result<Answer, Refusal> {
        let request = Request { id: 1, deadline_ms: 10_000, forward: true, user: None, body };
        let opening = Some(&Opening::Requests);
        let reply: Result<Reply, _> =
            call(&self.connection, opening, &request, FRAME_BYTES_MAX, PATIENCE).await;
        reply.unwrap().result
    }

    async fn propose(&self, shard: GroupId, command: Bytes) -> Result<Answer, Refusal> {
        self.ask(RequestBody::Propose { shard, everywhere: false, command }).await
    }

    fn next(&self) -> Serial {
        Serial(self.serial.fetch_add(1, Ordering::Relaxed) + 1)
    }

    async fn put(&self, shard: GroupId, key: &str, value: &str) -> Result<Answer, Refusal> {
        let serial = self.next();
        let write = Write {
            session: self.session,
            serial,
            settled: Serial(1),
            after: Stamp(0),
            condition: Condition::Always,
            key: key.as_bytes(),
            operation: Operation::Put(value.as_bytes()),
        };
        self.propose(shard, encode(&Command::Write(write))).await
    }

    async fn read(&self, shard: GroupId, key: &str) -> Option<String> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        match self.ask(RequestBody::Read { shard, key, mode: ReadMode::Primary }).await.unwrap() {
            Answer::Value(_, stored) => {
                stored.map(|stored| String::from_utf8_lossy(&stored.value).into_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Executes a transaction whose compares and operations are in these shards.
    async fn transact(
        &self,
        serial: Serial,
        shards: &[u32],
        transaction: &Transaction<'_>,
    ) -> Result<Answer, Refusal> {
        let body = &encode(transaction);
        let home = GroupId(shards[0]);
        let shards = shards.iter().map(|shard| GroupId(*shard)).collect();
        let (session, settled, after) = (self.session, Serial(1), Stamp(0));
        let over = TransactOver { session, serial, settled, after, shards, body };
        self.propose(home, encode(&Command::TransactOver(over))).await
    }
}

async fn begin() -> (Founder, Arc<Node>) {
    let founder = Founder::new(Settings { shards: SHARDS, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let leads = |shard| node.group(GroupId(shard)).is_some_and(|group| group.leads());
    while !(1..=SHARDS).all(leads) {
        assert!(Instant::now() < deadline, "nobody leads the shards");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (founder, node)
}

/// Proposes a command as the node itself does.
async fn propose_as_node(node: &Node, shard: GroupId, command: Command<'_>) -> Answer {
    let (reply, answer) = ReplyTo::here();
    let (holder, place) = (HolderId(Uuid::nil()), Place::default());
    let (command, expires) = (encode(&command), Instant::now() + PATIENCE);
    let write = PendingWrite { command, holder, expires, reply, place };
    node.group(shard).unwrap().write(write);
    answer.await.unwrap().unwrap()
}

fn locked_keys(node: &Node) -> usize {
    let locked = |shard| {
        let group = node.group(GroupId(shard)).unwrap();
        group.state_machine().with_shard(|shard| shard.locked_keys()).unwrap()
    };
    (1..=SHARDS).map(locked).sum()
}

async fn unlocked(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    while locked_keys(node) > 0 {
        assert!(Instant::now() < deadline, "a lock stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn put(key: &'static str, value: &'static str) -> TransactionOperation<'static> {
    TransactionOperation::Put(key.as_bytes(), value.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_shards_is_executed_as_a_whole_and_once() {
    let (founder, node) = begin().await;
    let asker = Asker::connect(&founder, &node, 7).await;
    asker.put(GroupId(2), "two", "2").await.unwrap();
    let transaction = Transaction {
        compares: vec![
            Compare { keys: Keys::Key(b"one"), test: Test::Exists(false) },
            Compare { keys: Keys::Key(b"two"), test: Test::Value(Relation::Equal, b"2") },
        ],
        then: vec![
            put("one", "1"),
            TransactionOperation::Increment { key: b"two", by: 5 },
            TransactionOperation::Get(b"two"),
            TransactionOperation::Append { key: b"three", bytes: b"3" },
            TransactionOperation::Delete(b"four"),
        ],
        otherwise: vec![TransactionOperation::Get(b"two"), put("otherwise", "yes")],
    };
    let shards = [1, 2, 1, 2, 2, 3, 4, 2, 4];
    let serial = asker.next();
    let first = asker.transact(serial, &shards, &transaction).await.unwrap();
    let Answer::TransactedOver { receipt, succeeded, changed, parts, results } = &first else {
        panic!("{first:?}")
    };
    assert_eq!((receipt.shard, receipt.revision), (HOME, Revision(1)));
    assert!(succeeded & changed);
    let not_before = [(2, 2), (3, 1), (4, 0)];
    let expected = not_before.map(|(shard, revision)| PartReceipt {
        shard: GroupId(shard),
        not_before: Revision(revision),
    });
    assert_eq!(parts[..], expected);
    let results = results.as_ref().unwrap();
    assert_eq!(results[0], OperationResult::Put { created: Revision(1), version: 1 });
    let OperationResult::Changed(sum) = &results[1] else { panic!("{results:?}") };
    assert_eq!((sum.value.as_deref(), sum.version), (Some(&b"7"[..]), 2));
    assert_eq!((sum.created, sum.revision), (Revision(1), Revision(0)), "it is not known yet");
    assert_eq!(results[2], OperationResult::Got(Some(sum.clone())));
    assert_eq!(results[4], OperationResult::Deleted(0));
    // An acknowledged transaction shows at once, though the other shards learn of it later.
    for (shard, key, value) in [(1, "one", "1"), (2, "two", "7"), (3, "three", "3")] {
        assert_eq!(asker.read(GroupId(shard), key).await.as_deref(), Some(value));
    }
    // Repeated, it is not executed again.
    match asker.transact(serial, &shards, &transaction).await.unwrap() {
        Answer::TransactedOver { receipt, succeeded: true, changed: true, parts, results } => {
            assert_eq!((receipt.revision, parts.len(), results), (Revision(1), 3, None));
        }
        other => panic!("{other:?}"),
    }
    let again = asker.transact(asker.next(), &shards, &transaction).await.unwrap();
    assert!(matches!(again, Answer::TransactedOver { succeeded: false, .. }), "{again:?}");
    assert_eq!(asker.read(GroupId(4), "otherwise").await.as_deref(), Some("yes"));
    assert_eq!(asker.read(GroupId(3), "three").await.as_deref(), Some("3"));

    // An operation that cannot be executed in one shard keeps all of them from it.
    let unfit = Transaction {
        then: vec![
            put("one", "x"),
            put("two", "x"),
            TransactionOperation::Increment { key: b"otherwise", by: 1 },
        ],
        ..Transaction::default()
    };
    let refused = asker.transact(asker.next(), &[1, 2, 4], &unfit).await;
    let why = Unfit::NotANumber;
    assert_eq!(refused, Err(Refusal::Unfit { operation: 2, why }));
    unlocked(&node).await;
    assert_eq!(asker.read(GroupId(1), "one").await.as_deref(), Some("1"));
    node.stop(PATIENCE).await;
}

fn attempt(session: SessionId, serial: Serial) -> AttemptId {
    let attempt = Attempt { term: Term(1), number: (1 << 40) + serial.0 };
    AttemptId { home: HOME, session, serial, attempt }
}

/// Prepares a transaction over two shards that writes a key in each, and says how far its driver
/// gets.
async fn half_driven(node: &Node, asker: &Asker, shards: &[GroupId], decided: bool) {
    let id = attempt(asker.session, asker.next());
    for shard in shards {
        let body = &encode(&Transaction {
            then: vec![put(if *shard == HOME { "one" } else { "two" }, "new")],
            ..Transaction::default()
        });
        let at_home =
            PrepareHome { settled: Serial(1), patience_ms: 2000, participants: vec![OTHER] };
        let at_home = (*shard == HOME).then_some(at_home);
        let (over, after, patient) = (id.attempt, Stamp(0), false);
        let prepare = Prepare { id, over, after, patient, at_home, body };
        let answer = propose_as_node(node, *shard, Command::Prepare(prepare)).await;
        assert!(matches!(answer, Answer::Prepared(PrepareAnswer::Prepared { .. })), "{answer:?}");
    }
    if decided {
        let parts = vec![PartReceipt { shard: OTHER, not_before: Revision(2) }];
        let after = Stamp(0);
        let decision = Decision::Commit { succeeded: true, changed: true, after, parts };
        let decide = Command::Decide(Decide { id, decision });
        let answer = propose_as_node(node, HOME, decide).await;
        assert!(matches!(answer, Answer::Transacted { .. }), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_leaves_behind_is_ended() {
    let (founder, node) = begin().await;
    let asker = Asker::connect(&founder, &node, 7).await;
    for (shards, decided) in [
        (&[HOME][..], false),
        (&[OTHER][..], false),
        (&[HOME, OTHER][..], false),
        (&[HOME, OTHER][..], true),
    ] {
        asker.put(HOME, "one", "old").await.unwrap();
        asker.put(OTHER, "two", "old").await.unwrap();
        half_driven(&node, &asker, shards, decided).await;
        // Readers and writers of the keys wait, and everybody else goes on.
        let began = Instant::now();
        asker.put(OTHER, "free", "x").await.unwrap();
        assert_eq!(asker.read(OTHER, "free").await.as_deref(), Some("x"));
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        let expected = if decided { "new" } else { "old" };
        let (one, two) = tokio::join!(asker.read(HOME, "one"), asker.read(OTHER, "two"));
        assert_eq!((one.as_deref(), two.as_deref()), (Some(expected), Some(expected)));
        asker.put(OTHER, "two", "later").await.unwrap();
        assert_eq!(asker.read(OTHER, "two").await.as_deref(), Some("later"));
        unlocked(&node).await;
    }
    // Nothing is left to do.
    let deadline = Instant::now() + PATIENCE;
    let home = node.group(HOME).unwrap();
    let records = || home.state_machine().with_shard(|shard| shard.home_records().count());
    while records() != Some(0) {
        assert!(Instant::now() < deadline, "a record stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_versions_wait_for_a_transaction_too() {
    let (founder, node) = begin().await;
    let asker = Asker::connect(&founder, &node, 7).await;
    for _ in 0..2 {
        half_driven(&node, &asker, &[HOME, OTHER], true).await;
        let page = |after: &'static str| {
            let span = Span {
                prefix: Bytes::from_static(b"t"),
                after: Bytes::from_static(after.as_bytes()),
                keys_max: 10,
                bytes_max: 1000,
                values: true,
            };
            asker.ask(RequestBody::Scan { shard: OTHER, span, mode: ReadMode::Primary })
        };
        let at_once = timeout(Duration::from_millis(500), page("two")).await.unwrap().unwrap();
        let Answer::Page(_, found) = at_once else { panic!("{at_once:?}") };
        assert!(found.pairs.is_empty(), "nothing comes after the locked key");
        let Answer::Page(_, found) = page("").await.unwrap() else { panic!("no page") };
        assert_eq!(found.pairs[0].value, Some(Bytes::from_static(b"new")));
        unlocked(&node).await;
    }
    half_driven(&node, &asker, &[HOME, OTHER], true).await;
    let key = Bytes::from_static(b"two");
    let history = RequestBody::History { shard: OTHER, key, before: Revision(0), versions_max: 10 };
    let Answer::Versions(_, versions) = asker.ask(history).await.unwrap() else {
        panic!("no versions")
    };
    assert_eq!(versions.versions.len(), 3);
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_speak_for_nodes() {
    let (founder, node) = begin().await;
    let asker = Asker::connect(&founder, &node, 7).await;
    let id = attempt(asker.session, Serial(1));
    for command in [
        Command::Finish { id, committed: None },
        Command::Resolve { id, abort: true },
        Command::Forget(id),
        Command::Decide(Decide {
            id,
            decision: Decision::Unfit { operation: 0, why: Unfit::Overflow },
        }),
    ] {
        let refused = asker.propose(OTHER, encode(&command)).await;
        assert!(matches!(refused, Err(Refusal::Denied(_))), "{refused:?}");
    }
    // A transaction goes to the shard of one of its keys.
    let body = &encode(&Transaction { then: vec![put("k", "v")], ..Transaction::default() });
    let shards = vec![GroupId(3)];
    let (session, serial) = (asker.session, asker.next());
    let (settled, after) = (Serial(1), Stamp(0));
    let over = TransactOver { session, serial, settled, after, shards, body };
    let refused = asker.propose(HOME, encode(&Command::TransactOver(over))).await;
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    // Its shards are those of one keyspace, and exist.
    let then = vec![put("k", "v"), put("l", "v")];
    let both = Transaction { then, ..Transaction::default() };
    let began = Instant::now();
    for other in [SHARDS + 1, 999] {
        let refused = asker.transact(asker.next(), &[1, other], &both).await;
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "nothing is locked meanwhile");
    assert_eq!(locked_keys(&node), 0);
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_on_the_same_keys_all_get_on() {
    const CLIENTS: u128 = 64;
    const EACH: usize = 6;
    let (founder, node) = begin().await;
    let clients = (1..=CLIENTS).map(|number| Asker::connect(&founder, &node, number));
    let clients = join_all(clients).await;
    let began = Instant::now();
    let work = clients.iter().enumerate().map(|(number, asker)| async move {
        let mut took = Vec::new();
        for round in 0..EACH {
            // Two of ten keys, in two shards.
            let (first, second) = ((number + round) % 10, (number * 7 + round * 3 + 1) % 10);
            let second = if first % 4 == second % 4 { (second + 1) % 10 } else { second };
            let keys = [first, second].map(|key| format!("key-{key}"));
            let then = keys
                .iter()
                .map(|key| TransactionOperation::Increment { key: key.as_bytes(), by: 1 });
            let transaction = Transaction { then: then.collect(), ..Transaction::default() };
            let shards = [first, second].map(|key| 1 + key as u32 % SHARDS);
            let (serial, began) = (asker.next(), Instant::now());
            let mut answer = asker.transact(serial, &shards, &transaction).await;
            while let Err(Refusal::Unavailable(_) | Refusal::Overloaded { .. }) = answer {
                answer = asker.transact(serial, &shards, &transaction).await;
            }
            answer.unwrap();
            took.push(began.elapsed());
        }
        took
    });
    let mut took: Vec<Duration> = join_all(work).await.into_iter().flatten().collect();
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{} transactions in {:?}: median {median:?}, longest {longest:?}",
        took.len(),
        began.elapsed()
    );
    assert!(longest < median * 100, "median {median:?}, longest {longest:?}");
    let mut sum = 0;
    for key in 0..10 {
        let value = clients[0].read(GroupId(1 + key % SHARDS), &format!("key-{key}")).await;
        sum += value.map_or(0, |value| value.parse::<usize>().unwrap());
    }
    assert_eq!(sum, 2 * CLIENTS as usize * EACH);
    unlocked(&node).await;
    node.stop(PATIENCE).await;
}
