//! Histories that clients of etcd's interface see while nodes and gateways are killed, judged by
//! `dkv-check`: they are linearizable, and watches show every change once, in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dkv_base::sync::lock;
use dkv_check::{
    Action, Condition, Current, History, Level, Operation, Options, Outcome, PreviousVersion,
    Recorder, WatchEvent, WatchNote, check,
};
use dkv_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use dkv_etcd::proto::etcdserverpb::kv_client::KvClient;
use dkv_etcd::proto::etcdserverpb::request_op::Request;
use dkv_etcd::proto::etcdserverpb::response_op::Response;
use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    WatchCreateRequest,
};
use dkv_etcd::proto::mvccpb::KeyValue;
use dkv_etcd::proto::mvccpb::event::EventType;
use dkv_test_support::eventually;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::Status;

use super::watches::Watching;
use super::{Channel, Face};
use crate::harness::Network;

/// Keys that all clients work on.
const KEYS: u64 = 5;
/// Clients that write and read.
const CLIENTS: u64 = 8;
/// Time that a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Faults, one after the other.
const FAULTS: usize = 8;

/// What all clients share.
#[derive(Clone)]
struct Lab {
    /// Where the gateways are, also after a restart.
    faces: Arc<Mutex<Vec<SocketAddr>>>,
    recorder: Recorder,
    begun: Instant,
    stop: Arc<AtomicBool>,
}

