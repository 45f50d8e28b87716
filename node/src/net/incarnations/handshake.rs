//! The first exchange of two nodes on a connection: each states its incarnation.
//!
//! A connection belongs to one process at each end, so the incarnations stated at its beginning
//! hold for everything that is sent on it. The dialing node repeats its statement every few
//! seconds, on the connection for urgent messages. Both ends number their questions: an answer
//! shows that a process was alive after the question, and that distinguishes a clone from a
//! restart.
//!
//! A node that hears of a new incarnation of a peer asks the incarnations that it is connected to
//! at once, unprompted ([`Answer::answers`] is empty then), and admits the new one after they have
//! had a moment to answer.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::NodeId;
use dkv_base::supervise;
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::incarnation::{BootId, Incarnation, PAST_MAX, PastIncarnation, Verdict};
use dkv_wire::limits::JOIN_FRAME_BYTES_MAX;
use dkv_wire::message::Opening;
use dkv_wire::quic::Close;
use dkv_wire::rpc::RpcError;
use serde::{Deserialize, Serialize};
use tracing::{debug, error};

use super::Incarnations;

/// Interval at which the dialing node states its incarnation.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// The same interval while either node may have a second incarnation.
const SAY_AGAIN: Duration = Duration::from_millis(200);
/// Time allowed for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The statement of the dialing node.
#[derive(Serialize, Deserialize)]
struct Hello {
    run: Incarnation,
    /// The number of its question, which the other end answers with its incarnation.
    question: u64,
    /// The number of the other end's last question on this connection.
    answers: Option<u64>,
}

/// The answer of the dialed node.
#[derive(Serialize, Deserialize)]
struct Answer {
    run: Incarnation,
    /// Its verdict on the dialing node.
    verdict: Verdict,
    /// Whether the dialed node itself takes no part.
    is_held: bool,
    /// Whether it wants another hello at once, because its verdict so far is not final.
    ask_again: bool,
    /// The number of its question, which the dialing node answers with its next hello.
    question: u64,
    /// The question that this answers; `None` if this only asks.
    answers: Option<u64>,
}

/// The incarnation at the other end of an accepted connection.
#[derive(Default)]
pub(crate) struct Caller(OnceLock<BootId>);

impl Caller {
    /// Returns the incarnation, once the peer has stated it and it was found sound.
    pub(crate) fn boot(&self) -> Option<BootId> {
        self.0.get().copied()
    }
}

/// Reason why two nodes do not speak over a connection. The connection is closed, with this reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer did not state its incarnation in time.
    #[error("it did not identify its incarnation")]
    Silent,
    /// The peer did not answer a later question in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection or the stream broke.
    #[error(transparent)]
    Broken(#[from] RpcError),
    /// The peer's list of earlier incarnations is too long.
    #[error("it names too many incarnations")]
    TooManyRuns,
    /// The peer is held back.
    #[error("it takes no part itself")]
    HeldBack,
    /// The peer refuses this node's incarnation.
    #[error("it refuses this node")]
    RefusesUs,
    /// This node refuses the peer's incarnation.
    #[error("its incarnation is refused: {0:?}")]
    Refused(Verdict),
    /// Two processes of the peer are alive.
    #[error("two of its processes are running")]
    RunsTwice,
    /// Another incarnation than before answers.
    #[error("a different incarnation answered")]
    OtherRun,
}

/// States this node's incarnation on a connection, and learns the other end's. With `goes_on`,
/// repeats that every few seconds for as long as the connection lives.
///
/// # Errors
/// Fails with the reason if either end may not take part; the connection is closed then.
pub(crate) async fn greet(
    incarnations: &Incarnations,
    node: NodeId,
    connection: &quinn::Connection,
    goes_on: bool,
) -> Result<(), HandshakeError> {
    let greeted =
        tokio::time::timeout(PATIENCE, Greeting::begin(incarnations, node, connection)).await;
    let greeted = greeted.unwrap_or(Err(HandshakeError::Silent));
    let greeted = match greeted {
        Ok(greeting) => {
            incarnations.let_in(node, greeting.boot, connection).await.map(|()| greeting)
        }
        Err(why) => Err(why),
    };
    match greeted {
        Ok(greeting) => {
            if goes_on {
                let (incarnations, connection) = (incarnations.clone(), connection.clone());
                tokio::spawn(async move {
                    match supervise::caught(greeting.go_on(&incarnations, &connection)).await {
                        Ok(Ok(())) => return,
                        Ok(Err(why)) => debug!(%node, %why, "stopped using a connection"),
                        Err(panicked) => error!(
                            %node, "the task that states this node's incarnation {panicked}; connecting \
                             again; this is a bug in dkv"
                        ),
                    }
                    Close::Done.close(&connection, "no answer");
                });
            }
            Ok(())
        }
        Err(why) => {
            Close::Done.close(connection, &why.to_string());
            Err(why)
        }
    }
}

