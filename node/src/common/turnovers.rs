//! The last changes of leader of a group, with the reason as far as this node knows it.
//!
//! The task that causes a change says so beforehand; the change itself is seen in openraft's
//! metrics.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::sync::lock;
use dkv_wire::message::{ChangeReason, LeaderChange};
use tokio::time::Instant;

/// Changes that are kept.
const KEPT: usize = 8;
/// Time within which a change follows from its cause.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(10);

/// The last changes of leader. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turnovers(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    expected: Option<(ChangeReason, Instant)>,
    leader: Option<(Term, NodeId)>,
    last: VecDeque<LeaderChange>,
}

impl Turnovers {
    /// Notes that a change of leader is about to happen, and why. The reason that
    /// says most counts.
    pub(crate) fn expect(&self, why: ChangeReason, now: Instant) {
        let mut seen = self.lock();
        let before = seen.expected.filter(|(_, since)| follows(*since, now));
        if before.is_none_or(|(before, _)| before.weight() <= why.weight()) {
            seen.expected = Some((why, now));
        }
    }

    /// Notes that `leader` leads in `term`, as `me` sees it. Returns whether that is news.
    pub(crate) fn note(
        &self,
        group: GroupId,
        (term, leader): (Term, NodeId),
        me: NodeId,
        (now, at_ms): (Instant, u64),
    ) -> bool {
        let mut seen = self.lock();
        if seen.leader.is_some_and(|(known, _)| known >= term) {
            return false;
        }
        let before = seen.leader.replace((term, leader)).map(|(_, before)| before);
        let expected = seen.expected.take().filter(|(_, since)| follows(*since, now));
        let why = match (expected, before) {
            (Some((why, _)), _) => why,
            (None, None) => ChangeReason::FirstSeen,
            // Raft's own timer made this node stand.
            (None, Some(_)) if leader == me => ChangeReason::Silent,
            (None, Some(_)) => ChangeReason::Unknown,
        };
        if seen.last.len() >= KEPT {
            seen.last.pop_front();
        }
        seen.last.push_back(LeaderChange { group, term, leader, before, at_ms, why });
        true
    }

    /// Returns the last changes, oldest first.
    pub(crate) fn last(&self) -> Vec<LeaderChange> {
        self.lock().last.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }
}

fn follows(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < FOLLOWS_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn node(number: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_change_has_the_reason_that_was_expected() {
        let (turnovers, start) = (Turnovers::default(), Instant::now());
        let see = |term, leader, at: Instant| {
            turnovers.note(GROUP, (Term(term), node(leader)), node(1), (at, term * 1000))
        };
        assert!(see(1, 2, start));
        assert!(!see(1, 2, start));
        turnovers.expect(ChangeReason::Stopping, start);
        turnovers.expect(ChangeReason::HandedOver, start);
        assert!(see(2, 3, start));
        // No task said why: this node's own timer made it stand, or others did something.
        assert!(see(4, 1, start));
        assert!(see(5, 2, start));
        // A change that was expected long ago did not happen.
        turnovers.expect(ChangeReason::ProcessGone, start);
        assert!(see(6, 3, start + FOLLOWS_WITHIN));
        let reasons: Vec<_> = turnovers.last().into_iter().map(|it| (it.term.0, it.why)).collect();
        assert_eq!(
            reasons,
            [
                (1, ChangeReason::FirstSeen),
                (2, ChangeReason::Stopping),
                (4, ChangeReason::Silent),
                (5, ChangeReason::Unknown),
                (6, ChangeReason::Unknown),
            ]
        );
        assert_eq!(turnovers.last()[1].before, Some(node(2)));
        assert!(!see(3, 2, start), "an older term is no news");
        for term in 10..100 {
            assert!(see(term, 2, start));
        }
        assert_eq!(turnovers.last().len(), KEPT);
    }
}
