//! The task of a watch in one shard: finds a replica, reads its stream, and goes on at another one.
//!
//! Memory is reserved before a frame is read. If there is none for a moment, because the consumer
//! does not read, the task closes the stream: a watch that waits is a position and nothing else. It
//! opens another stream once the consumer has made room.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::{NodeId, Revision};
use dkv_base::sync::lock;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::{FRAME_BYTES_MAX, WATCH_BYTES_TARGET};
use dkv_wire::message::{Answer, Opening, WatchFrame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::event_queue::Shown;
use super::position::{LIMITED_PAUSE_MAX, Located, Received, ShardPosition, begin_at};
use crate::client::Client;
use crate::error::Error;
use crate::router::RequestKind;

/// Silence after which a replica is considered dead. Keep-alives come every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Time within which a replica must be found, and a stream to it opened.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for which a frame waits for memory before its stream is closed.
const ROOM_TIMEOUT: Duration = Duration::from_millis(250);
/// Bytes that one permit stands for.
const PERMIT_BYTES: usize = 1024;
/// Most permits of a watch: memory for frames that its consumer has not read, 16 MiB.
const PERMITS_MAX: usize = 16 * 1024;
/// Least permits of a watch: two frames of the usual length.
const PERMITS_MIN: usize = 2 * WATCH_BYTES_TARGET / PERMIT_BYTES;

/// What the tasks of a watch share.
pub(super) struct Shared {
    client: Client,
    room: Arc<Semaphore>,
    /// All permits of the room.
    permits: usize,
    shown: mpsc::UnboundedSender<Result<Shown<OwnedSemaphorePermit>, Error>>,
    /// Why a replica was last left.
    last_failure: Mutex<Option<String>>,
}

/// What the tasks have shown. Each element has permits, which bounds their number.
pub(super) type Receiver = mpsc::UnboundedReceiver<Result<Shown<OwnedSemaphorePermit>, Error>>;

impl Shared {
    pub(super) fn new(client: Client, room_bytes: Option<usize>) -> (Arc<Self>, Receiver) {
        let (shown, receiver) = mpsc::unbounded_channel();
        let permits = permits(room_bytes);
        let room = Arc::new(Semaphore::new(permits));
        let last_failure = Mutex::new(None);
        (Arc::new(Self { client, room, permits, shown, last_failure }), receiver)
    }

    /// Ends the watch.
    pub(super) fn end(&self, error: Error) {
        // The consumer may have dropped the watch.
        let _ = self.shown.send(Err(error));
    }

    pub(super) fn last_failure(&self) -> Option<String> {
        lock(&self.last_failure).clone()
    }
}

/// How often in a row a node may say that the user has used up its limits, before another is
/// asked.
const LIMITED_MAX: u32 = 3;

/// Why a stream ended.
enum StreamEnd {
    /// The node failed or refused.
    Failed(String),
    /// The user has used up its limits, and is to wait for so long.
    Limited(Duration, String),
    /// The consumer does not read; the frame that came needs so many permits.
    NoRoom(u32),
    /// The watch is over.
    Over(Error),
}

/// Watches a shard until the watch ends. Announces the position as soon as there is one.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut position: ShardPosition,
    started: watch::Sender<Option<Revision>>,
) {
    // The node that was found last, whether the user has used up its limits there, and how often in
    // a row it has said so.
    let (mut found, mut is_limited, mut in_a_row) = (None, false, 0);
    loop {
        let located = match found.filter(|_| is_limited) {
            // To locate one takes a request, too: at a low limit no watch would ever begin.
            Some(node) => Ok(node),
            None => locate(&shared.client, &position).await,
        };
        let (node, end) = match located {
            Ok(node) => (Some(node), follow(&shared, &mut position, &started, node).await),
            Err(Search::Elsewhere(node, why)) => (node, StreamEnd::Failed(why)),
            Err(Search::Later(pause, why)) => (None, StreamEnd::Limited(pause, why)),
            Err(Search::Over(error)) => (None, StreamEnd::Over(error)),
        };
        found = node.or(found);
        is_limited = matches!(end, StreamEnd::Limited(..));
        if !is_limited {
            in_a_row = 0;
        }
        match end {
            StreamEnd::Over(error) => {
                shared.end(error);
                return;
            }
            StreamEnd::NoRoom(needed) => {
                let room = shared.room.acquire_many(worth_opening(shared.permits, needed));
                if room.await.is_err() {
                    return;
                }
            }
            StreamEnd::Limited(pause, why) => {
                *lock(&shared.last_failure) = Some(why);
                sleep(pause).await;
                in_a_row += 1;
                if in_a_row >= LIMITED_MAX {
                    // Another may say otherwise, and no node is to silence a watch. If the search
                    // for one meets the limit, the last is asked again.
                    (is_limited, in_a_row) = (false, 0);
                    if node.is_some() {
                        sleep(position.failed(node)).await;
                    }
                }
            }
            StreamEnd::Failed(why) => {
                let (shard, through) = (position.shard(), position.through());
                debug!(%shard, ?through, ?node, why, "a watch goes on at another replica");
                *lock(&shared.last_failure) = Some(why);
                sleep(position.failed(node)).await;
            }
        }
    }
}

