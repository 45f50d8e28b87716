//! Chains, written by hand.

use dkv_wire::network::KeyspaceSettings;
use uuid::Uuid;

use super::*;
use crate::sample::{base, changes, cut, dropped, pages};

/// Adds chunks of these contents to a chain.
fn grown(mut chain: Chain, contents: Vec<Content>) -> Chain {
    for content in contents {
        let number = chain.last().map_or(1, |last| last.header.number + 1);
        let before = chain.last().map_or([0; 32], |last| last.hash);
        chain.push(link(number, before, content)).unwrap();
    }
    chain
}

fn link(number: u64, before: Hash, content: Content) -> Link {
    let header = Header {
        backup: "b".into(),
        network: Uuid::from_u128(7),
        keyspace: "k".into(),
        number,
        before,
        content,
        records: 0,
        data_bytes: 0,
        body_bytes: 0,
    };
    Link { header, hash: [number as u8; 32], stored_bytes: 1 }
}

/// Returns the first and the last chunk of the run at a second.
fn at(chain: &Chain, second: u64) -> Option<(u64, u64)> {
    let run = chain.run_at(second * 1000)?;
    let number = |link: Option<&Link>| link.map_or(0, |link| link.header.number);
    Some((number(run.links.first()), number(run.links.last())))
}

#[test]
fn a_run_can_be_restored_at_each_cut_once_its_pages_are_complete() {
    let chain = grown(
        Chain::default(),
        vec![base(false), pages(false), changes(), pages(true), changes(), cut(5), cut(9)],
    );
    assert_eq!(at(&chain, 4), None);
    assert_eq!(at(&chain, 5), Some((1, 6)));
    assert_eq!(at(&chain, 8), Some((1, 6)));
    assert_eq!(at(&chain, 100), Some((1, 7)));
    assert_eq!(chain.runs().last().unwrap().cut.taken_ms, 9000);
}

#[test]
fn a_new_base_takes_over_once_it_is_complete() {
    let begin = vec![base(false), pages(true), cut(5), base(true), pages(false), cut(6)];
    let chain = grown(Chain::default(), begin);
    assert_eq!(at(&chain, 6), Some((1, 6)), "the old run goes on meanwhile");
    let chain = grown(chain, vec![pages(true), cut(7)]);
    assert_eq!(at(&chain, 7), Some((4, 8)));
    assert_eq!(at(&chain, 6), Some((1, 6)));
}

#[test]
fn a_base_after_a_gap_ends_the_run_before() {
    let begin = vec![base(false), pages(true), cut(5), base(false), pages(false), cut(6)];
    let chain = grown(Chain::default(), begin);
    assert_eq!(at(&chain, 6), Some((1, 3)), "nothing leads to 6");
    let chain = grown(Chain::default(), vec![base(false), pages(true), cut(5), dropped(5), cut(6)]);
    assert_eq!(at(&chain, 6), Some((1, 3)));
}

#[test]
fn what_does_not_follow_is_refused() {
    let chain = grown(Chain::default(), vec![base(false), pages(true)]);
    let refused = |link: Link| {
        let mut chain = chain.clone();
        chain.push(link).is_err()
    };
    assert!(!refused(link(3, [2; 32], cut(5))));
    assert!(refused(link(4, [2; 32], cut(5))), "a gap");
    assert!(refused(link(3, [1; 32], cut(5))), "another hash");
    let mut other = link(3, [2; 32], cut(5));
    other.header.keyspace = "other".into();
    assert!(refused(other));
    assert!(Chain::default().push(link(1, [0; 32], cut(5))).is_err(), "no beginning");
    assert!(Chain::tail().push(link(7, [6; 32], cut(5))).is_ok());
}

#[test]
fn what_an_interrupted_prune_has_left_is_ignored() {
    let mut chain = Chain::default();
    for number in [7, 8] {
        chain.push(link(number, [number as u8 - 1; 32], cut(number))).unwrap();
    }
    assert_eq!((chain.last(), at(&chain, 100)), (None, None));
    chain.push(link(9, [8; 32], base(true))).unwrap();
    let chain = grown(chain, vec![pages(true), cut(9)]);
    assert_eq!(at(&chain, 8), None);
    assert_eq!(at(&chain, 9), Some((9, 11)));
}

#[test]
fn an_interrupted_writer_finds_where_it_was() {
    let position = |chain: &Chain| match chain.stage() {
        Stage::Pages { position, last, .. } => format!("pages {last:?} {position}"),
        Stage::Changes { position, at_cut } => format!("changes {at_cut} {position}"),
        other => format!("{other:?}"),
    };
    let mut chain = Chain::default();
    let steps = [
        (base(false), "pages None 1:500"),
        (pages(false), "pages Some(2) 1:500"),
        (changes(), "pages Some(2) 1:510"),
        (pages(true), "changes false 1:510"),
        (cut(20), "changes true 1:520"),
        (changes(), "changes false 1:510"),
        (dropped(5), "Dropped"),
        (base(false), "pages None 1:500"),
    ];
    assert_eq!(position(&chain), "Nothing");
    for (content, expected) in steps {
        chain = grown(chain, vec![content]);
        assert_eq!(position(&chain), expected);
    }
    let after = Content::After {
        settings: KeyspaceSettings::default(),
        parent: "p".into(),
        cut: "7040:1=500-490".into(),
    };
    let chain = grown(Chain::default(), vec![after]);
    assert_eq!(position(&chain), "changes false 1:490");
}
