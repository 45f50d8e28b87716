//! Quorum rounds that all waiting requests share.
//!
//! One round answers every request that arrived before it began. Among nearby members one round is
//! in flight at a time, and the requests that arrive meanwhile share the next: the busier a shard
//! is, the more they are, and the less a round costs each of them. Over long distances a request
//! that just missed a round would wait for two, so there another round begins before the last has
//! ended: once a small part of the duration of a round has passed, and up to a bound.
//!
//! [`InFlightWindow`] decides when a round begins; [`QuorumRounds`] runs it.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::replica::in_flight::{InFlightWindow, NextStart, UNDER_WAY_MAX, until};

/// Most requests that share a round.
const TAKE_MAX: usize = 4096;

/// The requests that wait for rounds (`T`), and the rounds in flight, each with a result (`R`).
pub(crate) struct QuorumRounds<T, R> {
    queue: mpsc::Receiver<T>,
    /// Whether the queue has ended.
    ended: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Ended<T, R>>>,
    window: InFlightWindow,
}

/// A finished round: its requests, its duration and its result.
struct Ended<T, R>(Vec<T>, Duration, R);

impl<T: Send + 'static, R: Send + 'static> QuorumRounds<T, R> {
    pub(crate) fn new(queue: mpsc::Receiver<T>) -> Self {
        let under_way = FuturesUnordered::new();
        Self { queue, ended: false, under_way, window: InFlightWindow::new(1) }
    }

    /// Runs rounds for arriving requests until one ends, and returns its requests and its result.
    /// Returns `None` once the queue has ended and no round is in flight.
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
