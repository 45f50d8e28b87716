//! The connection to one node: two long-lived streams of requests and their replies.
//!
//! Small requests share one stream. Large ones, and reads of keys whose values are known to be
//! large, share the other, so that a value of megabytes does not delay other answers. One task
//! serves each stream: it writes everything that waits in one piece and passes on all replies that
//! have arrived in one batch. Long values are not copied: each is in memory once until the node
//! acknowledges it. The first request opens the stream.
//!
//! The queues need no bound of their own: a queued request holds a permit of the client and is in
//! each queue at most once.
//!
//! This module knows nothing of the router. It reports to an [`Observer`], which the driver
//! implements.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::codec::{decode, encode_ending};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Opening, Reply, Request};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::tls::Expect;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::debug;

use crate::registration_server::is_denial;
use crate::router::OutgoingRequest;

/// Requests that are encoded, and replies that are passed on, in one batch.
const BATCH: usize = 256;
/// Bytes that are collected before they are written.
const FLUSH_BYTES: usize = 64 * 1024;

/// Which connection to which node an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    pub(crate) node: NodeId,
    /// Number of the connection among all to this node.
    pub(crate) generation: u64,
}

/// Receives what happens on a connection.
pub(crate) trait Observer {
    /// Returns the time since the client was created.
    fn now(&self) -> Duration;

    /// The connection was not established.
    fn connect_failed(&self, id: ConnectionId, why: &str);

    /// The connection is established. Returns whether it is still wanted.
    fn connected(&self, id: ConnectionId, connection: NodeConnection) -> bool;

    /// Replies have arrived. Drains `replies`.
    fn handle_replies(&self, id: ConnectionId, replies: &mut Vec<Reply>);

    /// The established connection is lost; `denied` if the node refuses our certificate.
    fn connection_lost(&self, id: ConnectionId, why: &str, denied: bool);
}

/// An established connection, as the senders of requests see it.
pub(crate) struct NodeConnection {
    pub(crate) generation: u64,
    connection: quinn::Connection,
    small: UnboundedSender<OutgoingRequest>,
    bulk: UnboundedSender<OutgoingRequest>,
}

impl NodeConnection {
    /// Queues a request. If the connection is lost, the observer learns that and not the fate of
    /// this request.
    pub(crate) fn send(&self, outgoing: OutgoingRequest) {
        let queue = if outgoing.bulk { &self.bulk } else { &self.small };
        let _ = queue.send(outgoing);
    }

    /// Returns the current estimate of the round-trip time of a packet.
    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    pub(crate) fn close(&self, why: &str) {
        Close::Done.close(&self.connection, why);
    }
}

/// Connects to a node and serves the connection until it is lost.
pub(crate) async fn run(
    observer: &impl Observer,
    endpoint: &Endpoint,
    id: ConnectionId,
    address: SocketAddr,
) {
    let connection = match endpoint.connect(address, Expect::Node(id.node)).await {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%error, "cannot connect");
            return observer.connect_failed(id, &error.to_string());
        }
    };
    let (small, small_queue) = unbounded_channel();
    let (bulk, bulk_queue) = unbounded_channel();
    let generation = id.generation;
    let sender = NodeConnection { generation, connection: connection.clone(), small, bulk };
    if !observer.connected(id, sender) {
        return Close::Done.close(&connection, "not needed any more");
    }
    let streams = Streams { observer, connection: &connection, id };
    let why = tokio::select! {
        biased;
        _ = connection.closed() => String::new(),
        why = streams.serve(small_queue) => why,
        why = streams.serve(bulk_queue) => why,
    };
    let (why, denied) = match connection.close_reason() {
        Some(reason) => {
            let denied = is_denial(&reason);
            (ConnectError::from_lost(address, &reason).to_string(), denied)
        }
        None => (why, false),
    };
    Close::Protocol.close(&connection, &why);
    debug!(%address, why, "connection lost");
    observer.connection_lost(id, &why, denied);
}

/// The streams of an established connection.
struct Streams<'a, O> {
    observer: &'a O,
    connection: &'a quinn::Connection,
    id: ConnectionId,
}

impl<O: Observer> Streams<'_, O> {
    /// Serves one stream; returns why it ended.
    async fn serve(&self, mut queue: UnboundedReceiver<OutgoingRequest>) -> String {
        let mut batch = Vec::with_capacity(BATCH);
        if queue.recv_many(&mut batch, BATCH).await == 0 {
            // The senders are gone; the connection's own end is reported elsewhere.
            return std::future::pending().await;
        }
        let (send, receive) = match self.connection.open_bi().await {
            Ok(streams) => streams,
            Err(error) => return error.to_string(),
        };
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::Requests);
        tokio::select! {
            biased;
            why = self.write(writer, queue, batch) => why,
            why = self.read(FrameReader::new(receive, FRAME_BYTES_MAX)) => why,
        }
    }

    async fn write(
        &self,
        mut writer: FrameWriter<quinn::SendStream>,
        mut queue: UnboundedReceiver<OutgoingRequest>,
        mut batch: Vec<OutgoingRequest>,
    ) -> String {
        loop {
            let now = self.observer.now();
            for outgoing in batch.drain(..) {
                let left = outgoing.deadline.saturating_sub(now).as_millis();
                if left == 0 {
                    // The router is about to fail this request with a timeout.
                    continue;
                }
                let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
                let (body, long) = outgoing.payload.body();
                let (id, user) = (outgoing.id, outgoing.user);
                let request = Request { id, deadline_ms, forward: false, user, body };
                let sent = if !long.is_empty() {
                    writer.send_parts(encode_ending(&request, long)).await
                } else {
                    writer.push(&request);
                    if writer.pending() > FLUSH_BYTES { writer.flush().await } else { Ok(()) }
                };
                if let Err(error) = sent {
                    return error.to_string();
                }
            }
            if let Err(error) = writer.flush().await {
                return error.to_string();
            }
            if queue.recv_many(&mut batch, BATCH).await == 0 {
                return std::future::pending().await;
            }
        }
    }

    async fn read(&self, mut reader: FrameReader<quinn::RecvStream>) -> String {
        let mut replies: Vec<Reply> = Vec::with_capacity(BATCH);
        loop {
            let mut frame = match reader.next().await {
                Ok(Some(frame)) => Some(frame),
                Ok(None) => return "the node closed the stream".into(),
                Err(error) => return error.to_string(),
            };
            let mut broken = None;
            while let Some(content) = frame.take() {
                match decode::<Reply>(&content) {
                    Ok(reply) => replies.push(reply),
                    Err(error) => broken = Some(error.to_string()),
                }
                if broken.is_none() && replies.len() < BATCH {
                    match reader.try_next() {
                        Ok(next) => frame = next,
                        Err(error) => broken = Some(error.to_string()),
                    }
                }
            }
            self.observer.handle_replies(self.id, &mut replies);
            if let Some(why) = broken {
                return why;
            }
        }
    }
}
