//! All watches of a face share one of the network, and those that cannot do not hold them up.

use dkv_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use dkv_etcd::proto::etcdserverpb::{
    PutRequest, WatchCancelRequest, WatchCreateRequest, WatchResponse,
};
use dkv_test_support::eventually;

use super::Face;
use super::watches::Watching;
use crate::gateway::http::Http;
use crate::harness::Network;

/// Returns how many watches a face has, how many of them do not share, and how many watches of the
/// network are behind all of them.
async fn counts(face: &Face) -> [u64; 3] {
    let metrics = Http::new(false).send("GET", &face.url("/metrics"), &[], "").await.body;
    let metrics = String::from_utf8(metrics).unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).trim().parse().unwrap()
    };
    [
        value("etcd_debugging_mvcc_watcher_total "),
        value("etcd_debugging_mvcc_slow_watcher_total "),
        value("dkv_etcd_network_watches "),
    ]
}

/// Waits until a face has these watches.
pub(super) async fn wait_for(face: &Face, expected: [u64; 3]) {
    eventually("a face has other watches", async || {
        let found = counts(face).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    })
    .await;
}

fn revisions(answer: &WatchResponse) -> impl Iterator<Item = i64> {
    answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watches_of_a_prefix_are_one_of_the_network() {
    const WATCHES: i64 = 300;
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let first = face.put("a/1", "v").await.revision;
    assert_eq!(counts(&face).await, [0, 0, 0], "nothing is watched for nobody");
    let mut watching = Watching::start(&face).await;
    let create = |watching: &Watching, number: i64, start_revision: i64| {
        // Those of prefixes, of other prefixes, and of single keys, in the past and from now on.
        let (key, range_end) = match number % 3 {
            0 => ("a/", "a0"),
            1 => ("b/", "b0"),
            _ => ("a/1", ""),
        };
        watching.ask(RequestUnion::CreateRequest(WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            prev_kv: number % 2 == 0,
            watch_id: number,
            ..WatchCreateRequest::default()
        }));
    };
    for number in 1..=WATCHES {
        create(&watching, number, 0);
        assert!(watching.next().await.created);
    }
    wait_for(&face, [WATCHES as u64, 0, 1]).await;
    let second = face.put("a/1", "w").await.revision;
    let mut seen = 0;
    while seen < WATCHES * 2 / 3 {
        let answer = watching.next().await;
        assert_ne!(answer.watch_id % 3, 1, "nothing of another prefix");
        assert_eq!(revisions(&answer).collect::<Vec<_>>(), [second]);
        let previous = answer.events[0].prev_kv.as_ref().map(|previous| &previous.value[..]);
        assert_eq!(previous, (answer.watch_id % 2 == 0).then_some(&b"v"[..]));
        seen += 1;
    }
    // One of the past reads that by itself, and shares the rest.
    create(&watching, WATCHES + 3, first);
    assert!(watching.next().await.created);
    let mut past = Vec::new();
    while past.len() < 2 {
        past.extend(revisions(&watching.next().await));
    }
    assert_eq!(past, [first, second]);
    wait_for(&face, [WATCHES as u64 + 1, 0, 1]).await;
    // One of a key that cannot be is refused as it always was.
    watching.ask(RequestUnion::CreateRequest(WatchCreateRequest {
        key: vec![b'k'; 5000].into(),
        ..WatchCreateRequest::default()
    }));
    assert!(watching.next().await.created);
    let refused = watching.next().await;
    assert!(refused.canceled && !refused.cancel_reason.is_empty(), "{refused:?}");
    for number in 2..=WATCHES {
        watching.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: number }));
        assert!(watching.next().await.canceled);
    }
    wait_for(&face, [2, 0, 1]).await;
    drop(watching);
    wait_for(&face, [0, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_not_read_falls_out_and_catches_up() {
    const WRITES: i64 = 600;
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let first = face.put("k", "v").await.revision + 1;
    let (mut quick, mut slow) = (Watching::start(&face).await, Watching::start(&face).await);
    for watching in [&mut quick, &mut slow] {
        watching.create(0, 0);
        assert!(watching.next().await.created);
    }
    wait_for(&face, [2, 0, 1]).await;
    // More than the face has of recent changes, and than is on the way to a caller.
    let value = "v".repeat(64 * 1024);
    let written = async {
        let mut last = 0;
        for _ in 0..WRITES {
            last = face.put("k", &value).await.revision;
        }
        last
    };
    let watched = async {
        let mut seen = Vec::new();
        while seen.len() < WRITES as usize {
            seen.extend(revisions(&quick.next().await));
        }
        seen
    };
    let (last, seen) = tokio::join!(written, watched);
    let all: Vec<i64> = (first..=last).collect();
    assert_eq!(seen, all, "the other one is not held up");
    eventually("the one that is not read has fallen out", async || match counts(&face).await {
        [2, 1, _] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let mut caught_up = Vec::new();
    let mut previous = first - 1;
    while caught_up.len() < all.len() {
        let answer = slow.next().await;
        caught_up.extend(revisions(&answer));
        for event in &answer.events {
            let before = event.prev_kv.as_ref().unwrap().mod_revision;
            assert_eq!(before, previous);
            previous = event.kv.as_ref().unwrap().mod_revision;
        }
    }
    assert_eq!(caught_up, all, "each revision once, in order");
    wait_for(&face, [2, 0, 1]).await;
    // It shares again.
    let next = face.put("k", "next").await.revision;
    for watching in [&mut quick, &mut slow] {
        assert_eq!(revisions(&watching.next().await).collect::<Vec<_>>(), [next]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_share_go_on_where_they_were_when_the_node_dies() {
    let mut network = Network::start(3).await;
    let face = Face::start(&network).await;
    let first = face.put("k", "v").await.revision + 1;
    let mut watching = Watching::start(&face).await;
    for number in 1..=50 {
        watching.create(number, 0);
        assert!(watching.next().await.created);
    }
    for at in 0..3 {
        network.kill_node(at);
        let revision = eventually("a put after the node has died", async || {
            let put = PutRequest { key: "k".into(), ..PutRequest::default() };
            let put = face.kv().put(put).await.map_err(|error| error.to_string())?;
            Ok(put.into_inner().header.unwrap().revision)
        })
        .await;
        assert!(revision >= first);
        let mut seen = [None; 51];
        while seen[1..].iter().any(|seen| *seen != Some(revision)) {
            let answer = watching.next().await;
            for shown in revisions(&answer) {
                let before = seen[answer.watch_id as usize].replace(shown);
                assert!(before.is_none_or(|before| before + 1 == shown));
            }
        }
        network.start_node(at).await;
        assert_eq!(counts(&face).await, [50, 0, 1]);
    }
}
