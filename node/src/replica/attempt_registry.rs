//! The transactions over several shards that a home's primary drives.
//!
//! A transaction that is sent again while it is driven joins its first copy. Attempts get their
//! numbers here, and the lowest that is under way tells the other shards which of them are over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use dkv_base::id::{HolderId, Serial, SessionId, Term};
use dkv_base::sync::lock;
use dkv_wire::message::{Answer, Attempt, AttemptId, Refusal};

use crate::net::reply::ReplyTo;

/// Most transactions that are driven at once; more are refused as overload.
const DRIVEN_MAX: usize = 4096;
/// Most of them that one holder has.
const HOLDER_DRIVEN_MAX: usize = DRIVEN_MAX / 2;
/// Most requests for the same transaction that wait for its outcome.
const COPIES_MAX: usize = 16;
/// Time after which a refused request may come again, in milliseconds.
const RETRY_MS: u32 = 20;

/// The transactions and attempts under way.
#[derive(Default)]
pub(crate) struct AttemptRegistry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The last attempt that was begun.
    last: Attempt,
    /// Attempts that may still have to be prepared somewhere.
    preparing: BTreeSet<Attempt>,
    /// Who waits for the outcome of a transaction.
    driven: BTreeMap<(SessionId, Serial), Driven>,
    /// Number of them by holder.
    holders: HashMap<HolderId, usize>,
    /// Committed attempts of which the other shards are being told.
    finishing: BTreeSet<AttemptId>,
}

/// A transaction under way.
struct Driven {
    /// Who sent it first.
    holder: HolderId,
    waiting: Vec<ReplyTo>,
}

/// An attempt that is being prepared. It is over, or prepared everywhere, once this is dropped.
pub(crate) struct Preparing<'a> {
    registry: &'a AttemptRegistry,
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// All attempts below this one are over.
    pub(crate) over: Attempt,
}

impl AttemptRegistry {
    /// Begins an attempt in a term in which this replica leads.
    pub(crate) fn begin(&self, term: Term) -> Preparing<'_> {
        let mut inner = self.lock();
        let number = if inner.last.term == term { inner.last.number + 1 } else { 1 };
        let attempt = Attempt { term, number };
        inner.last = inner.last.max(attempt);
        inner.preparing.insert(attempt);
        let first = Attempt { term, number: 0 };
        let over = inner.preparing.range(first..).next().copied().unwrap_or(attempt);
        Preparing { registry: self, attempt, over }
    }

    /// Registers a request for a transaction. Returns whether the caller has to drive it: then it
    /// calls [`driven`](Self::driven) next.
    pub(crate) fn join(&self, name: (SessionId, Serial), holder: HolderId, reply: ReplyTo) -> bool {
        let mut inner = self.lock();
        let driven = inner.driven.len();
        let own = inner.holders.get(&holder).copied().unwrap_or_default();
        match inner.driven.get_mut(&name) {
            Some(driven) if driven.waiting.len() < COPIES_MAX => driven.waiting.push(reply),
            None if driven < DRIVEN_MAX && own < HOLDER_DRIVEN_MAX => {
                inner.driven.insert(name, Driven { holder, waiting: vec![reply] });
                *inner.holders.entry(holder).or_default() += 1;
                return true;
            }
            _ => {
                drop(inner);
                reply.refuse(Refusal::Overloaded { retry_after_ms: RETRY_MS });
            }
        }
        false
    }

    /// A transaction that the caller drives, from [`join`](Self::join) on.
    pub(crate) fn driven(&self, name: (SessionId, Serial)) -> Driving<'_> {
        Driving { registry: self, name, is_over: false }
    }

    /// Answers everybody who waits for a transaction.
    fn end(&self, name: (SessionId, Serial), answer: &Result<Answer, Refusal>) {
        let ended = self.lock().remove(name);
        for reply in ended.into_iter().flat_map(|driven| driven.waiting) {
            reply.send(answer.clone());
        }
    }

    /// Returns whether a transaction is driven now.
    pub(crate) fn is_driven(&self, name: (SessionId, Serial)) -> bool {
        self.lock().driven.contains_key(&name)
    }

    /// Records that the other shards are being told of a committed attempt. Returns `None` if they
    /// are already; what it returns otherwise is to be kept until they know.
    pub(crate) fn finish(&self, id: AttemptId) -> Option<Finishing<'_>> {
        let is_first = self.lock().finishing.insert(id);
        is_first.then(|| Finishing { registry: self, id })
    }

    /// Returns whether the other shards are being told of an attempt.
    pub(crate) fn is_finishing(&self, id: AttemptId) -> bool {
        self.lock().finishing.contains(&id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn remove(&mut self, name: (SessionId, Serial)) -> Option<Driven> {
        let driven = self.driven.remove(&name)?;
        if let Some(own) = self.holders.get_mut(&driven.holder) {
            *own -= 1;
            if *own == 0 {
                self.holders.remove(&driven.holder);
            }
        }
        Some(driven)
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.registry.lock().preparing.remove(&self.attempt);
    }
}

/// A transaction that is driven until this is dropped.
pub(crate) struct Driving<'a> {
    registry: &'a AttemptRegistry,
    name: (SessionId, Serial),
    /// Whether somebody else may drive it by now.
    is_over: bool,
}

