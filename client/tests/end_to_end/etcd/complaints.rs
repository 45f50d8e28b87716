//! What users of etcd have complained about, a test each. The numbers are those of etcd's issues;
//! docs/etcd.md lists them all.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dkv_etcd::proto::etcdserverpb::request_op::Request;
use dkv_etcd::proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use dkv_etcd::proto::mvccpb::event::EventType;
use dkv_test_support::eventually;
use futures::StreamExt;
use serde_json::json;
use tonic::Code;

use super::watches::Watching;
use super::{Face, prefix};
use crate::harness::Network;

/// Longest time that a write may take beside something that stops etcd, on a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(2);

fn large(key: &str, bytes: usize) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..Default::default() }
}

/// Writes until `work` has ended; returns its result and the longest time of a write.
async fn beside<T>(face: &Face, work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = std::pin::pin!(work);
    let mut longest = Duration::ZERO;
    let mut kv = face.kv();
    loop {
        let begun = Instant::now();
        tokio::select! {
            done = &mut work => return (done, longest),
            put = kv.put(large("beside", 10)) => drop(put.unwrap()),
        }
        longest = longest.max(begun.elapsed());
    }
}

/// #9992, #16779, #20115: a full store refuses writes until an operator compacts, defragments and
/// disarms an alarm. Here a delete is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_writes_again_once_there_is_room() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.put("first", "1").await;
    let set = network.dkv(&["keyspace", "set", "etcd", "--quota", "256KiB"]).await;
    assert!(set.status.success(), "{set:?}");
    let mut kv = face.kv();
    let refused = eventually("the quota holds", async || {
        for number in 0..40 {
            if let Err(refused) = kv.put(large(&format!("k{number}"), 16 * 1024)).await {
                return Ok(refused);
            }
        }
        Err("not yet".into())
    })
    .await;
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let (_, alarms) = face.post("/v3/maintenance/alarm", json!({})).await;
    assert!(alarms.get("alarms").is_none(), "nothing is to be disarmed: {alarms}");
    kv.range(prefix("k")).await.unwrap();
    let all = DeleteRangeRequest { range_end: "l".into(), key: "k".into(), ..Default::default() };
    kv.delete_range(all).await.unwrap();
    eventually("there is room again", async || {
        kv.put(large("k", 16 * 1024)).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// #9222, #15477: a defragmentation stops the member. #9506, #11421, #19406: a large compaction
/// does so, too. This shows that no write stands still for seconds beside a compaction of 20,000
/// revisions; the shorter pauses of larger ones it does not measure. A defragmentation has nothing
/// to do here, and is answered at once.
#[tokio::test(flavor = "multi_thread")]
async fn neither_compaction_nor_defragmentation_stops_writes() {
    let network = Network::start(3).await;
    let face = Face::start(&network).await;
    let mut kv = face.kv();
    let puts = (0..20_000).map(|number| {
        let mut kv = kv.clone();
        async move { kv.put(large(&format!("k{}", number % 100), 100)).await.unwrap() }
    });
    futures::stream::iter(puts).buffer_unordered(128).for_each(async |_| {}).await;
    let revision = face.put("last", "1").await.revision;
    let (done, longest) = beside(&face, async {
        let compact = CompactionRequest { revision, physical: true };
        kv.compact(compact).await.unwrap();
        face.maintenance().defragment(DefragmentRequest {}).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), async {
            // Readers miss compacted revisions at once; memory is freed bit by bit.
            for _ in 0..50 {
                kv.range(RangeRequest { limit: 10, ..prefix("k") }).await.unwrap();
            }
        })
        .await
    })
    .await;
    done.unwrap();
    assert!(longest < PAUSE_MAX, "a write took {longest:?}");
    let early = RangeRequest { revision: revision - 1, ..prefix("k") };
    assert_eq!(face.kv().range(early).await.unwrap_err().code(), Code::OutOfRange);
}

