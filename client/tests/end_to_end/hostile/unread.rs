//! Answers that their clients do not read. No node keeps more of them than it may.

use std::time::Duration;

use dkv_api::{GroupId, KeyspaceId, Role};
use dkv_test_support::{eventually, within};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Refusal, Reply, Request, RequestBody};

use super::{Besieged, GROWTH_BYTES_MAX, MIB, OVERWRITTEN, large};
use crate::harness::PATIENCE;
use crate::harness::direct::{Direct, ask};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers() {
    let mut besieged = Besieged::start().await;
    besieged.client.write("large", vec![7; MIB]).await.unwrap();
    let view = besieged.client.view().await.unwrap();
    let shard = view.shard_of(KeyspaceId::DEFAULT, b"large").unwrap();
    let primary = besieged.network.index_of(shard.primary.unwrap());
    let direct = Direct::join(&besieged.network, Role::Client).await;
    let connection = direct.to_node(besieged.network.nodes[primary].address()).await.unwrap();
    let mut held = Vec::new();
    // Requests one MiB twenty thousand times.
    for _ in 0..20 {
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::Requests);
        for id in 0..1000 {
            writer.push(&Request {
                id,
                deadline_ms: 10_000,
                forward: false,
                user: None,
                body: RequestBody::Read {
                    shard: shard.group,
                    key: "large".into(),
                    mode: dkv_wire::message::ReadMode::Primary,
                },
            });
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), writer.flush()).await;
        held.push((writer, receive));
    }
    besieged.check().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    besieged.check().await;
}

/// Streams of requests for large values whose answers nobody reads yet.
struct Unread {
    connection: quinn::Connection,
    shard: GroupId,
    forward: bool,
    streams: Vec<(FrameWriter<quinn::SendStream>, FrameReader<quinn::RecvStream>)>,
}

impl Unread {
    async fn open(besieged: &Besieged, node: usize, forward: bool) -> Self {
        let direct = Direct::join(&besieged.network, Role::Client).await;
        let address = besieged.network.nodes[node].address();
        let connection = direct.to_node(address).await.unwrap();
        let view = besieged.client.view().await.unwrap();
        let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap().group;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let (send, receive) = connection.open_bi().await.unwrap();
            let mut writer = FrameWriter::new(send);
            writer.push(&Opening::Requests);
            streams.push((writer, FrameReader::new(receive, FRAME_BYTES_MAX)));
        }
        Self { connection, shard, forward, streams }
    }

    fn request(&self, number: usize) -> Request {
        let mode = dkv_wire::message::ReadMode::Primary;
        let body = RequestBody::Read { shard: self.shard, key: large(number).into(), mode };
        let (id, forward) = (number as u64, self.forward);
        // All are to be decided, however busy the machine is.
        Request { id, deadline_ms: 300_000, forward, user: None, body }
    }

    async fn ask(&mut self, number: usize) {
        let request = self.request(number);
        let at = number % self.streams.len();
        self.streams[at].0.send(&request).await.unwrap();
    }

    /// Reads so many answers of each stream. Returns how many had values, and how many were
    /// refused.
    async fn read(self, each: usize) -> [usize; 2] {
        // Together, because one that is not read holds up the others of its connection.
        let mut reading = tokio::task::JoinSet::new();
        for (writer, mut reader) in self.streams {
            let forward = self.forward;
            reading.spawn(async move {
                let mut answered = [0, 0];
                for _ in 0..each {
                    let reply = within(PATIENCE, "an answer", reader.next()).await;
                    match decode::<Reply>(&reply.unwrap().unwrap()).unwrap().result {
                        Ok(Answer::Value(_, Some(it))) if it.value.len() == MIB => answered[0] += 1,
                        Err(Refusal::Overloaded { .. }) => answered[1] += 1,
                        // The primary may have changed meanwhile, on a busy machine.
                        Err(Refusal::Unavailable(_)) if forward => {}
                        other => panic!("{other:?}"),
                    }
                }
                drop(writer);
                answered
            });
        }
        let answered = reading.join_all().await;
        [0, 1].map(|kind| answered.iter().map(|it| it[kind]).sum())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_that_share_no_value() {
    const FORWARDED: usize = 400;
    let mut besieged = Besieged::with_large_values().await;
    let view = besieged.client.view().await.unwrap();
    let primary = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap().primary.unwrap();
    let primary = besieged.network.index_of(primary);

    // Each value is overwritten once it was asked for.
    let mut unread = Unread::open(&besieged, primary, false).await;
    for number in 0..OVERWRITTEN {
        unread.ask(number).await;
        besieged.client.write(large(number), vec![number as u8; MIB]).await.unwrap();
    }
    besieged.check().await;
    let connection = unread.connection.clone();
    let again = unread.request(0).body;
    let [served, refused] = unread.read(OVERWRITTEN / 20).await;
    assert!(served >= 30 && refused >= 200, "{served} were served, {refused} refused");
    // The room of the last answers is free once they are written, perhaps after they are read.
    eventually("no room becomes free", async || {
        match ask(&connection, again.clone()).await.unwrap() {
            Ok(Answer::Value(..)) => Ok(()),
            other => Err(format!("{:?}", other.map(|_| ()))),
        }
    })
    .await;

    // Another node gets a copy of its own for each answer.
    besieged.note_memory().await;
    let mut unread = Unread::open(&besieged, (primary + 1) % 3, true).await;
    for number in 0..FORWARDED {
        unread.ask(number).await;
    }
    // Until all are decided. Beside the answers that wait there are those under way between the
    // nodes.
    besieged.memory_at_rest(Some(2 * GROWTH_BYTES_MAX)).await;
    let [served, refused] = unread.read(FORWARDED / 20).await;
    assert!(served >= 30 && refused >= 50, "{served} were served, {refused} refused");
    besieged.check().await;
}
