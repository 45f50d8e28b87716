use std::collections::BTreeMap;

use openraft::{EmptyNode, Membership};
use uuid::Uuid;

use super::super::codec::log_id;
use super::super::test_replica::SHARD;
use super::*;

fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

fn known() -> Known {
    Known { term: Some(Term(5)), last: 100 }
}

fn request(term: u64, prev: LogId, commit: LogId) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(term, node(1)),
        prev_log_id: Some(prev),
        leader_commit: Some(commit),
        entries: Vec::new(),
    }
}

fn is_taken(request: &AppendEntriesRequest<Types>) -> bool {
    known().append(SHARD, request).is_ok()
}

#[test]
fn terms_go_ahead_as_far_as_elections_can_take_them() {
    let vote = |known: Known, term| known.vote(&Vote::new(term, node(1))).is_ok();
    let ahead = 5 + limits::TERMS_AHEAD_MAX;
    for (term, taken) in
        [(0, true), (6, true), (ahead, true), (ahead + 1, false), (u64::MAX, false)]
    {
        assert_eq!(vote(known(), term), taken, "term {term}");
    }
    // A new replica may join a network of any age that is possible, but not of an impossible one.
    let new = Known::default();
    assert!(vote(new, ahead + 1) && vote(new, limits::FIRST_TERM_MAX));
    assert!(!vote(new, limits::FIRST_TERM_MAX + 1) && !vote(new, u64::MAX));
    let last = Known { term: Some(Term(u64::MAX)), last: u64::MAX };
    assert!(vote(last, u64::MAX), "no sum overflows");
}

#[test]
fn positions_are_those_of_one_log() {
    let at = log_id;
    assert!(is_taken(&request(5, at(5, 100), at(4, 90))));
    // A follower may lack most of the committed entries.
    assert!(is_taken(&request(5, at(3, 90), at(5, 1_000_000))));
    for (term, prev, commit) in [
        (5, at(6, 100), at(4, 90)),
        (5, at(5, 100), at(6, 90)),
        (5, at(5, u64::MAX), at(4, 90)),
        (5, at(5, 100), at(5, u64::MAX)),
        (5, at(5, 100), at(5, 101 + limits::ENTRIES_AHEAD_MAX)),
        // A later index of an earlier term, and one index in two terms.
        (5, at(4, 100), at(5, 90)),
        (5, at(5, 90), at(4, 100)),
        (5, at(5, 100), at(4, 100)),
    ] {
        assert!(!is_taken(&request(term, prev, commit)), "{term} {prev} {commit}");
    }
}

#[test]
fn members_are_those_that_a_group_can_have() {
    let known_nodes = |numbers: &[u128]| numbers.iter().map(|it| node(*it)).collect();
    let is_whole = |configs: &[&[u128]], nodes: &[u128]| {
        let configs: Vec<BTreeSet<NodeId>> = configs.iter().map(|it| known_nodes(it)).collect();
        membership(&configs, &known_nodes(nodes)).is_ok()
    };
    assert!(is_whole(&[&[1, 2, 3]], &[1, 2, 3, 4]));
    assert!(is_whole(&[&[1, 2, 3], &[2, 3, 4]], &[1, 2, 3, 4]));
    assert!(!is_whole(&[], &[1]), "nobody votes");
    assert!(!is_whole(&[&[]], &[1]), "nobody votes");
    assert!(!is_whole(&[&[1, 2]], &[1]), "a voter that is no member");
    assert!(!is_whole(&[&[1], &[1], &[1]], &[1]), "three halves");
    let many: Vec<u128> = (1..=10).collect();
    assert!(!is_whole(&[&many], &many), "too many voters");
}

#[test]
fn an_entry_is_one_that_its_group_applies() {
    let members = BTreeMap::from([(node(1), EmptyNode {})]);
    let membership = Membership::new(vec![[node(1)].into()], members).unwrap();
    let mut request = request(5, log_id(5, 100), log_id(5, 100));
    request.entries = vec![
        Entry { log_id: log_id(5, 101), payload: EntryPayload::Blank },
        Entry { log_id: log_id(5, 102), payload: EntryPayload::Membership(membership) },
    ];
    assert!(is_taken(&request));
    let batch = super::super::test_replica::puts(3);
    let payload = EntryPayload::Normal(super::super::Proposal(batch));
    request.entries.push(Entry { log_id: log_id(5, 103), payload });
    assert!(is_taken(&request));
    // The directory cannot apply a batch.
    assert!(known().append(GroupId::CONTROL, &request).is_err());
}

#[test]
fn an_answer_is_one_to_what_was_sent() {
    let (known, vote) = (known(), |term| Vote::new_committed(term, node(2)));
    let higher = |term| StreamAppendError::HigherVote(vote(term));
    assert!(known.refusal(&higher(6), None).is_ok());
    assert!(known.refusal(&higher(u64::MAX), None).is_err());
    let (here, there) = (log_id(5, 90), log_id(5, 91));
    assert!(known.refusal(&StreamAppendError::Conflict(here), Some(&here)).is_ok());
    assert!(known.refusal(&StreamAppendError::Conflict(there), Some(&here)).is_err());

    let beat = |answer: &_, sent| known.heartbeat_response(answer, sent).is_ok();
    assert!(beat(&AppendEntriesResponse::Success, None));
    assert!(beat(&AppendEntriesResponse::Conflict, Some(&here)));
    // openraft would panic.
    assert!(!beat(&AppendEntriesResponse::Conflict, None));
    assert!(!beat(&AppendEntriesResponse::PartialSuccess(Some(here)), Some(&here)));
    assert!(!beat(&AppendEntriesResponse::HigherVote(vote(u64::MAX)), Some(&here)));

    let vote = |term, last| VoteResponse::new(vote(term), last, false);
    assert!(known.vote_response(&vote(6, Some(log_id(6, 120)))).is_ok());
    assert!(known.vote_response(&vote(u64::MAX, None)).is_err());
    assert!(known.vote_response(&vote(6, Some(log_id(6, u64::MAX)))).is_err());
}
