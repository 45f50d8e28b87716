//! What a node makes of what it is told of its own run: plain data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_wire::id::NodeId;
use dkv_wire::run::Verdict;
use tokio::time::Instant;

use super::is_alike;

/// Time for which the server's word that a run is sound counts for more than another node's that it
/// is not.
const VOUCHED_FOR: Duration = Duration::from_secs(10);

/// Nodes whose word counts although the server has found this run sound.
const BELIEVED: usize = 2;

/// What was said of this run, and by whom.
#[derive(Default)]
pub(super) struct Stance {
    /// When the server last found it sound.
    vouched: Option<Instant>,
    /// Why the server does not.
    server: Option<(Verdict, Arc<str>)>,
    peers: BTreeMap<NodeId, (Verdict, Arc<str>)>,
    /// The last word of an administrator by which this run goes on.
    kept: u64,
}

impl Stance {
    pub(super) fn hear_server(&mut self, verdict: Verdict, why: String, now: Instant) {
        if verdict.is_sound() {
            self.vouched = Some(now);
            self.server = None;
        } else if self.server.as_ref().is_none_or(|(before, _)| !is_alike(*before, verdict)) {
            // While only numbers grow, the sentence stays.
            self.server = Some((verdict, why.into()));
        }
    }

    /// Takes the word of another node; tells whether it is another than before.
    pub(super) fn hear_peer(
        &mut self,
        node: NodeId,
        verdict: Verdict,
        why: String,
        _now: Instant,
    ) -> bool {
        if verdict.is_sound() {
            return self.peers.remove(&node).is_some();
        }
        let before = self.peers.get(&node);
        if before.is_some_and(|(before, _)| is_alike(*before, verdict)) {
            return false;
        }
        self.peers.insert(node, (verdict, why.into()));
        true
    }

    /// An administrator has said that this run goes on: what others said before does not count.
    pub(super) fn kept(&mut self, number: u64) {
        if number > self.kept {
            self.kept = number;
            self.peers.clear();
        }
    }

    /// Why the server holds the node back.
    pub(super) fn held_by_server(&self) -> Option<Arc<str>> {
        self.server.as_ref().map(|(_, why)| Arc::clone(why))
    }

    /// Whether the server has found the run sound at some time.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.vouched.is_some()
    }

    /// Why the node takes no part. A node that the server has found sound is not held back by what a single
    /// other one says: that may be a lie. The server may know less than others who were there.
    pub(super) fn held(&self) -> Option<Arc<str>> {
        let by_peer = || self.peers.values().next().map(|(_, why)| Arc::clone(why));
        let is_believed = self.vouched.is_none() || self.peers.len() >= BELIEVED;
        let by_peers = if is_believed { by_peer() } else { None };
        self.held_by_server().or(by_peers)
    }

    /// Why it takes no writes, though it takes part: others refuse it, and the server, which would
    /// know, is silent.
    pub(super) fn doubt(&self, now: Instant) -> Option<Arc<str>> {
        let is_recent = self.vouched.is_some_and(|at| now.duration_since(at) < VOUCHED_FOR);
        let first = self.peers.values().next().filter(|_| !is_recent);
        first.map(|(_, why)| Arc::clone(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: Verdict = Verdict::Older { start: 7, mark: 100 };

    fn held(stance: &Stance) -> Option<String> {
        stance.held().map(|why| why.to_string())
    }

    #[test]
    fn the_server_holds_a_node_back_and_lets_it_go_on() {
        let (mut stance, now) = (Stance::default(), Instant::now());
        assert_eq!(held(&stance), None);
        stance.hear_server(OLDER, "older".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("older"));
        stance.hear_server(Verdict::Sound, String::new(), now);
        assert_eq!(held(&stance), None);
    }

    #[test]
    fn the_sentence_is_of_the_last_kind_of_verdict() {
        let (mut stance, now) = (Stance::default(), Instant::now());
        stance.hear_server(OLDER, "older".into(), now);
        stance.hear_server(Verdict::Older { start: 8, mark: 1 }, "older yet".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("older"));
        stance.hear_server(Verdict::Twice { start: 8 }, "twice".into(), now);
        assert_eq!(held(&stance).as_deref(), Some("twice"));
    }

    #[test]
    fn another_node_holds_back_only_whom_the_server_has_never_found_sound() {
        let (mut stance, now, node) = (Stance::default(), Instant::now(), NodeId::random());
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
        let other = NodeId::random();
        assert!(stance.hear_peer(other, OLDER, "another".into(), now));
        assert!(stance.held().is_some(), "two know better");
        assert!(stance.hear_peer(other, Verdict::Sound, String::new(), now));
        let later = now + VOUCHED_FOR;
        assert_eq!(stance.doubt(later).as_deref(), Some("a peer"));
        assert_eq!(held(&stance), None);
    }
}
