//! Watches: the changes of a range of keys, pushed to the client on a stream of their own.
//!
//! A watcher is a position in the history of the shard and nothing else. It reads what comes after
//! its position in pages, writes each as a frame, and sleeps once it has everything, until the
//! [hub](crate::replica::watch_hub) wakes it. Nothing is queued for a client that reads slowly: the
//! flow control of QUIC holds up its own stream, and it goes on from its position later, or has
//! fallen below the floor of the history by then.
//!
//! Any replica serves a watch from what it has applied. If it has lost touch with the primary it
//! ends the watch, which the client then resumes elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::Revision;
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::{self, KEY_BYTES_MAX, WATCH_KEEP_ALIVE, WATCH_PROGRESS};
use dkv_wire::message::{KeyRange, Refusal, WatchFrame, WatchRequest};
use dkv_wire::user::User;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::common::timeline::{Stage, Subject, Timeline};
use crate::net::quota::{Quota, WatchPermit};
use crate::net::user_limits::SharesOfUsers;
use crate::node::Node;
use crate::raft::{FifoReceiver, WatchPage};
use crate::replica::Replica;
use crate::replica::watch_hub::News;
use crate::serve::data::{elsewhere, shard_here};
use crate::serve::{acts, limits as limits_of_users, rights};

/// Priority of the streams of watches, below that of requests.
const PRIORITY: i32 = -1;
/// Age of the state here from which on its watchers are sent away.
const OUT_OF_TOUCH: Duration = Duration::from_secs(15);
/// Longest pause of a watch that has used up the bytes of its user, before it looks at its rights
/// again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time after which to try again if there are too many watches, in milliseconds.
const RETRY_AFTER_MS: u32 = 1000;

type Writer = FrameWriter<quinn::SendStream>;

/// Serves the stream of a watch until it begins, and leaves the rest to a task of the replica.
/// `begun` is called once the watch counts among those of its connection.
pub(crate) async fn serve(
    node: &Arc<Node>,
    (peer, address): (Identity, SocketAddr),
    quota: &Quota,
    begun: impl FnOnce(),
    mut reader: FrameReader<quinn::RecvStream>,
    writer: Writer,
) {
    reader.set_limit(limits::WATCH_REQUEST_BYTES_MAX);
    let frame = match reader.next().await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => return,
        Err(FrameError::TooLong { .. }) => {
            Err(Refusal::Invalid("the request of a watch is too long".into()))
        }
        Err(error) => return debug!(%peer, %error, "a watch ended before it began"),
    };
    let stream = writer.into_inner();
    // Fails only if the stream is closed.
    let _ = stream.set_priority(PRIORITY);
    let stopped = stream.stopped();
    let mut writer = FrameWriter::new(stream);
    match frame.and_then(|frame| admit(node, (peer, address), quota, &frame)) {
        Ok((group, request, permit)) => {
            begun();
            node.counters().received(frame_bytes(&request));
            let (node, quota) = (Arc::clone(node), quota.clone());
            let (serving, shares) =
                (Arc::clone(&group), limits_of_users::shares(&node, peer, request.user));
            let watch =
                Watch { node, peer, group: serving, request, quota, shares, _permit: permit };
            // The receiving half stays open: a client may close its side after the request.
            group.spawn(async move {
                let _reader = reader;
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = watch.run(writer) => {}
                }
            });
        }
        Err(refusal) => end(&mut writer, refusal).await,
    }
}

fn frame_bytes(request: &WatchRequest) -> usize {
    match &request.keys {
        KeyRange::Key(bytes) | KeyRange::Prefix(bytes) => bytes.len(),
        KeyRange::Range(from, to) => from.len() + to.len(),
    }
}

/// Decides whether a watch begins.
fn admit(
    node: &Node,
    (peer, address): (Identity, SocketAddr),
    quota: &Quota,
    frame: &[u8],
) -> Result<(Arc<Replica>, WatchRequest, WatchPermit), Refusal> {
    let request: WatchRequest =
        decode(frame).map_err(|error| Refusal::Invalid(error.to_string()))?;
    match peer.role {
        Role::Client | Role::Admin | Role::Reader | Role::Node => {}
        Role::Server => {
            let why = format!(
                "this needs the certificate of a {}, and yours is a server's",
                Role::Client
            );
            return Err(Refusal::Denied(why));
        }
    }
    if peer.as_node().is_some_and(|id| !node.replicas().is_listed(id)) {
        let why = "a node that the directory does not name is not served";
        return Err(Refusal::Unavailable(why.into()));
    }
    check_held(node)?;
    check(&request.keys)?;
    if let Err(refusal) = rights::check_watch(node, peer, &request) {
        acts::note_denied(peer, request.user, address, &refusal, || {
            let keys = rights::borrowed(&request.keys);
            acts::on_keys(node.replicas(), "watch", request.shard, Some(keys))
        });
        return Err(refusal);
    }
    let Some(group) = shard_here(node.replicas(), request.shard) else {
        return Err(elsewhere(node, request.shard));
    };
    limits_of_users::take_any(node, peer, request.user, frame.len())?;
    let Some(permit) = quota.take_watch() else {
        return Err(Refusal::Overloaded { retry_after_ms: RETRY_AFTER_MS });
    };
    Ok((group, request, permit))
}

