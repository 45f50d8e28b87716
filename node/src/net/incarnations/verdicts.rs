//! The verdicts of others on this node's incarnation, and their effect: plain data.
//!
//! Only the verdicts of members count: of nodes that the directory names, or that the server
//! vouches for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::incarnation::Verdict;
use tokio::time::Instant;

use super::is_alike;

/// Time for which the server's verdict that an incarnation is sound outweighs another node's
/// verdict that it is not.
const VOUCHED_FOR: Duration = Duration::from_secs(10);

/// Members that must agree before their verdicts count although the server once found this
/// incarnation sound.
const BELIEVED: usize = 2;
/// Time for which a member's verdict counts against the server's. A node that refuses another
/// repeats its verdict each time that it is dialed.
const REPEATED: Duration = Duration::from_secs(5);

/// The verdict of a member, and the time when it was last repeated.
struct Said {
    verdict: Verdict,
    why: Arc<str>,
    at: Instant,
}

/// The verdicts on this incarnation, by their origin.
#[derive(Default)]
pub(super) struct Verdicts {
    /// When the server last found the incarnation sound.
    vouched: Option<Instant>,
    /// The server's reason for refusing it.
    server: Option<(Verdict, Arc<str>)>,
    members: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Said>,
    /// The number of the last ruling by which an administrator let this incarnation go on.
    kept: u64,
}

impl Verdicts {
    pub(super) fn hear_server(&mut self, verdict: Verdict, why: String, now: Instant) {
        if verdict.is_sound() {
            self.vouched = Some(now);
            self.server = None;
        } else if self.server.as_ref().is_none_or(|(before, _)| !is_alike(*before, verdict)) {
            // While only the numbers grow, the sentence stays.
            self.server = Some((verdict, why.into()));
        }
    }

    /// Sets which other nodes are members.
    pub(super) fn know(&mut self, members: BTreeSet<NodeId>) {
        self.peers.retain(|node, _| members.contains(node));
        self.members = members;
    }

    /// Returns whether `node` is one of the other members.
    pub(super) fn is_member(&self, node: NodeId) -> bool {
        self.members.contains(&node)
    }

    /// Records another node's verdict; returns whether it differs from the previous one. The
    /// verdict of a stranger does not count.
    pub(super) fn hear_peer(
        &mut self,
        node: NodeId,
        verdict: Verdict,
        why: String,
        now: Instant,
    ) -> bool {
        if verdict.is_sound() {
            return self.peers.remove(&node).is_some();
        }
        if !self.is_member(node) {
            return false;
        }
        if let Some(said) = self.peers.get_mut(&node)
            && is_alike(said.verdict, verdict)
        {
            said.at = now;
            return false;
        }
        self.peers.insert(node, Said { verdict, why: why.into(), at: now });
        true
    }

    /// Records that an administrator lets this incarnation go on: earlier verdicts of members are
    /// void.
    pub(super) fn kept(&mut self, number: u64) {
        if number > self.kept {
            self.kept = number;
            self.peers.clear();
        }
    }

    /// Returns the reason why the server holds the node back.
    pub(super) fn held_by_server(&self) -> Option<Arc<str>> {
        self.server.as_ref().map(|(_, why)| Arc::clone(why))
    }

