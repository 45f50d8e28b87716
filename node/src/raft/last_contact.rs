//! The moments as of which the other members last confirmed that they follow this leader.
//!
//! A member that answers a question followed the leader at some moment after the question was sent
//! and before the answer arrived. So the member counts as of the moment of the question, and only
//! its answer to that very question counts: an acknowledgement of entries may have been on its way
//! for a long time.
//!
//! openraft keeps such a clock too, but it must not be used for this purpose: openraft takes a late
//! acknowledgement of an entry for an answer to any request that was sent since and ends with the
//! same entry (see docs/decisions.md).
//!
//! Deliberately missing: clocks. The caller passes in the moments.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{NodeId, Term};
use tokio::time::Instant;

/// The answers of the members to one leader.
#[derive(Debug, Default)]
pub(super) struct LastContact {
    /// Term of that leader.
    term: Term,
    /// When the leader asked each member the question that the member answered last.
    asked: BTreeMap<NodeId, Instant>,
}

impl LastContact {
    /// Records that a member follows the leader of that term, which asked it at `asked`.
    pub(super) fn confirm(&mut self, member: NodeId, term: Term, asked: Instant) {
        if term > self.term {
            *self = Self { term, asked: BTreeMap::new() };
        }
        if term == self.term {
            let last = self.asked.entry(member).or_insert(asked);
            *last = asked.max(*last);
        }
    }

    /// Returns when each member was asked the question that it answered last, if it answered the
    /// leader of that term.
    pub(super) fn last_asked(&self, term: Term) -> impl Iterator<Item = (NodeId, Instant)> + '_ {
        let asked = self.asked.iter().filter(move |_| term == self.term);
        asked.map(|(member, asked)| (*member, *asked))
    }

    /// Returns the latest moment as of which a majority of each of these sets followed `me`, the
    /// leader of that term at `now`; `None` if a majority of one set never did.
    pub(super) fn quorum_at(
        &self,
        me: NodeId,
        term: Term,
        voters: &[BTreeSet<NodeId>],
        now: Instant,
    ) -> Option<Instant> {
        let followed = |voter: &NodeId| {
            if *voter == me {
                return Some(now);
            }
            self.asked.get(voter).copied().filter(|_| term == self.term)
        };
        let majority = |voters: &BTreeSet<NodeId>| {
            let mut moments: Vec<Option<Instant>> = voters.iter().map(followed).collect();
            moments.sort_unstable_by(|one, other| other.cmp(one));
            moments.get(voters.len() / 2).copied().flatten()
        };
        voters.iter().map(majority).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn nodes(numbers: &[u128]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(node).collect()
    }

    /// Returns the second as of which a quorum of `voters` followed leader 1, seen from the tenth
    /// second. Voters 2 to 5 have answered questions of the second, third, fourth and fifth second.
    fn quorum_s(voters: &[&[u128]]) -> Option<u64> {
        let began = Instant::now();
        let at = |s| began + Duration::from_secs(s);
        let mut confirmations = LastContact::default();
        for number in 2..=5 {
            confirmations.confirm(node(number), Term(7), at(number as u64));
            // Late answers: to an older question, and in an older term.
            confirmations.confirm(node(number), Term(7), at(1));
            confirmations.confirm(node(number), Term(6), at(9));
        }
        let voters: Vec<_> = voters.iter().map(|voters| nodes(voters)).collect();
        assert_eq!(confirmations.quorum_at(node(1), Term(8), &voters[..1], at(10)), {
            (voters[0] == nodes(&[1])).then(|| at(10))
        });
        let quorum = confirmations.quorum_at(node(1), Term(7), &voters, at(10))?;
        Some(quorum.duration_since(began).as_secs())
    }

    #[test]
    fn a_majority_has_confirmed_as_of_its_oldest_question() {
        for (voters, quorum) in [
            (&[1][..], Some(10)),
            (&[1, 2], Some(2)),
            (&[1, 2, 3], Some(3)),
            (&[1, 2, 3, 4], Some(3)),
            (&[1, 2, 3, 4, 5], Some(4)),
            // The leader has no vote of its own.
            (&[3, 4, 5], Some(4)),
            (&[1, 2, 9], Some(2)),
            (&[1, 8, 9], None),
            (&[], None),
        ] {
            assert_eq!(quorum_s(&[voters]), quorum, "{voters:?}");
        }
    }

    #[test]
    fn of_a_joint_configuration_both_halves_confirm() {
        assert_eq!(quorum_s(&[&[1, 2, 3], &[1, 4, 5]]), Some(3));
        assert_eq!(quorum_s(&[&[1, 4, 5], &[1, 2, 3]]), Some(3));
        assert_eq!(quorum_s(&[&[1, 2, 3], &[1, 8, 9]]), None);
    }
}
