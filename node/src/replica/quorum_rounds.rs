//! Rounds to a quorum that all who wait share.
//!
//! One round answers everybody who came before it began. Among near members one is under way at a
//! time, and those who come meanwhile share the next: the busier a shard is, the more they are, and
//! the less a round costs each of them. Over a long way that would make whoever comes just too late
//! wait for two rounds, so there another one begins before the last has ended: as soon as a small
//! part of the time has passed that a round takes, and up to a bound.
//!
//! [`InFlightWindow`] decides; [`QuorumRounds`] does as it says.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::replica::in_flight::{InFlightWindow, NextStart, UNDER_WAY_MAX, until};

/// Who may share a round.
const TAKE_MAX: usize = 4096;

/// Those who wait for rounds (`T`), and the rounds, which come to an `R`.
pub(crate) struct QuorumRounds<T, R> {
    queue: mpsc::Receiver<T>,
    /// Whether the queue has ended.
    ended: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Ended<T, R>>>,
    window: InFlightWindow,
}

/// A round that has ended: for whom it was, how long it took, and what it came to.
struct Ended<T, R>(Vec<T>, Duration, R);

impl<T: Send + 'static, R: Send + 'static> QuorumRounds<T, R> {
    pub(crate) fn new(queue: mpsc::Receiver<T>) -> Self {
        let under_way = FuturesUnordered::new();
        Self { queue, ended: false, under_way, window: InFlightWindow::new(1) }
    }

    /// Begins rounds for those who come, until one has ended: for whom it was, and what it came to.
    /// Nothing once the queue has ended and no round is under way.
    pub(crate) async fn next<F>(&mut self, round: impl Fn() -> F) -> Option<(Vec<T>, R)>
    where
        F: Future<Output = R> + Send + 'static,
    {
        loop {
            let turn = if self.ended {
                NextStart::Later
            } else {
                self.window.next(UNDER_WAY_MAX, Instant::now())
            };
            let at = turn.at();
            let mut taken = Vec::new();
            tokio::select! {
                biased;
                Some(Ended(waiting, took, result)) = self.under_way.next() => {
                    self.window.ends(took);
                    return Some((waiting, result));
                }
                count = self.queue.recv_many(&mut taken, TAKE_MAX), if turn == NextStart::Now => {
                    if count == 0 {
                        self.ended = true;
                        continue;
                    }
                    let (begun, round) = (Instant::now(), round());
                    self.window.begins(begun);
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

#[cfg(test)]
mod tests;