/// #15402, #17529: large lists on the connection of a watch starve it, and its events get lost.
/// #16839: what it has not been sent yet fills the memory.
#[tokio::test(flavor = "multi_thread")]
async fn large_lists_do_not_starve_a_watch_of_the_same_connection() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let first = face.put("k", "first").await.revision;
    let (channel, origin) = face.channel();
    let kv = super::KvClient::with_origin(channel.clone(), origin.clone())
        .max_decoding_message_size(usize::MAX);
    for number in 0..32 {
        kv.clone().put(large(&format!("list/{number:02}"), 128 * 1024)).await.unwrap();
    }
    let mut watching = Watching::on(channel, origin, Default::default()).await;
    watching.create(0, first);
    assert!(watching.next().await.created);
    const WRITES: i64 = 200;
    let (written, seen_beside) = (Cell::new(false), Cell::new(0));
    let seen = RefCell::new(Vec::new());
    // Lists go on for as long as there are writes, and are all there is on the connection beside
    // the watch.
    let lists = async {
        let lister = async || {
            let mut kv = kv.clone();
            while !written.get() {
                assert_eq!(kv.range(prefix("list/")).await.unwrap().into_inner().count, 32);
            }
        };
        futures::future::join_all((0..12).map(|_| lister())).await;
        seen_beside.set(seen.borrow().len());
    };
    let writes = async {
        let mut last = 0;
        for number in 0..WRITES {
            last = face.put("k", &number.to_string()).await.revision;
        }
        written.set(true);
        last
    };
    let watched = async {
        let last = first + 32 + WRITES;
        while seen.borrow().last() != Some(&last) {
            let events = watching.next().await.events;
            let revisions = events.iter().filter_map(|it| Some(it.kv.as_ref()?.mod_revision));
            seen.borrow_mut().extend(revisions);
        }
    };
    let ((), last, ()) = tokio::join!(lists, writes, watched);
    let beside = seen_beside.get();
    assert!(beside >= 32 + WRITES as usize / 2, "{beside} events came before the lists ended");
    assert_eq!(
        seen.into_inner(),
        (first..=last).collect::<Vec<_>>(),
        "each revision once, in order"
    );
}

/// #20221: a watch of the future shows what came before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_future_shows_nothing_earlier() {
    let mut network = Network::start(1).await;
    let face = Face::start_with(&network, &["--etcd-progress", "100ms"]).await;
    let first = face.put("k", "0").await.revision;
    let mut watching = Watching::start(&face).await;
    watching.create(0, first + 5);
    assert!(watching.next().await.created);
    for number in 1..=4 {
        face.put("k", &number.to_string()).await;
        if number == 2 {
            network.kill_node(0);
            network.start_node(0).await;
        }
    }
    let put = face.put("k", "5").await.revision;
    assert_eq!(put, first + 5);
    let answer = loop {
        let answer = watching.next().await;
        if !answer.events.is_empty() {
            break answer;
        }
    };
    let shown: Vec<i64> =
        answer.events.iter().map(|it| it.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(shown, [put]);
}

/// #18089, #19179: a compaction takes the deletion at its own revision away from watches.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_the_compacted_revision_is_watched() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.put("k", "1").await;
    let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
    let deleted = face.kv().delete_range(delete).await.unwrap().into_inner();
    let revision = deleted.header.unwrap().revision;
    face.put("other", "1").await;
    face.kv().compact(CompactionRequest { revision, physical: true }).await.unwrap();
    let mut watching = Watching::start(&face).await;
    watching.create(0, revision);
    assert!(watching.next().await.created);
    let events = watching.next().await.events;
    let kv = events[0].kv.as_ref().unwrap();
    assert_eq!((events[0].r#type(), kv.mod_revision), (EventType::Delete, revision));
}

/// #15220, #15271: events come twice, not at all or after the progress that covers them, and a
/// watch travels back in time once members change. #13766, #14211, #14370, #14685, #20059: members
/// that were killed differ from the others, or lack what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_killed_lose_nothing_and_watches_go_on() {
    let mut network = Network::start(3).await;
    let face = Face::start(&network).await;
    let first = face.put("k", "first").await.revision;
    let mut watching = Watching::start(&face).await;
    watching.create(0, first);
    assert!(watching.next().await.created);
    let mut acknowledged = BTreeMap::new();
    for index in 0..3 {
        let writing = async {
            for number in 0..60 {
                let key = format!("k{index}-{number}");
                let mut kv = face.kv();
                let put = || large(&key, 100);
                if let Ok(done) = kv.put(put()).await {
                    let revision = done.into_inner().header.unwrap().revision;
                    acknowledged.insert(key, revision);
                }
            }
        };
        let killing = async {
            dkv_test_support::for_a_while(30).await;
            network.kill_node(index);
            network.start_node(index).await;
        };
        tokio::join!(writing, killing);
        network.settled().await;
    }
    let last = face.put("k", "last").await.revision;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(revision, _)| *revision < last) {
        for event in watching.next().await.events {
            let kv = event.kv.unwrap();
            seen.push((kv.mod_revision, String::from_utf8(kv.key.to_vec()).unwrap()));
        }
    }
    assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "in order, and each once");
    assert!(acknowledged.len() >= 100, "most writes are taken: {}", acknowledged.len());
    let seen: BTreeMap<String, i64> =
        seen.into_iter().map(|(revision, key)| (key, revision)).collect();
    let stored = face.kv().range(prefix("k")).await.unwrap().into_inner();
    let stored: BTreeMap<String, i64> = stored
        .kvs
        .iter()
        .map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision))
        .collect();
    for (key, revision) in &acknowledged {
        assert_eq!(stored.get(key), Some(revision), "{key} is stored");
        assert_eq!(seen.get(key), Some(revision), "{key} is watched");
    }
    network.same_state().await;
}