/// Why no replica was found.
enum Search {
    /// Another attempt may find one; the node, if one is to be avoided.
    Elsewhere(Option<NodeId>, String),
    /// The user has used up its limits, and is to wait for so long.
    Later(Duration, String),
    Over(Error),
}

/// Finds a replica to watch.
async fn locate(client: &Client, position: &ShardPosition) -> Result<NodeId, Search> {
    let shard = position.shard();
    let kind = RequestKind::Locate { shard, latest: false, avoid: position.avoid() };
    let receipt = match client.request(kind, Some(LOCATE_TIMEOUT)).await {
        Ok(Answer::Page(receipt, _)) => receipt,
        Ok(_) => return Err(Search::Elsewhere(None, "its answer is of another kind".to_owned())),
        Err(error) if client.is_closed() => return Err(Search::Over(error)),
        Err(error @ (Error::Denied(_) | Error::Invalid(_) | Error::NoKeyspace { .. })) => {
            return Err(Search::Over(error));
        }
        Err(Error::Limited { why, retry_after }) => {
            return Err(Search::Later(retry_after.min(LIMITED_PAUSE_MAX), why));
        }
        Err(error) => return Err(Search::Elsewhere(None, error.to_string())),
    };
    match position.located(receipt.revision) {
        Located::Watch => Ok(receipt.node),
        Located::Behind => {
            let why = format!("it is only at revision {}", receipt.revision);
            if let Ok(latest) = client.latest_revision(shard, Some(LOCATE_TIMEOUT)).await {
                position.handle_latest(latest).map_err(Search::Over)?;
            }
            Err(Search::Elsewhere(Some(receipt.node), why))
        }
    }
}

