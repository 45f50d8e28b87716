//! The server's verdict on this incarnation, requested before the node serves and every few
//! seconds.
//!
//! A node that could elect itself, because its own log makes it the only voter of a group, would
//! find no other node to contradict it. So it waits for the server for a while
//! ([`ALONE_PATIENCE`]). A node that needs others, who know better, waits only for a moment. If the
//! server stays silent for longer, the node goes by what is reachable: it serves, and stops as soon
//! as the server knows better.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_wire::incarnation::Verdict;
use dkv_wire::message::{ServerAnswer, ServerRequest, Stand, Standing};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Incarnations;
use crate::common::ticks::Ticks;
use crate::net::server_link::{ServerError, ServerLink};

/// Time that a node waits for the server if it could serve without any other node.
#[cfg(not(test))]
const ALONE_PATIENCE: Duration = Duration::from_secs(10);
#[cfg(test)]
const ALONE_PATIENCE: Duration = Duration::from_millis(300);
/// Time that any other node waits for the server.
#[cfg(not(test))]
const PATIENCE: Duration = Duration::from_secs(1);
#[cfg(test)]
const PATIENCE: Duration = Duration::from_millis(100);
/// Time between two attempts to reach the server, and between two questions of a node that is held
/// back.
const RETRY: Duration = Duration::from_millis(250);
const HELD_EVERY: Duration = Duration::from_secs(1);
/// Interval at which a serving node asks, and the shortest interval while its log grows.
const ASK_EVERY: Duration = Duration::from_secs(3);
const ASK_WHILE_WRITING: Duration = Duration::from_millis(500);
/// The same interval while the node may have a second incarnation.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Time in which an incarnation on an older copy may turn out to be one of two that run. If it
/// does, it waits until an administrator says which goes on. Otherwise it ends.
const OLDER_PATIENCE: Duration = Duration::from_secs(6);
/// Longest time that the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(300);

impl Incarnations {
    /// Asks the server. While the server has heard of another incarnation that may be alive, asks a
    /// second time: a verdict given before this incarnation has shown that it is alive does not
    /// count.
    async fn ask(
        &self,
        server: &ServerLink,
        address: SocketAddr,
        ends: bool,
    ) -> Result<Standing, ServerError> {
        let mut standing = self.ask_once(server, address, ends).await?;
        if standing.ask_again {
            standing = self.ask_once(server, address, ends).await?;
        }
        self.hear_server(standing.verdict);
        Ok(standing)
    }

    async fn ask_once(
        &self,
        server: &ServerLink,
        address: SocketAddr,
        ends: bool,
    ) -> Result<Standing, ServerError> {
        let answers = *lock(&self.shared.asked);
        let stand = Stand { run: self.own(), address, ends, answers };
        match server.ask(&ServerRequest::Stand(Box::new(stand))).await? {
            ServerAnswer::Stands(standing) => {
                *lock(&self.shared.asked) = Some(standing.question);
                self.obey(&standing.rulings);
                Ok(*standing)
            }
            _ => Err(ServerError::Unexpected),
        }
    }

    /// Returns why this incarnation must end, if an administrator has dismissed it or if it is
    /// alone with an older copy of its directory. The caller keeps `older_since` between calls.
    fn farewell(&self, verdict: Verdict, older_since: &mut Option<Instant>) -> Option<Farewell> {
        let ends = match verdict {
            Verdict::Dismissed { .. } => true,
            Verdict::Older { .. } => {
                older_since.get_or_insert_with(Instant::now).elapsed() >= OLDER_PATIENCE
            }
            Verdict::Sound | Verdict::Twice { .. } => {
                *older_since = None;
                false
            }
        };
        ends.then(|| Farewell(self.explain(verdict, &self.own())))
    }
}

/// Reason why this incarnation must end, and never come back: one sentence for an administrator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Farewell(String);

