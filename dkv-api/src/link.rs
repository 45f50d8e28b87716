//! The connection to one node: two long-lived streams of requests and their replies.
//!
//! Small requests share one stream; large ones, and reads of keys known to be large, share another,
//! so that a value of megabytes delays nobody else's answer. Each stream has one task, which writes
//! all that waits as one piece and hands on all replies that have arrived at once. A long value is
//! not copied for that: until it is acknowledged it is in memory once. A stream is opened with its
//! first request.
//!
//! The queues need no bound of their own: a request holds a permit of the client while it is in
//! one, and is in each at most once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::codec::{decode, encode_ending};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Opening, Reply, Request};
use dkv_wire::quic::{Close, ConnectError};
use dkv_wire::tls::Expect;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::debug;

use crate::router::Sending;
use crate::server::is_denial;
use crate::shared::Shared;

/// Requests that are encoded, and replies that are handed on, in one go.
const BATCH: usize = 256;
/// Bytes that are collected before they are written.
const FLUSH_BYTES: usize = 64 * 1024;

/// A connection that is up, as the senders of requests see it.
pub(crate) struct Link {
    pub(crate) generation: u64,
    connection: quinn::Connection,
    small: UnboundedSender<Sending>,
    bulk: UnboundedSender<Sending>,
}

impl Link {
    /// Queues a request. If the connection is lost, the router hears of that and not of this.
    pub(crate) fn send(&self, sending: Sending) {
        let queue = if sending.bulk { &self.bulk } else { &self.small };
        let _ = queue.send(sending);
    }

    /// Time that a packet and its acknowledgement take, as measured by now.
    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    pub(crate) fn close(&self, why: &str) {
        Close::Done.close(&self.connection, why);
    }
}

/// Connects to a node and serves the connection until it is lost.
pub(crate) async fn run(shared: Arc<Shared>, node: NodeId, generation: u64, address: SocketAddr) {
    let connection = match shared.endpoint.connect(address, Expect::Node(node)).await {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%error, "no connection");
            let why = error.to_string();
            return shared.with(|router, now| router.link_failed(now, node, generation, &why));
        }
    };
    let (small, small_queue) = unbounded_channel();
    let (bulk, bulk_queue) = unbounded_channel();
    let link = Link { generation, connection: connection.clone(), small, bulk };
    if !shared.link_up(node, link) {
        return Close::Done.close(&connection, "not needed any more");
    }
    let way = Way { shared: &shared, connection: &connection, node, generation };
    let why = tokio::select! {
        biased;
        _ = connection.closed() => String::new(),
        why = way.serve(small_queue) => why,
        why = way.serve(bulk_queue) => why,
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
    shared.link_lost(node, generation, &why, denied);
}

struct Way<'a> {
    shared: &'a Shared,
    connection: &'a quinn::Connection,
    node: NodeId,
    generation: u64,
}

impl Way<'_> {
    /// Serves one stream; returns why it ended.
    async fn serve(&self, mut queue: UnboundedReceiver<Sending>) -> String {
        let mut batch = Vec::with_capacity(BATCH);
        if queue.recv_many(&mut batch, BATCH).await == 0 {
            // Nothing will ever be sent; the connection's end is told by others.
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
        mut queue: UnboundedReceiver<Sending>,
        mut batch: Vec<Sending>,
    ) -> String {
        loop {
            let now = self.shared.now();
            for sending in batch.drain(..) {
                let left = sending.deadline.saturating_sub(now).as_millis();
                if left == 0 {
                    // Its caller is being told at this moment.
                    continue;
                }
                let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
                let (body, long) = sending.message.body();
                let request = Request { id: sending.id, deadline_ms, forward: false, body };
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
                Ok(None) => return "the node ended the conversation".into(),
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
            self.shared.with(|router, now| {
                for reply in replies.drain(..) {
                    router.handle_reply(now, self.node, self.generation, reply);
                }
            });
            if let Some(why) = broken {
                return why;
            }
        }
    }
}