/// Watches one replica for as long as it serves.
async fn follow(
    shared: &Shared,
    position: &mut ShardPosition,
    started: &watch::Sender<Option<Revision>>,
    node: NodeId,
) -> StreamEnd {
    let driver = shared.client.driver();
    let Some(address) = driver.with(|router, _| router.address_of(node)) else {
        return StreamEnd::Failed("the node is not of the network any more".to_owned());
    };
    let opened = timeout(LOCATE_TIMEOUT, driver.watches.open(&driver.endpoint, node, address));
    let stream = match opened.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => return StreamEnd::Failed(why),
        Err(_) => return StreamEnd::Failed(format!("{address} has no room for a stream")),
    };
    let mut writer = FrameWriter::new(stream.send);
    writer.push(&Opening::Watch);
    writer.push(&position.request(shared.client.user()));
    if let Err(error) = writer.flush().await {
        return StreamEnd::Failed(error.to_string());
    }
    // The node ends the watch when this end of the stream closes, so it stays open.
    let _open = writer;
    let mut reader = FrameReader::new(stream.receive, FRAME_BYTES_MAX);
    loop {
        let (no_room, needed) = (Notify::new(), AtomicU32::new(0));
        let room = |bytes: usize| {
            let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, shared.permits) as u32;
            let room = Arc::clone(&shared.room);
            let (no_room, needed) = (&no_room, &needed);
            async move {
                match timeout(ROOM_TIMEOUT, room.acquire_many_owned(permits)).await {
                    Ok(permit) => permit.ok(),
                    Err(_) => {
                        needed.store(permits, Ordering::Relaxed);
                        no_room.notify_one();
                        std::future::pending().await
                    }
                }
            }
        };
        let read = tokio::select! {
            read = timeout(SILENCE_MAX, reader.next_with_room(room)) => read,
            () = no_room.notified() => return StreamEnd::NoRoom(needed.into_inner()),
        };
        let (frame, permit) = match read {
            Ok(Ok(Some((frame, Some(permit))))) => (frame, permit),
            Ok(Ok(None)) => return StreamEnd::Failed("the node ended the watch".to_owned()),
            Ok(Ok(Some((_, None)))) => return StreamEnd::NoRoom(0),
            Ok(Err(error)) => return StreamEnd::Failed(error.to_string()),
            Err(_) => {
                let seconds = SILENCE_MAX.as_secs();
                return StreamEnd::Failed(format!("it was silent for {seconds} s"));
            }
        };
        let frame = match decode::<WatchFrame>(&frame) {
            Ok(frame) => frame,
            Err(error) => return StreamEnd::Failed(error.to_string()),
        };
        match position.handle_frame(frame) {
            Received::Changes(changes, through) => {
                started.send_if_modified(|known| begin_at(known, Some(through)));
                // Session reads must not be older than what the watch shows.
                driver.with(|router, _| router.note_watched(position.shard(), through));
                let shown = Shown { shard: position.shard(), changes, through, permit };
                if shared.shown.send(Ok(shown)).is_err() {
                    return StreamEnd::NoRoom(0);
                }
            }
            Received::Nothing => {
                started.send_if_modified(|known| begin_at(known, position.through()));
            }
            Received::Elsewhere(why) => return StreamEnd::Failed(why),
            Received::Later(pause, why) => return StreamEnd::Limited(pause, why),
            Received::End(error) => return StreamEnd::Over(error),
        }
    }
}

/// Returns the permits of a watch with this much memory.
fn permits(room_bytes: Option<usize>) -> usize {
    room_bytes.map_or(PERMITS_MAX, |bytes| (bytes / PERMIT_BYTES).clamp(PERMITS_MIN, PERMITS_MAX))
}

/// Returns how many of a watch's permits make another stream worth opening: half of them, or more
/// if the frame that found no room needs more.
fn worth_opening(permits: usize, needed: u32) -> u32 {
    needed.clamp(permits as u32 / 2, permits as u32)
}

#[cfg(test)]
mod tests {
    use super::{PERMIT_BYTES, PERMITS_MAX, PERMITS_MIN, permits, worth_opening};

    #[test]
    fn the_memory_of_a_watch_is_bounded_on_both_sides() {
        assert_eq!(permits(None), PERMITS_MAX);
        assert_eq!(permits(Some(0)), PERMITS_MIN);
        assert_eq!(permits(Some(1024 * PERMIT_BYTES)), 1024);
        assert_eq!(permits(Some(usize::MAX)), PERMITS_MAX);
    }

    #[test]
    fn a_stream_is_opened_again_once_the_frame_without_room_has_it() {
        assert_eq!(worth_opening(1000, 1), 500);
        assert_eq!(worth_opening(1000, 700), 700);
        assert_eq!(worth_opening(1000, 1000), 1000);
    }
}
