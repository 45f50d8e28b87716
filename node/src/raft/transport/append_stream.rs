//! A session: a stream of entries to one member, and its acknowledgements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_base::sync::lock;
use dkv_wire::codec::{DecodeError, decode};
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Acknowledged, Opening};
use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;

use super::super::codec::{AppendAnswer, encode_append};
use super::super::fifo_watch;
use super::super::validation::Implausible;
use super::super::{LogId, Types};
use super::Network;
use crate::net::peers::Lane;

/// Time that a request which only reports a commit waits for entries to accompany it.
const COMMIT_WAIT: Duration = Duration::from_millis(5);
/// Time within which a peer that was sent entries must acknowledge some.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Control from outside over the sessions of one group's members.
///
/// openraft does not purge entries of its log while a session streams them. A member that is alive
/// but slower than the writes would keep them from being purged for good. So other code can end a
/// session: openraft then finds that the member needs a snapshot.
#[derive(Clone)]
pub(crate) struct AppendStreams {
    left_behind: fifo_watch::Sender<u64>,
    /// The last acknowledgement of each member, under its seal.
    words: Arc<Mutex<BTreeMap<NodeId, Acknowledged>>>,
}

impl Default for AppendStreams {
    fn default() -> Self {
        Self { left_behind: fifo_watch::Sender::new(0), words: Arc::default() }
    }
}

impl AppendStreams {
    /// Ends the sessions whose member has not acknowledged this index. The purge of everything
    /// before it must have been requested already.
    pub(crate) fn leave_behind(&self, index: u64) {
        self.left_behind.set(index);
    }

    /// Stores a member's acknowledgement.
    fn keep_word(&self, member: NodeId, word: Acknowledged) {
        lock(&self.words).insert(member, word);
    }

    /// Returns a member's last acknowledgement if it is of this term.
    pub(super) fn word(&self, member: NodeId, term: Term) -> Option<Acknowledged> {
        lock(&self.words).get(&member).copied().filter(|word| word.term == term)
    }

    /// Forgets the acknowledgements of nodes that are not members.
    pub(super) fn forget_others(&self, members: &BTreeSet<NodeId>) {
        lock(&self.words).retain(|member, _| members.contains(member));
    }

    /// Returns a receiver that changes whenever members are left behind from now on.
    pub(super) fn left_behind(&self) -> fifo_watch::Receiver<u64> {
        self.left_behind.receiver()
    }
}

/// The parts of a session.
pub(super) struct AppendStream<'a> {
    pub(super) opening: Opening,
    pub(super) append_streams: &'a AppendStreams,
    pub(super) network: &'a Network,
    pub(super) target: NodeId,
}

impl AppendStream<'_> {
    /// Writes requests as they arrive, and yields their results.
    pub(super) fn run<'s, S>(
        self,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        input: S,
    ) -> BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(Mutex::new(Sent::default()));
        let writing = write_requests(send, self.opening, input, Arc::clone(&sent));
        let answers = Answers {
            reader: FrameReader::new(receive, FRAME_BYTES_MAX),
            _writer: AbortOnDrop(tokio::spawn(writing)),
            sent,
            answered: 0,
            owed: 0,
            acknowledged: 0,
            left_behind: self.append_streams.left_behind(),
            network: self.network.clone(),
            target: self.target,
            begun: Instant::now(),
        };
        unfold(Some(answers), Answers::step).boxed()
    }
}

/// Writes requests as they arrive; finishes the stream when there are no more.
async fn write_requests<S>(
    send: quinn::SendStream,
    opening: Opening,
    input: S,
    sent: Arc<Mutex<Sent>>,
) -> std::io::Result<()>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    let mut writer = FrameWriter::new(send);
    writer.push(&opening);
    let mut last_sent = None;
    // A stream that has ended must not be polled again.
    let mut input = input.fuse();
    while let Some(mut request) = input.next().await {
        if last_sent.is_some() {
            request = replaced(request, &mut input, last_sent).await;
        }
        last_sent = request.entries.last().map_or(request.prev_log_id, |entry| Some(entry.log_id));
        let term = Term(request.vote.leader_id.term);
        lock(&sent).push(SentRange { term, from: request.prev_log_id, to: last_sent });
        writer.send_parts(encode_append(&request)).await?;
    }
    writer.into_inner().finish().map_err(std::io::Error::other)
}

/// Returns whether a request says only that more of what was sent is committed.
fn tells_commit_only(request: &AppendEntriesRequest<Types>, last_sent: Option<LogId>) -> bool {
    request.entries.is_empty() && request.prev_log_id == last_sent
}

/// Returns the request to send instead of one that only reports a commit: entries, if some arrive
/// soon, since they report it too.
///
/// openraft reports each commit at once, which doubles the messages of a network with few writers.
/// An acknowledgement of later entries covers all earlier ones, so none is missed.
async fn replaced<S>(
    mut request: AppendEntriesRequest<Types>,
    input: &mut S,
    last_sent: Option<LogId>,
) -> AppendEntriesRequest<Types>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    let until = Instant::now() + COMMIT_WAIT;
    while tells_commit_only(&request, last_sent)
        && let Ok(Some(next)) = tokio::time::timeout_at(until, input.next()).await
    {
        request = next;
    }
    request
}

/// Requests that were sent and not answered yet.
#[derive(Default)]
struct Sent {
    count: u64,
    /// The unanswered requests, in their order.
    unanswered: VecDeque<SentRange>,
}