    /// Returns whether the server has ever found the incarnation sound.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.vouched.is_some()
    }

    /// Returns the reason why the node takes no part. The verdict of a single member does not hold
    /// back a node that the server has found sound, because it may be a lie. But the server may
    /// know less than members that were there. So the verdicts of most members override it, and
    /// those of two do as soon as the server is silent.
    pub(super) fn held(&self, now: Instant) -> Option<Arc<str>> {
        let is_believed = if self.vouches_at(now) {
            let is_fresh = |said: &&Said| now.saturating_duration_since(said.at) < REPEATED;
            let count = self.peers.values().filter(is_fresh).count();
            count >= BELIEVED && count > self.members.len() / 2
        } else {
            self.vouched.is_none() || self.peers.len() >= BELIEVED
        };
        let by_peers = if is_believed { self.first_said() } else { None };
        self.held_by_server().or(by_peers)
    }

    /// Returns the reason why the node takes no writes although it takes part: members refuse it,
    /// and the server, which would know, is silent.
    pub(super) fn doubt(&self, now: Instant) -> Option<Arc<str>> {
        if self.vouches_at(now) { None } else { self.first_said() }
    }

    fn first_said(&self) -> Option<Arc<str>> {
        self.peers.values().next().map(|said| Arc::clone(&said.why))
    }

    fn vouches_at(&self, now: Instant) -> bool {
        self.vouched.is_some_and(|at| now.saturating_duration_since(at) < VOUCHED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: Verdict = Verdict::Older { start: 7, mark: 100 };

    fn held(stance: &Verdicts) -> Option<String> {
        held_at(stance, Instant::now())
    }

    fn held_at(stance: &Verdicts, now: Instant) -> Option<String> {
        stance.held(now).map(|why| why.to_string())
    }

    #[test]
    fn the_server_holds_a_node_back_and_lets_it_go_on() {
        let (mut stance, now) = (Verdicts::default(), Instant::now());
        assert_eq!(held(&stance), None);
        stance.hear_server(OLDER, "older".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("older"));
        stance.hear_server(Verdict::Sound, String::new(), now);
        assert_eq!(held(&stance), None);
    }

    #[test]
    fn the_sentence_is_of_the_last_kind_of_verdict() {
        let (mut stance, now) = (Verdicts::default(), Instant::now());
        stance.hear_server(OLDER, "older".into(), now);
        stance.hear_server(Verdict::Older { start: 8, mark: 1 }, "older yet".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("older"));
        stance.hear_server(Verdict::Twice { start: 8 }, "twice".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("twice"));
    }

    #[test]
    fn another_node_holds_back_only_whom_the_server_has_never_found_sound() {
        let (mut stance, now, node) = (Verdicts::default(), Instant::now(), NodeId::random());
        let other = NodeId::random();
        stance.know(BTreeSet::from([node, other]));
        assert!(stance.hear_peer(node, OLDER, "a peer".into(), now));
        assert_eq!(held(&stance).as_deref(), Some("a peer"));
        assert!(stance.hear_peer(node, Verdict::Sound, String::new(), now));
        assert_eq!(held(&stance), None);

        assert!(stance.hear_peer(node, OLDER, "a peer".into(), now));
        stance.kept(1);
        assert_eq!(held(&stance), None);
        assert!(stance.hear_peer(node, OLDER, "a peer".into(), now));
        stance.kept(1);
        assert_eq!(held(&stance).as_deref(), Some("a peer"), "it was said since");
        stance.kept(2);

        stance.hear_server(Verdict::Sound, String::new(), now);
        assert!(stance.hear_peer(node, OLDER, "a peer".into(), now));
        assert!(!stance.hear_peer(node, OLDER, "a peer".into(), now), "it was said before");
        assert_eq!(held(&stance), None);
        assert_eq!(stance.doubt(now), None);
        assert!(stance.hear_peer(other, OLDER, "another".into(), now));
        assert!(stance.held(now).is_some(), "two know better");
        assert!(stance.hear_peer(other, Verdict::Sound, String::new(), now));
        let later = now + VOUCHED_FOR;
        assert_eq!(stance.doubt(later).as_deref(), Some("a peer"));
        assert_eq!(held_at(&stance, later), None);
    }

    #[test]
    fn strangers_have_no_word_and_against_the_server_most_members_have_to_say_it() {
        let (mut stance, now) = (Verdicts::default(), Instant::now());
        let strangers: Vec<_> = (0..9).map(|_| NodeId::random()).collect();
        for stranger in &strangers {
            assert!(!stance.hear_peer(*stranger, OLDER, "a stranger".into(), now));
        }
        assert!(stance.held(now).is_none() && stance.doubt(now).is_none());

        let members: Vec<_> = (0..6).map(|_| NodeId::random()).collect();
        stance.know(members.iter().copied().collect());
        stance.hear_server(Verdict::Sound, String::new(), now);
        for member in &members[..3] {
            assert!(stance.hear_peer(*member, OLDER, "a member".into(), now));
            assert_eq!(held_at(&stance, now), None);
        }
        let later = now + VOUCHED_FOR;
        assert!(held_at(&stance, later).is_some(), "the server is silent");
        assert!(stance.hear_peer(members[3], OLDER, "a member".into(), now));
        assert!(held_at(&stance, now).is_some(), "more than half of the members say it");
        assert_eq!(held_at(&stance, now + REPEATED), None, "none has said it again");
        stance.know(members[2..].iter().copied().collect());
        assert_eq!(held_at(&stance, now), None, "two of them are members no more");
    }
}
