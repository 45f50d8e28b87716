//! Watches and reads of the past at every node, without the client library.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_api::{GroupId, Revision, Role};
use dkv_test_support::within;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, KeyRange, Opening, Refusal, RequestBody, WatchFrame, WatchRequest,
};
use dkv_wire::tls::Expect;
use serde_json::json;

use crate::harness::direct::{Direct, ask};
use crate::harness::{Network, PATIENCE, eventually};

const SHARD: GroupId = GroupId(1);
/// Time after which a node that sends nothing is given up: it sends something every five seconds.
const SILENCE: Duration = Duration::from_secs(8);

/// A watch on one node's stream.
struct Stream {
    reader: FrameReader<quinn::RecvStream>,
    _writer: FrameWriter<quinn::SendStream>,
    _connection: quinn::Connection,
}

impl Stream {
    async fn open(direct: &Direct, node: SocketAddr, after: Option<Revision>) -> Option<Self> {
        let connecting = direct.endpoint.connect_to_watch(node, Expect::AnyNode);
        let connection = connecting.await.ok()?;
        let (send, receive) = connection.open_bi().await.ok()?;
        let mut writer = FrameWriter::new(send);
        let keys = KeyRange::Prefix("watched/".into());
        writer.push(&Opening::Watch);
        writer
            .send(&WatchRequest { shard: SHARD, keys, after, previous: false, user: None })
            .await
            .ok()?;
        let reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        Some(Self { reader, _writer: writer, _connection: connection })
    }

    /// Returns the next frame; `None` if the node is gone.
    async fn frame(&mut self) -> Option<WatchFrame> {
        let frame = tokio::time::timeout(SILENCE, self.reader.next()).await.ok()?.ok()??;
        Some(decode(&frame).unwrap())
    }
}

/// Watches from `start` on, at one node after the other, until it has seen `last`. Returns the
/// revisions that it saw.
async fn watch_until(
    direct: Direct,
    nodes: Vec<SocketAddr>,
    start: usize,
    mut last: tokio::sync::watch::Receiver<Option<Revision>>,
) -> Vec<Revision> {
    let (mut seen, mut through, mut at) = (Vec::new(), Revision(0), start);
    loop {
        let Some(mut stream) = Stream::open(&direct, nodes[at], Some(through)).await else {
            at = (at + 1) % nodes.len();
            continue;
        };
        loop {
            if last.borrow_and_update().is_some_and(|last| through >= last) {
                return seen;
            }
            match stream.frame().await {
                Some(WatchFrame::Changes { changes, through: to }) => {
                    assert!(to >= through, "from {through} back to {to}");
                    for change in changes {
                        let revision = change.version.revision;
                        assert!(revision > through && revision <= to, "{revision} after {through}");
                        seen.push(revision);
                    }
                    through = to;
                }
                // It is killed, or restarting.
                None
                | Some(WatchFrame::Ended(Refusal::Unavailable(_) | Refusal::NotPrimary { .. })) => {
                    at = (at + 1) % nodes.len();
                    break;
                }
                Some(WatchFrame::Ended(refusal)) => panic!("{refusal}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_each_change_once_and_another_goes_on_after_a_kill() {
    let mut network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let nodes: Vec<_> = network.nodes.iter().map(|node| node.address()).collect();
    let (done, last) = tokio::sync::watch::channel(None);
    let mut watching = Vec::new();
    for start in 0..3 {
        let direct = Direct::join(&network, Role::Client).await;
        watching.push(tokio::spawn(watch_until(direct, nodes.clone(), start, last.clone())));
    }
    let mut written = Vec::new();
    let mut latest = Revision(0);
    for number in 0..600 {
        if number == 200 {
            let view = client.refresh().await.unwrap();
            let led = view.shards.iter().find(|shard| shard.group == SHARD);
            let primary = network.index_of(led.unwrap().primary.unwrap());
            network.kill_node(primary);
        }
        let watched = number % 3 != 0;
        let key = format!("{}/{}", if watched { "watched" } else { "other" }, number % 7);
        latest = client.write(key, format!("{number}")).await.unwrap().receipt.revision;
        if watched {
            written.push(latest);
        }
    }
    done.send(Some(latest)).unwrap();
    for watching in watching {
        let seen = within(PATIENCE, "watching", watching).await.unwrap();
        assert_eq!(seen, written);
    }

    // The past is the same at every node, and nobody knows the future.
    let direct = Direct::join(&network, Role::Admin).await;
    let mut connections = Vec::new();
    for index in network.running() {
        connections.push(direct.to_node(nodes[index]).await.unwrap());
    }
    let key = bytes::Bytes::from("watched/1");
    for connection in &connections {
        let read = |revision: Revision| RequestBody::ReadAt {
            shard: SHARD,
            key: key.clone(),
            at: revision.into(),
        };
        let version = match ask(connection, read(latest)).await.unwrap() {
            Ok(Answer::VersionAt(_, version)) => version.unwrap(),
            other => panic!("{other:?}"),
        };
        // The last write of the key.
        assert_eq!(version.value, Some("596".into()));
        let asked = Revision(latest.0 + 1);
        assert_eq!(
            ask(connection, read(asked)).await.unwrap(),
            Err(Refusal::NotYet { asked, latest })
        );
    }

    // Below the floor no node serves a watch.
    let floor = Revision(300);
    eventually("the history is not compacted", async || {
        for connection in &connections {
            let body = RequestBody::Compact { shard: SHARD, floor };
            match ask(connection, body).await.unwrap() {
                Ok(Answer::Compacted { .. }) => return Ok(()),
                Err(Refusal::NotPrimary { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        Err("there is no primary".to_owned())
    })
    .await;
    for index in network.running() {
        eventually("a node shows what is compacted", async || {
            // The changes at the floor are there.
            let after = Some(Revision(floor.0 - 2));
            let mut stream = Stream::open(&direct, nodes[index], after).await.unwrap();
            match stream.frame().await {
                Some(WatchFrame::Ended(Refusal::Compacted { floor: said })) if said == floor => {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    network.assert_alive();
}