/// #12342, #12678: a large list takes memory of the member many times over.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_list_takes_little_memory() {
    const KEYS: usize = 100_000;
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let puts = (0..KEYS / 100).map(|part| {
        let put = |number| Request::RequestPut(large(&format!("k{number:06}"), 1024));
        let puts = (part * 100..(part + 1) * 100).map(put);
        let success = puts.map(|put| RequestOp { request: Some(put) }).collect();
        let mut kv = face.kv();
        async move { kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap() }
    });
    futures::stream::iter(puts).buffer_unordered(8).for_each(async |_| {}).await;
    let read = async |face: &Face| {
        let mut stream = face.kv().range_stream(prefix("k")).await.unwrap().into_inner();
        let (mut keys, mut most) = (0, 0);
        while let Some(part) = stream.message().await.unwrap() {
            keys += part.range_response.unwrap().kvs.len();
            most = most.max(face.process.memory_bytes());
        }
        assert_eq!(keys, KEYS);
        most
    };
    // A face that has done nothing yet.
    let fresh = Face::start(&network).await;
    fresh.kv().range(RangeRequest { limit: 1, ..prefix("k") }).await.unwrap();
    let before = fresh.process.memory_bytes();
    let most = read(&fresh).await;
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown <= 16, "the face has grown by {grown} MiB for a list of {} MiB", KEYS >> 10);
}

/// #15247, #11886: leases end because a leader stood still or changed. #12528: a lease that has
/// ended is kept alive. #13294: keys go with a lease that they had before.
#[tokio::test(flavor = "multi_thread")]
async fn no_lease_ends_early_and_none_that_has_ended_is_kept_alive() {
    let mut network = Network::start(3).await;
    let face = Face::start(&network).await;
    let mut lease = face.lease();
    let granted = lease.lease_grant(LeaseGrantRequest { ttl: 5, id: 5 }).await.unwrap();
    assert_eq!(granted.into_inner().ttl, 5);
    let leased = |key: &'static str, lease| PutRequest {
        key: key.into(),
        value: "v".into(),
        lease,
        ..Default::default()
    };
    face.kv().put(leased("session", 5)).await.unwrap();
    face.kv().put(leased("former", 5)).await.unwrap();
    face.kv().put(leased("former", 0)).await.unwrap();
    // Each node in turn stops in its middle: the lease goes on, as long as it is kept alive.
    let begun = Instant::now();
    for index in 0..3 {
        let kept = async || {
            let request = futures::stream::iter([LeaseKeepAliveRequest { id: 5 }]);
            let answer = face.lease().lease_keep_alive(request).await;
            let answer = answer.map_err(|error| error.to_string())?.into_inner().next().await;
            match answer {
                Some(Ok(answer)) if answer.ttl > 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        eventually("the lease is kept alive", &kept).await;
        network.kill_node(index);
        eventually("the lease outlives the node", &kept).await;
        network.start_node(index).await;
        network.settled().await;
        eventually("the lease is kept alive", &kept).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(500));
    let now = face.kv().range(prefix("session")).await.unwrap().into_inner();
    assert_eq!(now.count, 1, "its key is there");
    // No client keeps it alive any more.
    let ended = eventually("the lease ends", async || {
        let now = face.kv().range(prefix("session")).await.unwrap().into_inner();
        if now.count == 0 { Ok(()) } else { Err("its key is there".into()) }
    });
    ended.await;
    let request = futures::stream::iter([LeaseKeepAliveRequest { id: 5 }]);
    let answers = face.lease().lease_keep_alive(request).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().ttl).collect().await;
    assert_eq!(answers, [0], "what has ended is not kept alive");
    let former = face.kv().range(prefix("former")).await.unwrap().into_inner();
    assert_eq!(former.count, 1, "it was put without the lease since");
}