fn check(keys: &KeyRange) -> Result<(), Refusal> {
    let invalid = |why: &str| Err(Refusal::Invalid(why.to_owned()));
    match keys {
        KeyRange::Key(key) if key.is_empty() || key.len() > KEY_BYTES_MAX => {
            invalid("a key has 1 to 4096 bytes")
        }
        KeyRange::Prefix(prefix) if prefix.len() > KEY_BYTES_MAX => {
            invalid("a prefix has at most 4096 bytes")
        }
        KeyRange::Range(from, to) if from.len().max(to.len()) > KEY_BYTES_MAX => {
            invalid("a key has at most 4096 bytes")
        }
        KeyRange::Range(from, to) if !to.is_empty() && from >= to => {
            invalid("the range ends before it begins")
        }
        KeyRange::Key(_) | KeyRange::Prefix(_) | KeyRange::Range(..) => Ok(()),
    }
}

/// Checks that this node's data directory is not held for a copy.
fn check_held(node: &Node) -> Result<(), Refusal> {
    match node.incarnations().held() {
        Some(why) => Err(Refusal::Unavailable(why.to_string())),
        None => Ok(()),
    }
}

/// Tells a watcher why its watch ends. It may be gone.
async fn end(writer: &mut Writer, refusal: Refusal) {
    let _ = writer.send(&WatchFrame::Ended(refusal)).await;
}

/// One watch.
struct Watch {
    node: Arc<Node>,
    peer: Identity,
    group: Arc<Replica>,
    request: WatchRequest,
    quota: Quota,
    /// The shares of its users, whether they have limits now or not.
    shares: SharesOfUsers,
    _permit: WatchPermit,
}

/// The beginning of a watch: until its first page of history is read.
struct Beginning {
    at: Instant,
    timeline: Timeline,
}

impl Beginning {
    fn new(request: &WatchRequest) -> Self {
        let at = Instant::now();
        let subject = Subject::of_watch(request.shard, &request.keys);
        let mut timeline = Timeline::new(subject, at, at);
        timeline.enter(Stage::Read, at);
        Self { at, timeline }
    }

    fn end(mut self, node: &Node, peer: Identity) {
        let now = Instant::now();
        let (time, slow) = (now.saturating_duration_since(self.at), node.counters().slow());
        if slow.is_slow(time) {
            self.timeline.enter(Stage::Other, now);
            slow.note(peer, &self.timeline, "ok", time, now);
        }
    }
}

/// Wakes the watch of a user when the directory changes, and with it perhaps what the user may.
struct DirectoryNews(Option<FifoReceiver<u64>>);

impl DirectoryNews {
    fn of(watch: &Watch) -> Self {
        let has_user = rights::both(watch.peer.user, watch.request.user).next().is_some();
        Self(has_user.then(|| watch.node.control().state_machine().applied()))
    }

