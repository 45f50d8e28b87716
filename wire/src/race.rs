//! Tries several addresses of the same service, and goes on with the first that works.
//!
//! Each attempt begins a little after the one before, or at once if that one has failed (as in RFC
//! 8305, for host names): an address that works costs one attempt, and one that is silent costs
//! [`HEAD_START`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::quic::{Close, ConnectError, Endpoint};
use crate::token::Fingerprint;

/// Time that an address has before the next one is tried as well.
pub const HEAD_START: Duration = Duration::from_millis(200);

/// Returns the result of the first attempt that succeeds; the others are dropped. If none does,
/// returns the error of each address, in their order.
///
/// # Errors
/// No attempt succeeded.
pub async fn first_of<T, E, F>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = addresses.iter().copied().enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut failed: Vec<(usize, E)> = Vec::new();
    loop {
        match waiting.next() {
            Some((index, address)) => running.push((index, Box::pin(attempt(address)))),
            None if running.is_empty() => {
                failed.sort_by_key(|(index, _)| *index);
                return Err(failed.into_iter().map(|(_, error)| error).collect());
            }
            None => {}
        }
        let mut head_start = std::pin::pin!(sleep_until(Instant::now() + HEAD_START));
        let is_last = waiting.len() == 0;
        let next = std::future::poll_fn(|context| {
            for position in 0..running.len() {
                let (index, running_one) = &mut running[position];
                if let Poll::Ready(ended) = running_one.as_mut().poll(context) {
                    let index = *index;
                    drop(running.swap_remove(position));
                    return Poll::Ready(Some((index, ended)));
                }
            }
            if is_last {
                return Poll::Pending;
            }
            head_start.as_mut().poll(context).map(|()| None)
        });
        match next.await {
            Some((_, Ok(value))) => return Ok(value),
            Some((index, Err(error))) => failed.push((index, error)),
            None => {}
        }
    }
}

/// Returns the addresses in the order in which to try them: the first one at which a registration
/// server answers comes first. One that no server answers at stays in the list.
///
/// A join token may be good for one use, so joining must not be tried at two servers at once. This
/// finds out which one lives, and asks it for nothing.
pub async fn answering_first(endpoint: &Endpoint, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut ordered = addresses.to_vec();
    if addresses.len() < 2 {
        return ordered;
    }
    let answers = |address| async move {
        // No network has this fingerprint: a server that lives is refused by this side.
        match endpoint.connect_to_join(address, Fingerprint([0; 32])).await {
            Ok(connection) => {
                Close::Done.close(&connection, "asked for nothing");
                Ok(address)
            }
            Err(ConnectError::Unreachable { .. } | ConnectError::Local(_)) => Err(()),
            Err(_) => Ok(address),
        }
    };
    if let Ok(first) = first_of(addresses, answers).await {
        ordered.retain(|address| *address != first);
        ordered.insert(0, first);
    }
    ordered
}

#[cfg(test)]
mod tests;