struct Greeting {
    node: NodeId,
    boot: BootId,
    /// The number of the other end's last question.
    asked: Option<u64>,
    ask_again: bool,
    reader: FrameReader<quinn::RecvStream>,
    writer: FrameWriter<quinn::SendStream>,
}

impl Greeting {
    async fn begin(
        incarnations: &Incarnations,
        node: NodeId,
        connection: &quinn::Connection,
    ) -> Result<Self, HandshakeError> {
        let (send, receive) = connection.open_bi().await.map_err(RpcError::from)?;
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::Run { from: incarnations.shared.me });
        let reader = FrameReader::new(receive, JOIN_FRAME_BYTES_MAX);
        let mut greeting =
            Self { node, boot: BootId(0), asked: None, ask_again: false, reader, writer };
        greeting.boot = greeting.say(incarnations).await?;
        Ok(greeting)
    }

    /// States the incarnation, and once more if the verdict on it does not count yet: only an
    /// answer shows that a process is alive.
    async fn say(&mut self, incarnations: &Incarnations) -> Result<BootId, HandshakeError> {
        match self.say_once(incarnations).await {
            Err(_) if self.ask_again => self.say_once(incarnations).await,
            said => said,
        }
    }

    async fn say_once(&mut self, incarnations: &Incarnations) -> Result<BootId, HandshakeError> {
        self.ask_again = false;
        let question = incarnations.question();
        let hello = Hello { run: incarnations.own(), question, answers: self.asked };
        self.writer.send(&hello).await.map_err(RpcError::from)?;
        loop {
            let answer = self.next().await?;
            if answer.answers == Some(question) {
                return self.take(incarnations, &answer);
            }
        }
    }

    async fn next(&mut self) -> Result<Answer, HandshakeError> {
        let frame = self.reader.next().await.map_err(RpcError::from)?;
        let frame = frame.ok_or(RpcError::NoAnswer)?;
        let answer: Answer = decode(&frame).map_err(RpcError::from)?;
        check(&answer.run)?;
        self.asked = Some(answer.question);
        Ok(answer)
    }

    fn take(
        &mut self,
        incarnations: &Incarnations,
        answer: &Answer,
    ) -> Result<BootId, HandshakeError> {
        let heard = incarnations.hear(self.node, &answer.run, answer.answers);
        self.ask_again = answer.ask_again || heard.ask_again;
        if answer.verdict.is_sound() || !answer.ask_again {
            incarnations.hear_peer(self.node, answer.verdict);
        }
        match (heard.verdict, answer.verdict) {
            (Verdict::Sound, Verdict::Sound) if answer.is_held => Err(HandshakeError::HeldBack),
            (Verdict::Sound, Verdict::Sound) => Ok(answer.run.boot),
            (Verdict::Sound, _) => Err(HandshakeError::RefusesUs),
            (refused, _) => Err(HandshakeError::Refused(refused)),
        }
    }

    async fn go_on(
        mut self,
        incarnations: &Incarnations,
        connection: &quinn::Connection,
    ) -> Result<(), HandshakeError> {
        let doubt = incarnations.doubt_of(self.node);
        loop {
            let pause = if self.ask_again { SAY_AGAIN } else { SAY_EVERY };
            tokio::select! {
                biased;
                _ = connection.closed() => return Ok(()),
                () = doubt.notified() => {}
                // The peer sent a question unprompted.
                asked = self.next() => drop(asked?),
                () = tokio::time::sleep(pause) => {}
            }
            let said = tokio::time::timeout(PATIENCE, self.say(incarnations)).await;
            let boot = said.unwrap_or(Err(HandshakeError::Timeout))?;
            if boot != self.boot {
                return Err(HandshakeError::OtherRun);
            }
        }
    }
}