    async fn changed(&mut self) {
        match &mut self.0 {
            // Fails only once the group is closed, and the node with it.
            Some(applied) => {
                if applied.changed().await.is_err() {
                    std::future::pending().await
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// The reason why a watch ends.
enum Ended {
    /// The stream is closed.
    Lost,
    /// The node ends it.
    Refused(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Watch {
    async fn run(self, mut writer: Writer) {
        match self.follow(&mut writer).await {
            Err(Ended::Refused(refusal)) => end(&mut writer, refusal).await,
            Ok(()) | Err(Ended::Lost) => {}
        }
    }

    /// Sends the changes until there is a reason to end.
    async fn follow(&self, writer: &mut Writer) -> Result<(), Ended> {
        let Self { node, group, request, .. } = self;
        let WatchRequest { keys, previous, .. } = request;
        // Registered before anything is read, or a change could fall between the two.
        let watcher = group.watch(keys.clone());
        let mut directory = DirectoryNews::of(self);
        let mut after = request.after.unwrap_or_else(|| group.revision());
        let mut sent = None;
        if request.after.is_none() {
            // Before any change: the client can resume from here.
            sent = Some(self.mark(writer, after).await?);
        }
        // From here on, or a client that does not read would look like a slow disk.
        let mut beginning = Some(Beginning::new(request));
        // The revisions to read, if they are known.
        let mut known: Option<Vec<Revision>> = None;
        loop {
            loop {
                self.check()?;
                let at = known.as_deref();
                let page = group.state_machine().changes(keys, after, at, *previous).await?;
                if let Some(beginning) = beginning.take() {
                    beginning.end(node, self.peer);
                }
                let (through, more) = (page.through, page.more);
                if let Some(known) = &mut known {
                    known.retain(|revision| *revision > through);
                }
                let is_due = sent.is_none_or(|sent: Instant| sent.elapsed() >= WATCH_PROGRESS);
                if !page.changes.is_empty() || is_due {
                    sent = Some(self.send(writer, page).await?);
                } else {
                    tokio::task::yield_now().await;
                }
                after = through;
                if !more {
                    break;
                }
            }
            if planted(Mutant::LoseAtHandOver) {
                after = after.max(group.revision());
            }
            let mut out_of_touch = false;
            loop {
                // The watchers of a node wake together.
                let since = sent.unwrap_or_else(Instant::now);
                let until = node.ticks().while_quiescent(since + WATCH_KEEP_ALIVE);
                let news = tokio::select! {
                    biased;
                    () = directory.changed() => {
                        self.check()?;
                        continue;
                    }
                    news = timeout_at(until, watcher.news(after)) => news,
                };
                match news {
                    Ok(News::Changed { after: unchanged }) => {
                        (after, known) = (unchanged, None);
                        break;
                    }
                    Ok(News::ChangedAt(revisions)) => {
                        known = Some(revisions);
                        break;
                    }
                    Ok(News::Quiet { through }) => after = through,
                    Err(_) => {
                        after = watcher.quiet_through(after);
                        self.check()?;
                        out_of_touch = self.check_touch(out_of_touch)?;
                    }
                }
                sent = Some(self.mark(writer, after).await?);
            }
        }
    }

    /// Checks that the watch may go on.
    fn check(&self) -> Result<(), Refusal> {
        check_held(&self.node)?;
        rights::check_watch(&self.node, self.peer, &self.request)
    }

    /// Returns whether this replica may have lost touch with the primary.
    ///
    /// # Errors
    /// If that is so the second time.
    fn check_touch(&self, before: bool) -> Result<bool, Ended> {
        let staleness_ms = self.group.staleness_ms();
        let now = staleness_ms.is_none_or(|ms| u128::from(ms) > OUT_OF_TOUCH.as_millis());
        if before && now {
            let revision = self.group.revision();
            return Err(Refusal::Behind { revision, staleness_ms }.into());
        }
        Ok(now)
    }

    /// Sends a progress mark, and returns when.
    async fn mark(&self, writer: &mut Writer, through: Revision) -> Result<Instant, Ended> {
        self.send(writer, nothing(through)).await
    }

    /// Sends a frame, and returns when the last one was sent.
    async fn send(&self, writer: &mut Writer, page: WatchPage) -> Result<Instant, Ended> {
        let through = page.through;
        let bytes = self.write(writer, page).await?;
        for (_, share) in &self.shares {
            share.pay(bytes);
        }
        self.pause(writer, through).await
    }

    /// Writes a frame, and returns its bytes.
    async fn write(&self, writer: &mut Writer, page: WatchPage) -> Result<usize, Ended> {
        // Until the frame is written and no longer: the watches of other users may wait for it.
        let _room = self.quota.take_watch_frame(page.bytes()).await.ok_or(Ended::Lost)?;
        let WatchPage { changes, through, .. } = page;
        writer.push(&WatchFrame::Changes { changes, through });
        let bytes = writer.pending();
        self.node.counters().sent(bytes);
        writer.flush().await.map_err(|_| Ended::Lost)?;
        Ok(bytes)
    }

    /// Waits for as long as a user of the watch has used up its bytes, and returns when the last
    /// frame was sent.
    async fn pause(&self, writer: &mut Writer, through: Revision) -> Result<Instant, Ended> {
        let mut sent = Instant::now();
        while let Some(wait) = self.debt() {
            tokio::time::sleep(wait.min(PAUSE_MAX)).await;
            // The rights or the limits may have changed.
            self.check()?;
            if sent.elapsed() >= WATCH_KEEP_ALIVE {
                // The client would take the silence for a failure. The mark is free: at a low limit
                // the pause would never end.
                self.write(writer, nothing(through)).await?;
                sent = Instant::now();
            }
        }
        Ok(sent)
    }

    fn debt(&self) -> Option<Duration> {
        let (replicas, now) = (self.node.replicas(), Instant::now());
        let of = |user: User| limits_of_users::of(replicas, user);
        self.shares.iter().filter_map(|(user, share)| share.debt(of(*user), now)).max()
    }
}

/// A page with which a watch shows that nothing has changed through a revision.
fn nothing(through: Revision) -> WatchPage {
    WatchPage { changes: Vec::new(), through, more: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_can_match_nothing_or_too_much_is_refused() {
        let long = vec![b'k'; KEY_BYTES_MAX + 1];
        let key = |key: &[u8]| KeyRange::Key(key.to_vec().into());
        let prefix = |prefix: &[u8]| KeyRange::Prefix(prefix.to_vec().into());
        let range =
            |from: &[u8], to: &[u8]| KeyRange::Range(from.to_vec().into(), to.to_vec().into());
        for keys in [
            key(b"a"),
            key(&long[1..]),
            prefix(b""),
            prefix(&long[1..]),
            range(b"", b""),
            range(b"b", b""),
            range(b"a", b"b"),
        ] {
            assert_eq!(check(&keys), Ok(()), "{keys:?}");
        }
        for keys in [
            key(b""),
            key(&long),
            prefix(&long),
            range(&long, b""),
            range(b"", &long),
            range(b"b", b"a"),
            range(b"a", b"a"),
        ] {
            assert!(matches!(check(&keys), Err(Refusal::Invalid(_))), "{keys:?}");
        }
    }
}