/// Returns once the node may serve: the server finds its incarnation sound, or is silent for too
/// long.
///
/// # Errors
/// Fails if an administrator has dismissed this incarnation or if it is alone with an older copy of
/// the directory.
pub(crate) async fn before_serving(
    incarnations: &Incarnations,
    server: &ServerLink,
    address: SocketAddr,
    is_alone: bool,
) -> Result<(), Farewell> {
    let begun = Instant::now();
    let patience = if is_alone { ALONE_PATIENCE } else { PATIENCE };
    let (mut is_told, mut older_since) = (false, None);
    loop {
        let left = patience.saturating_sub(begun.elapsed()).max(RETRY);
        let asked = tokio::time::timeout(left, incarnations.ask(server, address, false)).await;
        match asked {
            Ok(Ok(Standing { verdict: Verdict::Sound, wait: false, .. })) => return Ok(()),
            Ok(Ok(Standing { verdict, ask_again, wait, .. })) => {
                if let Some(farewell) = incarnations.farewell(verdict, &mut older_since) {
                    return Err(farewell);
                }
                if wait && !is_told {
                    is_told = true;
                    info!("another process of this node was heard a moment ago at another address");
                }
                tokio::time::sleep(if ask_again || wait { ASK_AGAIN } else { HELD_EVERY }).await;
            }
            // A node that is held back remains so, whether or not the server can be reached.
            _ if incarnations.held().is_some() => tokio::time::sleep(HELD_EVERY).await,
            _ if begun.elapsed() >= patience => {
                info!("the registration server does not answer; this node begins without it");
                return Ok(());
            }
            _ => {
                if is_alone && !is_told {
                    is_told = true;
                    let seconds = patience.as_secs();
                    warn!(
                        "this node could serve without any other, so it waits up to {seconds} s for \
                         the registration server, which knows whether its data directory is an \
                         older copy"
                    );
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Asks the server until the incarnation has to end, and returns why.
pub(crate) async fn keep_asking(
    incarnations: Incarnations,
    server: Arc<ServerLink>,
    address: SocketAddr,
    ticks: Ticks,
) -> Farewell {
    let mut older_since = None;
    loop {
        let pause = match incarnations.ask(&server, address, false).await {
            Ok(Standing { verdict, ask_again, .. }) => {
                if let Some(farewell) = incarnations.farewell(verdict, &mut older_since) {
                    return farewell;
                }
                match verdict {
                    _ if ask_again => ASK_AGAIN,
                    Verdict::Sound => ASK_EVERY,
                    _ => HELD_EVERY,
                }
            }
            Err(error) => {
                debug!(%error, "the server was not asked");
                if incarnations.is_vouched_for() && incarnations.held().is_none() {
                    ASK_EVERY
                } else {
                    HELD_EVERY
                }
            }
        };
        if pause < ASK_EVERY {
            tokio::time::sleep(pause).await;
            continue;
        }
        let (told, until) = (incarnations.own().mark, Instant::now() + pause);
        while Instant::now() < until {
            tokio::select! {
                biased;
                // Another node refuses this one: the server may have heard why.
                () = incarnations.refused_by_peer() => break,
                () = tokio::time::sleep_until(until) => break,
                () = ticks.pause(ASK_WHILE_WRITING) => {}
            }
            if incarnations.own().mark != told {
                break;
            }
        }
    }
}

/// Tells the server how far the log is, before the node stops cleanly.
pub(crate) async fn say_goodbye(
    incarnations: &Incarnations,
    server: &ServerLink,
    address: SocketAddr,
) {
    let is_there = server.seen().is_some_and(|seen| seen < 2 * ASK_EVERY);
    if !is_there || incarnations.held().is_some() {
        return;
    }
    let goodbye = incarnations.ask(server, address, true);
    if !matches!(tokio::time::timeout(GOODBYE, goodbye).await, Ok(Ok(_))) {
        debug!("could not report the log's position to the server");
    }
}
