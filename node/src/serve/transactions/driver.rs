//! Drives transactions over several shards, on the primary of their home.
//!
//! An attempt prepares the parts of all shards at the same time. If all of them are prepared, the
//! home decides, and that is all that the client waits for: the other shards learn of it
//! afterwards, and their keys stay locked until then. If one is not, the driver gives the attempt
//! up, and begins another after a pause.
//!
//! Attempts that meet locks again and again prepare their shards one after the other, in ascending
//! order, and wait for locks on the way. No attempt waits for a lower shard while it holds locks in
//! a higher one, so none wait for each other in a circle.
//!
//! Whatever dies here leaves nothing in doubt for long: see [`resolver`](super::resolver).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp};
use dkv_base::platform::random_u64;
use dkv_wire::codec::{decode, encode};
use dkv_wire::message::{
    Answer, Attempt, AttemptId, Command, Commitment, Decide, Decision, PartReceipt, Prepare,
    PrepareAnswer, PrepareHome, Refusal, Resolution, TransactOver,
};
use futures::future::join_all;
use tokio::time::Instant;
use tracing::debug;

use super::parts::{DividedTransaction, PreparedPart};
use super::proposals::{propose, propose_here};
use crate::common::timeline::Stage;
use crate::net::reply::ReplyTo;
use crate::node::Node;
use crate::replica::Replica;
use crate::serve::context::RequestContext;

/// Longest time for which an attempt prepares.
const PREPARE_PATIENCE: Duration = Duration::from_millis(2000);
/// Time by the home's log after which anybody may have an attempt aborted. Longer than an attempt
/// takes.
const ATTEMPT_LIFE: Duration = Duration::from_millis(4000);
/// Attempts that prepare all shards at once.
const IMPATIENT_ATTEMPTS: u32 = 2;
/// Pause after the first attempt that met a lock; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Longest time for which a transaction is driven; its client may send it again.
const DRIVE_PATIENCE: Duration = Duration::from_secs(60);
/// Time in which the other shards learn the outcome; after that, the resolver tells them.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);

/// A transaction that this node drives.
struct Driver {
    node: Arc<Node>,
    replica: Arc<Replica>,
    session: SessionId,
    serial: Serial,
    settled: Serial,
    after: Stamp,
    parts: DividedTransaction,
    deadline: Instant,
}

/// What an attempt has led to.
enum Attempted {
    /// This is the answer.
    Answer(Result<Answer, Refusal>),
    /// It had no effect, and another one may.
    Again(String),
}

/// Executes a transaction over several shards that was validated, and answers when it is decided.
pub(in crate::serve) fn drive(
    context: &RequestContext<'_>,
    replica: &Arc<Replica>,
    command: &Bytes,
    mut reply: ReplyTo,
) {
    let Ok(Command::TransactOver(over)) = decode(command) else {
        return reply.refuse(Refusal::Invalid("this is no transaction".into()));
    };
    let parts = DividedTransaction::of(&over, replica.id());
    let parts = match check_keyspace(context.node, replica.id(), &over.shards).and(parts) {
        Ok(parts) => parts,
        Err(refusal) => return reply.refuse(refusal),
    };
    let TransactOver { session, serial, settled, after, .. } = over;
    let name = (session, serial);
    reply.enter(Stage::Shards, Instant::now());
    if !replica.attempts().join(name, context.peer.holder, reply) {
        return;
    }
    let driver = Driver {
        node: Arc::clone(context.node),
        replica: Arc::clone(replica),
        session,
        serial,
        settled,
        after,
        parts,
        deadline: Instant::now() + context.working_time().min(DRIVE_PATIENCE),
    };
    replica.spawn(async move {
        let driving = driver.replica.attempts().driven(name);
        let answer = driver.run().await;
        driving.end(&answer);
    });
}

/// Checks that all shards of a transaction are of its home's keyspace. A shard of another one could
/// be dropped while the rest depends on it, and nobody would ever end what it has locked.
fn check_keyspace(node: &Node, home: GroupId, shards: &[GroupId]) -> Result<(), Refusal> {
    let other = node.replicas().with_directory(|directory| {
        let (keyspace, _) = directory.keyspace_of(home)?;
        let is_elsewhere = |shard: &&GroupId| {
            directory.keyspace_of(**shard).is_none_or(|(other, _)| other != keyspace)
        };
        Some(shards.iter().find(is_elsewhere))
    });
    let Some(other) = other.flatten() else { return Err(node.replicas().no_such_shard(home)) };
    match other {
        None => Ok(()),
        Some(other) => Err(Refusal::Invalid(format!(
            "all keys of a transaction must be in one keyspace; shards {home} and {other} are not"
        ))),
    }
}

impl Driver {
    fn home(&self) -> GroupId {
        self.replica.id()
    }

