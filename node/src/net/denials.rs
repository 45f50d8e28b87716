//! A rate-limited log of refused messages and requests and their senders, for the operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::{HolderId, NodeId};
use dkv_base::logging::AUDIT;
use dkv_base::sync::lock;
use dkv_wire::identity::Identity;
use dkv_wire::user::User;
use tokio::time::Instant;
use tracing::{info, warn};

/// Shortest time between two log lines about one sender.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Senders that are tracked at a time; refusals of further senders are not logged.
const SENDERS_MAX: usize = 64;

/// Recent refusals by sender. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DenialLog {
    nodes: Arc<Mutex<RecentDenials>>,
    /// Apart, so that a crowd of users hides no node.
    users: Arc<Mutex<RecentDenials>>,
}

#[derive(Debug, Default)]
struct RecentDenials {
    by_sender: BTreeMap<SenderName, Sender>,
}

/// A holder, and the user for whom it asked.
type SenderName = (HolderId, Option<User>);

#[derive(Debug)]
struct Sender {
    told: Instant,
    since: u64,
}

impl RecentDenials {
    /// Counts a refusal. Returns `Some` if it should be logged, with the number of unlogged
    /// refusals before it.
    fn note(&mut self, sender: SenderName, now: Instant) -> Option<u64> {
        let is_old = |told: Instant| now.saturating_duration_since(told) >= TELL_EVERY;
        if let Some(known) = self.by_sender.get_mut(&sender) {
            if !is_old(known.told) {
                known.since += 1;
                return None;
            }
            let untold = std::mem::take(&mut known.since);
            known.told = now;
            return Some(untold);
        }
        if self.by_sender.len() >= SENDERS_MAX {
            self.by_sender.retain(|_, sender| !is_old(sender.told));
        }
        if self.by_sender.len() >= SENDERS_MAX {
            return None;
        }
        self.by_sender.insert(sender, Sender { told: now, since: 0 });
        Some(0)
    }
}

impl DenialLog {
    /// Notes that something from `sender` was refused.
    pub(crate) fn note(&self, sender: NodeId, why: &str) {
        let untold = lock(&self.nodes).note((sender.into(), None), Instant::now());
        if let Some(untold) = untold {
            warn!(from = %sender, why, before = untold, "refused what a node sent");
        }
    }

    /// Notes that a user was denied a request.
    pub(crate) fn note_user(
        &self,
        by: Identity,
        asked: Option<User>,
        address: SocketAddr,
        why: &str,
    ) {
        // One that is a user itself takes one place only, however many others it names.
        let asked = asked.filter(|_| by.user.is_none());
        let untold = lock(&self.users).note((by.holder, asked), Instant::now());
        if let Some(untold) = untold {
            info!(target: AUDIT, %by, %address, why, before = untold, "a user was denied a request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_of_now_and_then_and_a_crowd_is_not() {
        let (mut told, start) = (RecentDenials::default(), Instant::now());
        let named = || (HolderId::random(), None);
        let sender = named();
        assert_eq!(told.note(sender, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(told.note(sender, start + TELL_EVERY / 2), None);
        }
        assert_eq!(told.note(sender, start + TELL_EVERY), Some(1000));
        for _ in 0..10 * SENDERS_MAX {
            told.note(named(), start + TELL_EVERY);
        }
        assert_eq!(told.by_sender.len(), SENDERS_MAX);
        assert_eq!(told.note(named(), start + TELL_EVERY * 2), Some(0));
        assert!(told.by_sender.len() <= SENDERS_MAX);
    }

    #[test]
    fn users_of_one_holder_are_told_apart() {
        let (mut told, start, holder) =
            (RecentDenials::default(), Instant::now(), HolderId::random());
        let named = |name: &str| (holder, Some(name.parse().unwrap()));
        for sender in [(holder, None), named("alice"), named("bob")] {
            assert_eq!(told.note(sender, start), Some(0));
            assert_eq!(told.note(sender, start), None);
        }
    }
}
