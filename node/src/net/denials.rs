//! A rate-limited log of refused messages of nodes and their senders, for the operator. Denied
//! requests are in the [audit log](dkv_base::audit).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_base::sync::lock;
use tokio::time::Instant;
use tracing::warn;

/// Shortest time between two log lines about one sender.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Senders that are tracked at a time; refusals of further senders are not logged.
const SENDERS_MAX: usize = 64;

/// Recent refusals by sender. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DenialLog {
    nodes: Arc<Mutex<RecentDenials>>,
}

#[derive(Debug, Default)]
struct RecentDenials {
    by_sender: BTreeMap<NodeId, Sender>,
}

#[derive(Debug)]
struct Sender {
    told: Instant,
    since: u64,
}

impl RecentDenials {
    /// Counts a refusal. Returns `Some` if it should be logged, with the number of unlogged
    /// refusals before it.
    fn note(&mut self, sender: NodeId, now: Instant) -> Option<u64> {
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
        let untold = lock(&self.nodes).note(sender, Instant::now());
        if let Some(untold) = untold {
            warn!(from = %sender, why, before = untold, "refused what a node sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_of_now_and_then_and_a_crowd_is_not() {
        let (mut told, start) = (RecentDenials::default(), Instant::now());
        let named = NodeId::random;
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
}