    async fn run(&self) -> Result<Answer, Refusal> {
        let mut attempts = 0;
        loop {
            let why = match self.attempt(attempts >= IMPATIENT_ATTEMPTS).await {
                Attempted::Answer(answer) => return answer,
                Attempted::Again(why) => why,
            };
            attempts += 1;
            let pause = PAUSE_MIN * (1 << attempts.min(6));
            let pause = pause.min(PAUSE_MAX);
            let jittered = pause / 2 + pause.mul_f64(random_u64() as f64 / u64::MAX as f64);
            if Instant::now() + jittered >= self.deadline {
                return Err(Refusal::Unavailable(why));
            }
            tokio::time::sleep(jittered).await;
        }
    }

    /// Tries once. In order and with patience if `in_turn`.
    async fn attempt(&self, in_turn: bool) -> Attempted {
        let Some(term) = self.replica.leading_term() else {
            let primary = self.replica.leader().filter(|leader| *leader != self.node.id());
            return Attempted::Answer(Err(Refusal::NotPrimary { primary }));
        };
        let preparing = self.replica.attempts().begin(term);
        debug!(group = %self.home(), step = "TransactionBegins");
        let attempt = preparing.attempt;
        let (home, session, serial) = (self.home(), self.session, self.serial);
        let id = AttemptId { home, session, serial, attempt };
        let deadline = (Instant::now() + PREPARE_PATIENCE).min(self.deadline);
        let answers = match in_turn {
            false => {
                let over = preparing.over;
                let prepares = self.parts.iter().map(|(shard, part)| async move {
                    let prepared = self.prepare((id, over), shard, &part.body, false, deadline);
                    (shard, prepared.await)
                });
                join_all(prepares).await
            }
            true => {
                let mut answers = Vec::new();
                for (shard, part) in self.parts.iter() {
                    let attempt = (id, preparing.over);
                    let answer = self.prepare(attempt, shard, &part.body, true, deadline).await;
                    let goes_on =
                        matches!(answer, Ok(Answer::Prepared(PrepareAnswer::Prepared { .. })));
                    answers.push((shard, answer));
                    if !goes_on {
                        break;
                    }
                }
                answers
            }
        };
        let mut prepared = BTreeMap::new();
        let mut failed = None;
        let mut doubtful = Vec::new();
        for (shard, answer) in answers {
            match answer {
                Ok(Answer::Prepared(PrepareAnswer::Prepared {
                    holds,
                    revision,
                    stamp,
                    then,
                    otherwise,
                })) => {
                    let prospects = [then, otherwise];
                    prepared.insert(shard, PreparedPart { holds, revision, stamp, prospects });
                }
                answer => {
                    // Without an answer it may be prepared.
                    if matches!(answer, Err(Refusal::Unknown(_))) {
                        doubtful.push(shard);
                    }
                    if shard == home || failed.is_none() {
                        failed = Some((shard, answer));
                    }
                }
            }
        }
        if let Some((shard, answer)) = failed {
            doubtful.extend(prepared.keys());
            let verdict = self.verdict(shard, answer);
            self.abort(id, doubtful).await;
            return verdict;
        }
        debug!(group = %self.home(), step = "TransactionPrepared");
        // Nothing more is to be prepared.
        drop(preparing);
        self.decide(id, prepared).await
    }

    async fn prepare(
        &self,
        (id, over): (AttemptId, Attempt),
        shard: GroupId,
        body: &[u8],
        patient: bool,
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let at_home = (shard == self.home()).then(|| PrepareHome {
            settled: self.settled,
            patience_ms: ATTEMPT_LIFE.as_millis() as u32,
            participants: self.parts.participants(shard),
        });
        let after = self.after;
        let command = Command::Prepare(Prepare { id, over, after, patient, at_home, body });
        if shard == self.home() {
            propose_here(self.node.id(), &self.replica, encode(&command), deadline).await
        } else {
            propose(&self.node, shard, &command, deadline).await
        }
    }

    /// Returns what the answer of a shard that has not prepared its part means.
    fn verdict(&self, shard: GroupId, answer: Result<Answer, Refusal>) -> Attempted {
        let is_home = shard == self.home();
        match answer {
            Ok(Answer::Transacted { receipt, succeeded, changed, .. }) if is_home => {
                let (session, serial) = (self.session, self.serial);
                let parts = self.replica.state_machine().with_shard(|shard| {
                    shard.committed_parts(session, serial).map(<[PartReceipt]>::to_vec)
                });
                let parts = parts.flatten().unwrap_or_default();
                let results = None;
                let answer = Answer::TransactedOver { receipt, succeeded, changed, parts, results };
                Attempted::Answer(Ok(answer))
            }
            Ok(Answer::Prepared(PrepareAnswer::Locked)) => Attempted::Again(
                "another transaction over several shards has locked a key for too long".into(),
            ),
            Ok(_) => Attempted::Again(format!("shard {shard} does not prepare the transaction")),
            // Nothing is decided, so nothing has had an effect.
            Err(Refusal::Unknown(why) | Refusal::Unavailable(why)) => Attempted::Again(why),
            Err(Refusal::Overloaded { .. }) if !is_home => {
                Attempted::Again(format!("shard {shard} has too much to do"))
            }
            Err(refusal @ Refusal::OverQuota { .. }) => Attempted::Answer(Err(refusal)),
            Err(Refusal::NotPrimary { .. } | Refusal::SessionExpired) if !is_home => {
                Attempted::Again(format!("the primary of shard {shard} is changing"))
            }
            Err(refusal) => Attempted::Answer(Err(refusal)),
        }
    }

