use std::time::Duration;

use dkv_base::id::HolderId;
use dkv_wire::limits;
use futures::FutureExt;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::net::quota::{Quota, Quotas};
use crate::net::reply::{Begun, Queued, Replies};
use dkv_state::Batch;

/// Waiting writes, numbered in order, and the destination of their answers.
struct Waiting {
    queue: VecDeque<PendingWrite>,
    replies: Replies,
    answers: UnboundedReceiver<Queued>,
    quota: Quota,
    next_id: u64,
}

impl Waiting {
    fn new() -> Self {
        let (replies, answers) = Replies::collected();
        let quota = Quotas::default().of(HolderId::random());
        Self { queue: VecDeque::new(), replies, answers, quota, next_id: 0 }
    }

    fn push(&mut self, command: impl Into<Bytes>, expires: Instant) {
        let part = self.quota.take(0).now_or_never().flatten().unwrap();
        let reply = self.replies.to(self.next_id, part, Begun::now());
        self.next_id += 1;
        self.queue.push_back(PendingWrite {
            command: command.into(),
            holder: HolderId(uuid::Uuid::nil()),
            expires,
            reply,
            place: Place::default(),
        });
    }

    /// The ids and outcomes of the writes answered so far.
    fn answered(&mut self) -> Vec<(u64, Result<Answer, Refusal>)> {
        let mut answered = Vec::new();
        while let Ok((reply, ..)) = self.answers.try_recv() {
            answered.push((reply.id, reply.result));
        }
        answered
    }
}

/// The time on the shard's clock.
const TIME_MS: u64 = 77;

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn commands(batch: &Bytes) -> Vec<Bytes> {
    let batch = Batch::decode(batch).unwrap();
    batch.commands().map(Bytes::copy_from_slice).collect()
}

#[test]
fn what_waits_leaves_together_and_in_order() {
    let mut waiting = Waiting::new();
    assert!(next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9))).is_none());
    for command in ["one", "two", "three"] {
        waiting.push(command, later());
    }
    let (batch, writes) =
        next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9))).unwrap();
    assert_eq!(commands(&batch), ["one", "two", "three"]);
    assert_eq!(Batch::decode(&batch).unwrap().time_ms(), TIME_MS);
    assert!(waiting.queue.is_empty());
    for write in writes {
        write.reply.send(Ok(Answer::Done));
    }
    let ids: Vec<u64> = waiting.answered().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn what_waited_too_long_is_refused_and_has_no_effect() {
    let mut waiting = Waiting::new();
    waiting.push("late", Instant::now());
    waiting.push("in time", later());
    waiting.push("late too", Instant::now());
    let (batch, replies) =
        next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9))).unwrap();
    assert_eq!(commands(&batch), ["in time"]);
    assert_eq!(replies.len(), 1);
    let answered = waiting.answered();
    assert_eq!(answered.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2]);
    // Unavailable promises that there is no effect and never will be; unknown would not.
    assert!(answered.iter().all(|(_, result)| matches!(result, Err(Refusal::Unavailable(_)))));

    waiting.push("late", Instant::now());
    assert!(
        next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9))).is_none(),
        "no batch of nothing"
    );
    assert!(waiting.queue.is_empty());
}

#[test]
fn a_batch_has_its_bounds_and_loses_nothing() {
    let mut waiting = Waiting::new();
    let large = limits::BATCH_BYTES_TARGET;
    for bytes in [large / 2, large / 2, 2 * large, 10] {
        waiting.push(vec![1; bytes], later());
    }
    for _ in 0..limits::BATCH_COMMANDS_MAX {
        waiting.push("small", later());
    }
    let mut sizes = Vec::new();
    let mut unanswered = Vec::new();
    while let Some((batch, replies)) =
        next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9)))
    {
        assert_eq!(commands(&batch).len(), replies.len());
        sizes.push(replies.len());
        unanswered.extend(replies);
    }
    // Two halves and their headers exceed the target; a large one goes alone.
    assert_eq!(sizes, [1, 1, 1, limits::BATCH_COMMANDS_MAX, 1]);
    assert!(waiting.answered().is_empty());
    drop(unanswered);
    let answered = waiting.answered();
    assert_eq!(answered.len(), waiting.next_id as usize);
    // Writes in flight when the node stopped may have had their effect.
    assert!(answered.iter().all(|(_, result)| matches!(result, Err(Refusal::Unknown(_)))));
}

#[test]
fn each_result_is_told_as_what_it_is() {
    let (group, me, term) = (GroupId(1), NodeId::random(), Term(3));
    let receipt = |revision| Receipt {
        shard: group,
        revision,
        level: Level::Strong,
        node: me,
        term,
        staleness_ms: Some(0),
        stamp: Stamp(9),
        pending: None,
    };
    let conflict = |revision, current| Refusal::Conflict { receipt: receipt(revision), current };
    let seven = Revision(7);
    let cases = [
        (
            CommandResult::Written { revision: seven, existed: true },
            Ok(Answer::Written { receipt: receipt(seven), existed: true }),
        ),
        (CommandResult::Conflict { current: Some(seven) }, Err(conflict(seven, Some(seven)))),
        (CommandResult::Conflict { current: None }, Err(conflict(Revision(0), None))),
        (CommandResult::SessionOpened, Ok(Answer::Done)),
        (CommandResult::SessionExpired, Err(Refusal::SessionExpired)),
        (
            CommandResult::Overloaded { retry_after_ms: 9 },
            Err(Refusal::Overloaded { retry_after_ms: 9 }),
        ),
    ];
    let (results, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let mut waiting = Waiting::new();
    for _ in &results {
        waiting.push("command", later());
    }
    let (_, replies) =
        next_batch(&mut waiting.queue, BatchBuilder::new(TIME_MS, Stamp(9))).unwrap();
    answer(group, me, Stamp(9), Ok((term, results)), replies);
    let answered: Vec<_> = waiting.answered().into_iter().map(|(_, result)| result).collect();
    assert_eq!(answered, expected);
}