impl Lab {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn address(&self, number: u64) -> SocketAddr {
        let faces = lock(&self.faces);
        faces[number as usize % faces.len()]
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn channel(address: SocketAddr) -> (Channel, hyper::Uri) {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    (client, format!("http://{address}").parse().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends one request after the other until the end.
async fn work(lab: Lab, number: u64) {
    // Another client each: a small generator is enough.
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    // The last revision that this client has seen of each key.
    let mut known = [0_i64; KEYS as usize];
    for turn in 0.. {
        if !lab.runs() {
            return;
        }
        let (channel, origin) = channel(lab.address(number + turn / 50));
        let mut kv = KvClient::with_origin(channel, origin);
        for _ in 0..50 {
            let at = random(KEYS);
            let key = format!("k{at}");
            let start_ns = lab.now();
            let value = format!("{number}-{start_ns}");
            let (action, answer) = match random(10) {
                0..=3 => (Action::Get(Level::Strong), timed(get(&mut kv, &key)).await),
                4..=5 => {
                    let condition = Condition::Always;
                    let action = Action::Put { value: value.as_str().into(), condition };
                    (action, timed(put(&mut kv, &key, &value)).await)
                }
                6 => (Action::Delete(Condition::Always), timed(delete(&mut kv, &key)).await),
                _ => {
                    let revision = known[at as usize];
                    let condition = match revision {
                        0 => Condition::Absent,
                        revision => Condition::Revision(revision as u64),
                    };
                    let action = Action::Put { value: value.as_str().into(), condition };
                    (action, timed(exchange(&mut kv, &key, &value, revision)).await)
                }
            };
            let failed = answer.is_err();
            let (outcome, revision) = answer.unwrap_or((Outcome::Unknown, None));
            if let Some(revision) = revision {
                known[at as usize] = revision;
            }
            let (end_ns, key) = (lab.now(), key.into());
            let client = number;
            let operation = Operation { client, shard: 1, key, start_ns, end_ns, action, outcome };
            lab.recorder.add(operation);
            if failed || !lab.runs() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                break;
            }
            // A history of which every order is looked for has to stay small.
            tokio::time::sleep(Duration::from_millis(random(20))).await;
        }
    }
}

/// The outcome of an operation, and the revision that the key has then; zero if there is none.
type Done = (Outcome, Option<i64>);

async fn timed(call: impl Future<Output = Result<Done, Status>>) -> Result<Done, String> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(done) => done.map_err(|status| status.to_string()),
        Err(_) => Err("no answer".into()),
    }
}

fn range(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn put_of(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

async fn get(kv: &mut KvClient<Channel>, key: &str) -> Result<Done, Status> {
    let RangeResponse { header, kvs, .. } = kv.range(range(key)).await?.into_inner();
    let latest = header.map(|header| header.revision as u64);
    Ok(match kvs.first() {
        Some(KeyValue { value, mod_revision, .. }) => {
            let revision = Some(*mod_revision as u64);
            (Outcome::Value { value: text(value).into(), revision }, Some(*mod_revision))
        }
        None => (Outcome::Absent { revision: latest }, Some(0)),
    })
}

async fn put(kv: &mut KvClient<Channel>, key: &str, value: &str) -> Result<Done, Status> {
    let done = kv.put(put_of(key, value)).await?.into_inner();
    let revision = done.header.map(|header| header.revision);
    let outcome = Outcome::Written { revision: revision.map(|it| it as u64), existed: None };
    Ok((outcome, revision))
}

async fn delete(kv: &mut KvClient<Channel>, key: &str) -> Result<Done, Status> {
    let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let done = kv.delete_range(request).await?.into_inner();
    let revision = done.header.map(|header| header.revision as u64);
    Ok(match done.deleted {
        0 => (Outcome::Absent { revision }, Some(0)),
        _ => (Outcome::Written { revision, existed: Some(true) }, Some(0)),
    })
}

/// Puts a key if it was last written at a revision, as an API server does.
async fn exchange(
    kv: &mut KvClient<Channel>,
    key: &str,
    value: &str,
    revision: i64,
) -> Result<Done, Status> {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let operation = |request| vec![RequestOp { request: Some(request) }];
    let request = TxnRequest {
        compare: vec![compare],
        success: operation(Request::RequestPut(put_of(key, value))),
        failure: operation(Request::RequestRange(range(key))),
    };
    let done = kv.txn(request).await?.into_inner();
    let at = done.header.map(|header| header.revision);
    if done.succeeded {
        let existed = Some(revision != 0);
        return Ok((Outcome::Written { revision: at.map(|at| at as u64), existed }, at));
    }
    let found = match done.responses.into_iter().next().and_then(|response| response.response) {
        Some(Response::ResponseRange(found)) => found.kvs.first().map(|kv| kv.mod_revision),
        other => panic!("another answer: {other:?}"),
    };
    let current = Some(match found {
        Some(revision) => Current::Revision(revision as u64),
        None => Current::Absent,
    });
    Ok((Outcome::Conflict { current }, Some(found.unwrap_or_default())))
}

/// Watches all keys from the first revision on, through whichever gateway is there, until it has
/// seen `last`.
async fn watch(lab: Lab, number: u64, first: i64, last: Arc<Mutex<Option<i64>>>) -> i64 {
    let note = |event| {
        let note = WatchNote { watcher: number, shard: 1, event };
        lab.recorder.note(|history| history.watches.push(note));
    };
    let mut seen = first;
    let is_done = |seen: i64| {
        let last = *lock(&last);
        last.is_some_and(|last| seen >= last)
    };
    for turn in 0.. {
        if is_done(seen) {
            break;
        }
        let (channel, origin) = channel(lab.address(number + turn));
        let Some(mut watching) = Watching::try_on(channel, origin).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        watching.ask(RequestUnion::CreateRequest(WatchCreateRequest {
            key: "k".into(),
            range_end: "l".into(),
            start_revision: seen + 1,
            prev_kv: true,
            ..Default::default()
        }));
        note(WatchEvent::Opened { after: seen as u64, keys: None, previous: true });
        // Some streams end by themselves, so that others begin where they were.
        while let Some(answer) = watching.within(Duration::from_secs(2)).await {
            assert!(!answer.canceled, "{answer:?}");
            for event in answer.events {
                let kind = event.r#type();
                let kv = event.kv.unwrap();
                let previous = event.prev_kv.map(|kv| PreviousVersion {
                    revision: kv.mod_revision as u64,
                    value: text(&kv.value),
                });
                note(WatchEvent::Change {
                    revision: kv.mod_revision as u64,
                    key: text(&kv.key),
                    value: (kind == EventType::Put).then(|| text(&kv.value)),
                    previous,
                });
                seen = kv.mod_revision;
            }
            if is_done(seen) {
                break;
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_etcds_interface_are_linearizable_under_faults() {
    let mut network = Network::start(3).await;
    let mut faces = [Face::start(&network).await, Face::start(&network).await];
    let first = faces[0].put("first", "1").await.revision;
    let lab = Lab {
        faces: Arc::new(Mutex::new(faces.iter().map(|face| face.address).collect())),
        recorder: Recorder::default(),
        begun: Instant::now(),
        stop: Arc::default(),
    };
    let clients: Vec<_> = (1..=CLIENTS).map(|it| tokio::spawn(work(lab.clone(), it))).collect();
    let last = Arc::new(Mutex::new(None));
    let watchers: Vec<_> = (0..2)
        .map(|number| tokio::spawn(watch(lab.clone(), number, first, Arc::clone(&last))))
        .collect();
    for fault in 0..FAULTS {
        let before = lab.recorder.len();
        let more = async |count: usize| {
            eventually("clients go on", async || {
                let done = lab.recorder.len() - before;
                if done >= count { Ok(()) } else { Err(format!("{done} operations")) }
            })
            .await;
        };
        more(150).await;
        if fault % 4 == 3 {
            let at = fault / 4 % 2;
            faces[at].process.kill();
            more(300).await;
            faces[at] = Face::start(&network).await;
            lab.faces.lock().unwrap()[at] = faces[at].address;
        } else {
            let at = fault % 4 % 3;
            network.kill_node(at);
            more(300).await;
            network.start_node(at).await;
            network.settled().await;
        }
    }
    lab.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let end = faces[0].put("k-end", "1").await.revision;
    *last.lock().unwrap() = Some(end);
    let time = lab.now();
    lab.recorder.add(Operation {
        client: 0,
        shard: 1,
        key: "k-end".into(),
        start_ns: time,
        end_ns: lab.now(),
        action: Action::Put { value: "1".into(), condition: Condition::Always },
        outcome: Outcome::Written { revision: Some(end as u64), existed: None },
    });
    for watcher in watchers {
        let seen = tokio::time::timeout(Duration::from_secs(60), watcher).await;
        assert_eq!(seen.expect("it sees the end").unwrap(), end);
    }
    network.same_state().await;
    let history = lab.recorder.history();
    judge(&history);
    // A check that finds nothing wrong with anything is worth nothing.
    let mut wrong = history;
    let read =
        wrong.operations.iter_mut().rev().find_map(|operation| match &mut operation.outcome {
            Outcome::Value { value, .. } => Some(value),
            _ => None,
        });
    *read.expect("a read that found something") = "of nobody".into();
    assert!(!check(&wrong, Options::default()).holds());
}

fn judge(history: &History) {
    let known = history.operations.iter().filter(|it| it.outcome != Outcome::Unknown).count();
    assert!(known >= FAULTS * 300, "too little was done: {known} operations");
    let report = check(history, Options::default());
    if !report.holds() {
        let file = std::env::temp_dir().join(format!("etcd-history-{}.jsonl", std::process::id()));
        history.write(std::fs::File::create(&file).unwrap()).unwrap();
        panic!("{report}\nthe history is in {}", file.display());
    }
}