    /// Has the home decide what is prepared everywhere.
    async fn decide(&self, id: AttemptId, prepared: BTreeMap<GroupId, PreparedPart>) -> Attempted {
        let succeeded = prepared.values().all(|part| part.holds);
        let list = usize::from(!succeeded);
        let changes =
            |part: &PreparedPart| part.prospects.get(list).is_some_and(|part| part.changes);
        let receipts = prepared.iter().filter(|(shard, _)| **shard != id.home);
        let receipts = receipts.map(|(shard, part)| {
            let next = u64::from(changes(part));
            let not_before = Revision(part.revision.0 + next);
            PartReceipt { shard: *shard, not_before }
        });
        let parts: Vec<PartReceipt> = receipts.collect();
        let decision = match self.parts.unfit(&prepared, succeeded) {
            Some((operation, why)) => Decision::Unfit { operation, why },
            None => {
                let changed = prepared.values().any(changes);
                let after = prepared.values().map(|part| part.stamp).max().unwrap_or_default();
                Decision::Commit { succeeded, changed, after, parts: parts.clone() }
            }
        };
        let command = encode(&Command::Decide(Decide { id, decision }));
        let others = self.parts.participants(id.home);
        let deadline = self.deadline.max(Instant::now() + PREPARE_PATIENCE);
        match propose_here(self.node.id(), &self.replica, command, deadline).await {
            Ok(Answer::Transacted { receipt, succeeded, changed, .. }) => {
                debug!(group = %self.home(), step = "TransactionDecided");
                let commitment = Commitment { succeeded, stamp: receipt.stamp };
                self.finish(id, others, Some(commitment));
                let at = (id.home, receipt.revision);
                let results = self.parts.results(prepared, succeeded, at);
                let answer = Answer::TransactedOver { receipt, succeeded, changed, parts, results };
                Attempted::Answer(Ok(answer))
            }
            Ok(_) => {
                self.abort(id, others).await;
                Attempted::Again("the transaction took too long and was aborted".into())
            }
            Err(refusal @ Refusal::Unfit { .. }) => {
                self.finish(id, others, None);
                Attempted::Answer(Err(refusal))
            }
            // The decision did not come into the log.
            Err(Refusal::Overloaded { .. }) => {
                self.abort(id, prepared.into_keys().collect()).await;
                Attempted::Again("the home of the transaction has too much to do".into())
            }
            Err(refusal) => Attempted::Answer(Err(refusal)),
        }
    }

    /// Gives up an attempt in the shards where it is or may be prepared.
    async fn abort(&self, id: AttemptId, shards: Vec<GroupId>) {
        let deadline = Instant::now() + PREPARE_PATIENCE;
        let aborts = shards.into_iter().map(|shard| async move {
            if shard == id.home {
                let command = encode(&Command::Resolve { id, abort: true });
                _ = propose_here(self.node.id(), &self.replica, command, deadline).await;
            } else {
                let command = Command::Finish { id, committed: None };
                _ = propose(&self.node, shard, &command, deadline).await;
            }
        });
        join_all(aborts).await;
    }

    /// Tells the other shards the outcome, in the background.
    fn finish(&self, id: AttemptId, others: Vec<GroupId>, committed: Option<Commitment>) {
        let (node, replica) = (Arc::clone(&self.node), Arc::clone(&self.replica));
        self.replica.spawn(async move {
            finish(&node, &replica, id, others, committed).await;
        });
    }
}

/// Tells the other shards the outcome of an attempt; once all know that it is committed, the home
/// forgets it.
pub(super) async fn finish(
    node: &Arc<Node>,
    home: &Arc<Replica>,
    id: AttemptId,
    others: Vec<GroupId>,
    committed: Option<Commitment>,
) {
    let Some(_finishing) = home.attempts().finish(id) else { return };
    let deadline = Instant::now() + FINISH_PATIENCE;
    let told = others.into_iter().map(|shard| async move {
        let command = Command::Finish { id, committed };
        propose(node, shard, &command, deadline).await.is_ok()
    });
    let all_know = join_all(told).await.into_iter().all(|told| told);
    debug!(group = %home.id(), all_know, step = "TransactionFinished");
    if all_know && committed.is_some() {
        let command = encode(&Command::Forget(id));
        // Without success the resolver does it.
        _ = propose_here(node.id(), home, command, deadline).await;
    }
}

/// Returns what has become of an attempt, by the word of its home.
pub(super) async fn resolve(
    node: &Arc<Node>,
    id: AttemptId,
    deadline: Instant,
) -> Option<Resolution> {
    match propose(node, id.home, &Command::Resolve { id, abort: false }, deadline).await {
        Ok(Answer::Resolved(resolution)) => Some(resolution),
        _ => None,
    }
}