/// The range of a sent request: the entry that it follows on, and its last entry.
struct SentRange {
    term: Term,
    from: Option<LogId>,
    to: Option<LogId>,
}

impl Sent {
    fn push(&mut self, range: SentRange) {
        self.count += 1;
        self.unanswered.push_back(range);
    }
}

/// Reason why a session ended. openraft begins another at once.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    /// The log is being purged beyond what the member has acknowledged.
    #[error("the log no longer has the entries it needs: a snapshot is next")]
    LeftBehind,
    /// The member acknowledged nothing for too long.
    #[error("no acknowledgement in time")]
    Timeout,
    /// The stream broke.
    #[error(transparent)]
    Stream(FrameError),
    /// An answer cannot be decoded.
    #[error(transparent)]
    Malformed(DecodeError),
    /// An answer cannot be true.
    #[error(transparent)]
    Untrue(UntrueAnswer),
}

impl From<SessionError> for RPCError<Types> {
    fn from(error: SessionError) -> Self {
        Self::Network(NetworkError::from_string(error))
    }
}

/// Reason why an answer cannot belong to the request that was sent.
#[derive(Debug, thiserror::Error)]
enum UntrueAnswer {
    /// No request is unanswered.
    #[error("an acknowledgement of a request that was not sent")]
    Unasked,
    /// It acknowledges other entries than those of the request.
    #[error("entries up to {} are acknowledged as {}", name(sent), name(acknowledged))]
    OtherEntries {
        /// The last entry of the request.
        sent: Option<LogId>,
        /// The last entry that the answer acknowledges.
        acknowledged: Option<LogId>,
    },
    /// It refuses the request for an impossible reason.
    #[error(transparent)]
    Implausible(#[from] Implausible),
}

fn name(at: &Option<LogId>) -> String {
    at.map_or("nothing".to_owned(), |at| at.to_string())
}

/// The acknowledgements of one session, in the order of its requests.
struct Answers {
    reader: FrameReader<quinn::RecvStream>,
    _writer: AbortOnDrop,
    sent: Arc<Mutex<Sent>>,
    /// Number of requests that were answered.
    answered: u64,
    /// Number of requests that had been sent when a wait for an acknowledgement last timed out.
    owed: u64,
    /// The last acknowledged index.
    acknowledged: u64,
    /// The session does not wait for a member that lacks this index.
    left_behind: fifo_watch::Receiver<u64>,
    network: Network,
    target: NodeId,
    begun: Instant,
}

impl Answers {
    async fn step(
        state: Option<Self>,
    ) -> Option<(Result<StreamAppendResult<Types>, RPCError<Types>>, Option<Self>)> {
        let mut answers = state?;
        let frame = loop {
            let read = tokio::time::timeout(ACKNOWLEDGE_TIMEOUT, answers.reader.next());
            let read = tokio::select! {
                biased;
                read = read => read,
                Ok(()) = answers.left_behind.changed() => {
                    if answers.left_behind.get() > answers.acknowledged {
                        return Some((Err(SessionError::LeftBehind.into()), None));
                    }
                    continue;
                }
            };
            match read {
                Ok(read) => break read,
                // A request that was already unanswered one whole timeout ago still is: the peer's
                // log does not move. Ending the session releases the part of our own log that it
                // keeps from being purged.
                Err(_) if answers.owed > answers.answered => {
                    return Some((Err(SessionError::Timeout.into()), None));
                }
                Err(_) => answers.owed = lock(&answers.sent).count,
            }
        };
        answers.answered += 1;
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(error) => {
                answers.network.peers.failed(answers.target, Lane::Bulk, answers.begun);
                return Some((Err(SessionError::Stream(error).into()), None));
            }
        };
        answers.network.peers.answered(answers.target, Lane::Bulk);
        match decode::<AppendAnswer>(&frame) {
            Ok(answer) => match answers.judge(answer) {
                Ok(Ok(acknowledged)) => Some((Ok(Ok(acknowledged)), Some(answers))),
                // After a conflict or a higher vote no queued request can succeed.
                Ok(Err(refused)) => Some((Ok(Err(refused)), None)),
                Err(why) => {
                    answers.network.refuse(answers.target, &why);
                    Some((Err(SessionError::Untrue(why).into()), None))
                }
            },
            Err(error) => Some((Err(SessionError::Malformed(error).into()), None)),
        }
    }

    /// Returns the result to pass to openraft for an answer.
    ///
    /// # Errors
    /// Returns an error if the answer cannot belong to the request that was sent.
    fn judge(&mut self, answer: AppendAnswer) -> Result<StreamAppendResult<Types>, UntrueAnswer> {
        let sent = lock(&self.sent).unanswered.pop_front();
        let SentRange { term, from, to } = sent.ok_or(UntrueAnswer::Unasked)?;
        match answer {
            AppendAnswer::Taken { last, seal } if last == to => {
                self.acknowledged = last.map_or(0, |last| last.index);
                if let Some(seal) = seal {
                    let index = self.acknowledged;
                    let word = Acknowledged { term, index, seal };
                    self.network.append_streams.keep_word(self.target, word);
                }
                Ok(Ok(last))
            }
            AppendAnswer::Taken { last, .. } => {
                Err(UntrueAnswer::OtherEntries { sent: to, acknowledged: last })
            }
            AppendAnswer::Refused(refused) => {
                self.network.known().refusal(&refused, from.as_ref())?;
                Ok(Err(refused))
            }
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<std::io::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