impl Driving<'_> {
    /// Answers everybody who waits for the transaction.
    pub(crate) fn end(mut self, answer: &Result<Answer, Refusal>) {
        self.is_over = true;
        self.registry.end(self.name, answer);
    }
}

impl Drop for Driving<'_> {
    /// Its task was stopped, or has panicked; what it had sent may still take effect.
    fn drop(&mut self) {
        if !self.is_over {
            let why = "the node gave the transaction up; it may have been executed";
            self.registry.end(self.name, &Err(Refusal::Unknown(why.to_owned())));
        }
    }
}

/// An attempt of which the other shards are being told.
pub(crate) struct Finishing<'a> {
    registry: &'a AttemptRegistry,
    id: AttemptId,
}

impl Drop for Finishing<'_> {
    fn drop(&mut self) {
        self.registry.lock().finishing.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_numbered_and_the_lowest_counts() {
        let registry = AttemptRegistry::default();
        let first = registry.begin(Term(3));
        let second = registry.begin(Term(3));
        assert_eq!((first.attempt.number, second.attempt.number), (1, 2));
        assert_eq!((second.over, first.over), (first.attempt, first.attempt));
        drop(first);
        assert_eq!(registry.begin(Term(3)).over, second.attempt);
        // What an earlier leader has under way is over.
        let next = registry.begin(Term(4));
        assert_eq!((next.attempt.number, next.over), (1, next.attempt));
        drop(next);
        assert_eq!(registry.begin(Term(4)).attempt.number, 2, "no number is used twice");
    }

    #[tokio::test]
    async fn copies_share_the_outcome() {
        let registry = AttemptRegistry::default();
        let name = (SessionId(uuid::Uuid::from_u128(7)), Serial(1));
        let (first, first_answer) = ReplyTo::here();
        let (second, second_answer) = ReplyTo::here();
        let holder = HolderId(uuid::Uuid::nil());
        assert!(registry.join(name, holder, first));
        assert!(!registry.join(name, holder, second));
        assert!(registry.is_driven(name));
        registry.driven(name).end(&Ok(Answer::Done));
        assert_eq!(first_answer.await.unwrap(), Ok(Answer::Done));
        assert_eq!(second_answer.await.unwrap(), Ok(Answer::Done));
        assert!(!registry.is_driven(name));
    }

    #[tokio::test]
    async fn what_is_not_driven_any_more_leaves_no_caller_waiting() {
        let registry = AttemptRegistry::default();
        let name = (SessionId(uuid::Uuid::from_u128(7)), Serial(1));
        let (reply, answer) = ReplyTo::here();
        assert!(registry.join(name, HolderId(uuid::Uuid::nil()), reply));
        drop(registry.driven(name));
        assert!(matches!(answer.await.unwrap(), Err(Refusal::Unknown(_))));
        assert!(!registry.is_driven(name));
        assert!(registry.lock().holders.is_empty());
    }

    #[test]
    fn one_holder_leaves_room_for_others() {
        let registry = AttemptRegistry::default();
        let holder = |number| HolderId(uuid::Uuid::from_u128(number));
        let join = |serial, of| {
            let name = (SessionId(uuid::Uuid::from_u128(of)), Serial(serial));
            registry.join(name, holder(of), ReplyTo::here().0)
        };
        let joined = (0..DRIVEN_MAX as u64).filter(|serial| join(*serial, 1)).count();
        assert_eq!(joined, HOLDER_DRIVEN_MAX);
        assert!(join(1, 2));
        registry.driven((SessionId(uuid::Uuid::from_u128(1)), Serial(1))).end(&Ok(Answer::Done));
        assert!(join(DRIVEN_MAX as u64, 1) && !join(1 << 20, 1));
    }
}
