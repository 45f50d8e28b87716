//! Rounds to a quorum that all who wait share.
//!
//! One round answers everybody who came before it began. Among near members one is under way at a
//! time, and those who come meanwhile share the next: the busier a shard is, the more they are, and the
//! less a round costs each of them. Over a long way that would make whoever comes just too late wait for
//! two rounds, so there another one begins before the last has ended: as soon as a small part of the time
//! has passed that a round takes, and up to a bound.
//!
//! [`Turns`] decides, as plain data; [`Rounds`] does as it says.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Who may share a round.
const TAKE_MAX: usize = 4096;
/// Rounds that are under way at once.
const UNDER_WAY_MAX: usize = 16;
/// Least time from the beginning of a round to that of the next while the first is under way. A round
/// between near members takes a small part of it.
const APART_MIN: Duration = Duration::from_millis(5);

/// When the next round may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    /// Not before one has ended.
    Later,
}

/// What is known of the rounds of a group.
#[derive(Debug, Default)]
struct Turns {
    under_way: usize,
    /// When the last one began.
    begun: Option<Instant>,
    /// How long the one took that ended last.
    took: Duration,
}

impl Turns {
    fn next(&self, now: Instant) -> Turn {
        let Some(begun) = self.begun.filter(|_| self.under_way > 0) else { return Turn::Now };
        if self.under_way >= UNDER_WAY_MAX {
            return Turn::Later;
        }
        let at = begun + APART_MIN.max(self.took / UNDER_WAY_MAX as u32);
        if at <= now { Turn::Now } else { Turn::At(at) }
    }

    fn begins(&mut self, now: Instant) {
        self.under_way += 1;
        self.begun = Some(now);
    }

    fn ends(&mut self, took: Duration) {
        self.under_way -= 1;
        self.took = took;
    }
}

/// Those who wait for rounds (`T`), and the rounds, which come to an `R`.
pub(crate) struct Rounds<T, R> {
    queue: mpsc::Receiver<T>,
    /// Whether the queue has ended.
    ended: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Ended<T, R>>>,
    turns: Turns,
}

/// A round that has ended: for whom it was, how long it took, and what it came to.
struct Ended<T, R>(Vec<T>, Duration, R);

impl<T: Send + 'static, R: Send + 'static> Rounds<T, R> {
    pub(crate) fn new(queue: mpsc::Receiver<T>) -> Self {
        let (under_way, turns) = Default::default();
        Self { queue, ended: false, under_way, turns }
    }

    /// Begins rounds for those who come, until one has ended: for whom it was, and what it came to.
    /// Nothing once the queue has ended and no round is under way.
    pub(crate) async fn next<F>(&mut self, round: impl Fn() -> F) -> Option<(Vec<T>, R)>
    where
        F: Future<Output = R> + Send + 'static,
    {
        loop {
            let turn = if self.ended { Turn::Later } else { self.turns.next(Instant::now()) };
            let at = if let Turn::At(at) = turn { Some(at) } else { None };
            let mut taken = Vec::new();
            tokio::select! {
                biased;
                Some(Ended(waiting, took, result)) = self.under_way.next() => {
                    self.turns.ends(took);
                    return Some((waiting, result));
                }
                count = self.queue.recv_many(&mut taken, TAKE_MAX), if turn == Turn::Now => {
                    if count == 0 {
                        self.ended = true;
                        continue;
                    }
                    let (begun, round) = (Instant::now(), round());
                    self.turns.begins(begun);
                    let round = async move {
                        let result = round.await;
                        Ended(taken, begun.elapsed(), result)
                    };
                    self.under_way.push(Box::pin(round));
                }
                () = until(at), if at.is_some() => {}
                else => return None,
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests;