/// Learns the incarnation of the dialing node, and answers it until the stream ends.
pub(crate) async fn serve(
    incarnations: &Incarnations,
    from: NodeId,
    connection: &quinn::Connection,
    caller: &Caller,
    mut reader: FrameReader<quinn::RecvStream>,
    mut writer: FrameWriter<quinn::SendStream>,
) {
    let doubt = incarnations.doubt_of(from);
    let mut verdict = Verdict::Sound;
    loop {
        let frame = tokio::select! {
            biased;
            frame = reader.next() => frame,
            () = doubt.notified() => {
                let ask = Answer {
                    run: incarnations.own(),
                    verdict,
                    is_held: incarnations.held().is_some(),
                    ask_again: true,
                    question: incarnations.question(),
                    answers: None,
                };
                match writer.send(&ask).await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
        };
        let Ok(Some(frame)) = frame else { break };
        let Ok(hello) = decode::<Hello>(&frame) else { break };
        let boot = hello.run.boot;
        if check(&hello.run).is_err() || caller.boot().is_some_and(|said| said != boot) {
            break;
        }
        let heard = incarnations.hear(from, &hello.run, hello.answers);
        verdict = heard.verdict;
        if verdict.is_sound() && caller.boot().is_none() && incarnations.held().is_none() {
            verdict = match incarnations.let_in(from, boot, connection).await {
                Ok(()) => Verdict::Sound,
                Err(_) => incarnations.hear(from, &hello.run, None).verdict,
            };
            if verdict.is_sound() {
                // Set once: the incarnation of a connection does not change.
                let _ = caller.0.set(boot);
            }
        }
        let answer = Answer {
            run: incarnations.own(),
            verdict,
            // Not `held()`, which may have changed just now: a peer that was not admitted a moment
            // ago is not heard on this connection.
            is_held: caller.boot().is_none(),
            ask_again: heard.ask_again,
            question: incarnations.question(),
            answers: Some(hello.question),
        };
        if writer.send(&answer).await.is_err() {
            return;
        }
        if !verdict.is_sound() && !heard.ask_again {
            // The peer closes the connection when it has read the reason; if it does not, this end
            // does.
            let _ = writer.into_inner().finish();
            let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
            if closed.is_err() {
                Close::Done.close(connection, "refused");
            }
            return;
        }
    }
}

/// Claims on a connection, as `from`, to be the given incarnation, for tests of the consequences.
/// Returns once the peer has answered, with whether it was admitted.
pub async fn introduce(
    connection: &quinn::Connection,
    from: NodeId,
    run: &Incarnation,
) -> Option<bool> {
    let (send, receive) = connection.open_bi().await.ok()?;
    let (mut reader, mut writer) =
        (FrameReader::new(receive, JOIN_FRAME_BYTES_MAX), FrameWriter::new(send));
    writer.push(&Opening::Run { from });
    let mut asked = None;
    loop {
        writer.send(&Hello { run: run.clone(), question: 1, answers: asked }).await.ok()?;
        let answer: Answer = decode(&reader.next().await.ok()??).ok()?;
        if answer.verdict.is_sound() || !answer.ask_again {
            return Some(answer.verdict.is_sound() && !answer.is_held);
        }
        asked = Some(answer.question);
    }
}

/// Parses bytes as a frame of this exchange and encodes the result again; `None` if they are no
/// such frame.
pub(crate) fn frame(bytes: &Bytes) -> Option<Bytes> {
    let hello = decode::<Hello>(bytes).ok().map(|hello| encode(&hello));
    hello.or_else(|| decode::<Answer>(bytes).ok().map(|answer| encode(&answer)))
}

/// Returns well-formed sample frames.
pub(crate) fn frame_samples() -> [Bytes; 2] {
    let run = Incarnation {
        start: 3,
        boot: BootId(4),
        past: vec![PastIncarnation { boot: BootId(5), left: Some(6) }],
        opened: 6,
        mark: 7,
    };
    let hello = Hello { run: run.clone(), question: 8, answers: Some(9) };
    let (verdict, question) = (Verdict::Twice { start: 2 }, 10);
    let answer =
        Answer { run, verdict, is_held: true, ask_again: true, question, answers: Some(11) };
    [encode(&hello), encode(&answer)]
}

fn check(run: &Incarnation) -> Result<(), HandshakeError> {
    if run.past.len() > PAST_MAX { Err(HandshakeError::TooManyRuns) } else { Ok(()) }
}

/// Answers every connection of an endpoint that the caller's data directory is an older copy.
#[cfg(test)]
pub(crate) async fn refuse_all(endpoint: dkv_wire::quic::Endpoint) {
    let answer = async |connection: quinn::Connection| {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let (mut reader, mut writer) =
                (FrameReader::new(receive, JOIN_FRAME_BYTES_MAX), FrameWriter::new(send));
            let Ok(Some(_opening)) = reader.next().await else { continue };
            let Ok(Some(frame)) = reader.next().await else { continue };
            let Ok(hello) = decode::<Hello>(&frame) else { continue };
            let answer = Answer {
                run: Incarnation::default().next(BootId(9)).open(1),
                verdict: Verdict::Older { start: 99, mark: 99 },
                is_held: false,
                ask_again: false,
                question: 1,
                answers: Some(hello.question),
            };
            let _ = writer.send(&answer).await;
            let _ = writer.into_inner().finish();
        }
    };
    while let Some(incoming) = endpoint.quinn().accept().await {
        if let Ok(connection) = incoming.await {
            tokio::spawn(answer(connection));
        }
    }
}
