//! A session: entries that are streamed to one member, and its acknowledgements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Acknowledged, Opening};
use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};

use super::super::codec::{AppendAnswer, encode_append};
use super::super::fifo_watch;
use super::super::{LogId, Types};
use super::{Network, lost};
use crate::net::peers::Lane;

/// Time that news of a commit waits for entries to go along with.
const COMMIT_WAIT: Duration = Duration::from_millis(5);
/// Time in which a peer that was sent entries must acknowledge some.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the sessions of one group's members hear from the rest of the node.
///
/// openraft keeps its log from being purged as long as a session streams what is to be purged. A
/// member that is alive and slower than the writes would hold on to it for good. So a session can
/// be ended from outside: openraft finds then that the member is to be sent a snapshot.
#[derive(Clone)]
pub(crate) struct Sessions {
    left_behind: fifo_watch::Sender<u64>,
    /// What each member has acknowledged last, under its seal.
    words: Arc<Mutex<BTreeMap<NodeId, Acknowledged>>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { left_behind: fifo_watch::Sender::new(0), words: Arc::default() }
    }
}

impl Sessions {
    /// Ends those whose member has not acknowledged this index. What is before it must have been
    /// asked to be purged.
    pub(crate) fn leave_behind(&self, index: u64) {
        self.left_behind.set(index);
    }

    /// Keeps what a member has acknowledged.
    fn keep_word(&self, member: NodeId, word: Acknowledged) {
        lock(&self.words).insert(member, word);
    }

    /// What a member has acknowledged in that term, if anything.
    pub(super) fn word(&self, member: NodeId, term: Term) -> Option<Acknowledged> {
        lock(&self.words).get(&member).copied().filter(|word| word.term == term)
    }

    /// Forgets what was acknowledged by those that are no members.
    pub(super) fn forget_others(&self, members: &BTreeSet<NodeId>) {
        lock(&self.words).retain(|member, _| members.contains(member));
    }

    /// Changes when members are left behind from now on.
    pub(super) fn left_behind(&self) -> fifo_watch::Receiver<u64> {
        self.left_behind.receiver()
    }
}

/// What a session is made of.
pub(super) struct Session<'a> {
    pub(super) opening: Opening,
    pub(super) sessions: &'a Sessions,
    pub(super) network: &'a Network,
    pub(super) target: NodeId,
}

impl Session<'_> {
    /// Writes requests as they come, and yields what becomes of them.
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
            left_behind: self.sessions.left_behind(),
            network: self.network.clone(),
            target: self.target,
        };
        unfold(Some(answers), Answers::step).boxed()
    }
}

/// Writes requests as they come; ends the stream when there are no more.
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
    // A stream that has ended must not be asked again.
    let mut input = input.fuse();
    while let Some(mut request) = input.next().await {
        if last_sent.is_some() {
            request = replaced(request, &mut input, last_sent).await;
        }
        last_sent = request.entries.last().map_or(request.prev_log_id, |entry| Some(entry.log_id));
        let term = Term(request.vote.leader_id.term);
        lock(&sent).push(Asked { term, from: request.prev_log_id, to: last_sent });
        writer.send_parts(encode_append(&request)).await?;
    }
    writer.into_inner().finish().map_err(std::io::Error::other)
}

/// Whether a request says nothing but that more of what was sent is committed.
fn tells_commit_only(request: &AppendEntriesRequest<Types>, last_sent: Option<LogId>) -> bool {
    request.entries.is_empty() && request.prev_log_id == last_sent
}

/// What is sent instead of a request that only tells of a commit: entries, if some come soon, which
/// tell of it too.
///
/// openraft tells of each commit at once, which doubles the messages of a network with few writers.
/// An acknowledgement of later entries counts for all that came before them, so none is missed.
async fn replaced<S>(
    mut request: AppendEntriesRequest<Types>,
    input: &mut S,
    last_sent: Option<LogId>,
) -> AppendEntriesRequest<Types>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    let until = tokio::time::Instant::now() + COMMIT_WAIT;
    while tells_commit_only(&request, last_sent)
        && let Ok(Some(next)) = tokio::time::timeout_at(until, input.next()).await
    {
        request = next;
    }
    request
}

/// Requests that were sent and are not answered.
#[derive(Default)]
struct Sent {
    count: u64,
    /// Of each what it follows on and where it ends, in their order.
    unanswered: VecDeque<Asked>,
}

/// What a request was.
struct Asked {
    term: Term,
    from: Option<LogId>,
    to: Option<LogId>,
}

impl Sent {
    fn push(&mut self, asked: Asked) {
        self.count += 1;
        self.unanswered.push_back(asked);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The acknowledgements of one session, in the order of its requests.
struct Answers {
    reader: FrameReader<quinn::RecvStream>,
    _writer: AbortOnDrop,
    sent: Arc<Mutex<Sent>>,
    /// Requests that were acknowledged.
    answered: u64,
    /// Requests that had been sent when an acknowledgement last took long.
    owed: u64,
    /// The last index that was acknowledged.
    acknowledged: u64,
    /// Members that lack this index are not waited for.
    left_behind: fifo_watch::Receiver<u64>,
    network: Network,
    target: NodeId,
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
                        return Some((Err(lost("it is behind the log: a snapshot is next")), None));
                    }
                    continue;
                }
            };
            match read {
                Ok(read) => break read,
                // What was owed a whole limit ago is owed still: the peer's log does not move. With
                // the session ends what it holds of our own log.
                Err(_) if answers.owed > answers.answered => {
                    return Some((Err(lost("no acknowledgement in time")), None));
                }
                Err(_) => answers.owed = lock(&answers.sent).count,
            }
        };
        answers.answered += 1;
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(error) => {
                answers.network.peers.failed(answers.target, Lane::Bulk);
                return Some((Err(lost(error)), None));
            }
        };
        answers.network.peers.answered(answers.target, Lane::Bulk);
        match decode::<AppendAnswer>(&frame).map_err(|error| error.to_string()) {
            Ok(answer) => match answers.judge(answer) {
                Ok(Ok(acknowledged)) => Some((Ok(Ok(acknowledged)), Some(answers))),
                // After a conflict or a higher vote nothing that is queued can succeed.
                Ok(Err(refused)) => Some((Ok(Err(refused)), None)),
                Err(why) => {
                    answers.network.refuse(answers.target, &why);
                    Some((Err(lost(why)), None))
                }
            },
            Err(error) => Some((Err(lost(error)), None)),
        }
    }

    /// What openraft is told of an answer.
    ///
    /// # Errors
    /// If it cannot be one to what was sent.
    fn judge(&mut self, answer: AppendAnswer) -> Result<StreamAppendResult<Types>, String> {
        let asked = lock(&self.sent).unanswered.pop_front();
        let Asked { term, from, to } = asked.ok_or("an answer to nothing that was sent")?;
        match answer {
            AppendAnswer::Taken { last, seal } if last == to => {
                self.acknowledged = last.map_or(0, |last| last.index);
                if let Some(seal) = seal {
                    let index = self.acknowledged;
                    let word = Acknowledged { term, index, seal };
                    self.network.sessions.keep_word(self.target, word);
                }
                Ok(Ok(last))
            }
            AppendAnswer::Taken { last, .. } => {
                let name = |at: Option<LogId>| at.map_or("nothing".to_owned(), |at| at.to_string());
                Err(format!("entries up to {} are acknowledged as {}", name(to), name(last)))
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
