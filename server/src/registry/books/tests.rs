//! Two copies of the books that exchange records, as two servers do through the control group.

use dkv_base::id::{NetworkId, NodeId, Term};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::BOOKS_CHANGE_RECORDS_MAX;
use dkv_wire::message::JoinRefusal;
use dkv_wire::network::Settings;
use dkv_wire::token::SecretHash;
use uuid::Uuid;

use super::*;
use crate::limits::{GROUP_MAX, TOKENS_MAX};
use crate::registry::Confirmed;

const NOW: u64 = 1_000_000;
const SECRET: [u8; 32] = [7; 32];

fn network() -> NetworkId {
    NetworkId(Uuid::from_u128(1))
}

fn holder(number: u128) -> HolderId {
    HolderId(Uuid::from_u128(number))
}

fn token() -> Uuid {
    Uuid::from_u128(77)
}

fn registry() -> Registry {
    Registry::new(network(), Settings::default(), NOW)
}

/// A registry with a token for one client.
fn with_token() -> Registry {
    let mut registry = registry();
    let hash = SecretHash::of(&SECRET);
    let name = Some("ada".to_owned());
    let (created, _) =
        registry.handle_create_token(token(), hash, Role::Client, None, Some(1), name, None, NOW);
    created.unwrap();
    registry
}

fn version(number: u64) -> BooksVersion {
    BooksVersion { number, change: Uuid::from_u128(number.into()) }
}

fn copy_of(registry: &Registry, number: u64) -> BooksCopy {
    let records = registry.all_records().into_iter();
    let records = records.filter_map(|(key, record)| Some((key, record?))).collect();
    BooksCopy { version: version(number), servers: Vec::new(), records }
}

#[test]
fn a_copy_admits_what_the_original_would() {
    let mut original = with_token();
    let mut copy = registry();
    copy.adopt_books(&copy_of(&original, 3)).0.unwrap();
    assert_eq!(copy.books_version(), Some(version(3)));
    assert_eq!(copy.check_token(token(), &SECRET, NOW), Ok((Role::Client, None)));
    assert_eq!(copy.all_records(), original.all_records());

    original.handle_join(token(), &SECRET, holder(5), NOW).0.unwrap();
    copy.adopt_books(&copy_of(&original, 4)).0.unwrap();
    assert_eq!(copy.check_token(token(), &SECRET, NOW), Err(JoinRefusal::UsedUp));
    assert_eq!(copy.name_of(holder(5)), Some("ada"));

    original.handle_revoke_token(token()).0.unwrap();
    copy.adopt_books(&copy_of(&original, 5)).0.unwrap();
    assert_eq!(copy.check_token(token(), &SECRET, NOW), Err(JoinRefusal::Unknown));
}

#[test]
fn a_control_group_that_lost_entries_is_believed() {
    let mut copy = registry();
    copy.adopt_books(&copy_of(&with_token(), 120)).0.unwrap();
    // The same version has nothing new, whatever comes with it.
    copy.adopt_books(&copy_of(&registry(), 120)).0.unwrap();
    assert!(copy.has_token(token()));
    // The same number by other changes is another version.
    let other = BooksVersion { number: 120, change: Uuid::from_u128(7) };
    copy.adopt_books(&BooksCopy { version: other, ..copy_of(&registry(), 120) }).0.unwrap();
    assert!(!copy.has_token(token()));
    copy.adopt_books(&copy_of(&with_token(), 100)).0.unwrap();
    assert_eq!(copy.books_version(), Some(version(100)));
    assert!(copy.has_token(token()));
}

#[test]
fn a_new_server_has_nothing_to_hand_over() {
    let mut founder = with_token();
    assert!(founder.may_hand_over());
    founder.books.server = Some(holder(8));
    assert!(!founder.may_hand_over());
    founder.adopt_books(&copy_of(&registry(), 1)).0.unwrap();
    assert!(founder.may_hand_over());
}

#[test]
fn the_changes_of_a_decision_make_the_same_of_another_copy() {
    let before = with_token();
    let mut after = before.clone();
    after.handle_join(token(), &SECRET, holder(5), NOW).0.unwrap();
    let changes = after.changed_records(&before);
    let keys: Vec<BookKey> = changes.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [BookKey::Token(token()), BookKey::Holder(holder(5))]);
    let mut copy = before.clone();
    copy.apply_changes(&changes, &[], version(9)).0.unwrap();
    assert_eq!(copy.all_records(), after.all_records());
    assert_eq!(copy.books_version(), Some(version(9)));

    let mut revoked = after.clone();
    revoked.handle_revoke_token(token()).0.unwrap();
    assert_eq!(revoked.changed_records(&after), [(BookKey::Token(token()), None)]);
}

#[test]
fn a_sighting_is_no_change_and_outlives_newer_books() {
    let mut original = with_token();
    original.handle_join(token(), &SECRET, holder(5), NOW).0.unwrap();
    let before = original.clone();
    let identity =
        Identity { network: network(), role: Role::Client, holder: holder(5), user: None };
    let ((), effects) = original.handle_seen(identity, NOW + 60_000);
    assert!(!effects.save);
    assert_eq!(original.changed_records(&before), []);
    original.adopt_books(&copy_of(&before, 1)).0.unwrap();
    let seen: Vec<_> = original.holders().iter().map(|holder| holder.seen_ms).collect();
    assert_eq!(seen, [Some(NOW + 60_000)]);
}

#[test]
fn records_of_a_newer_server_and_malformed_ones_change_nothing() {
    let original = with_token();
    for (record, error) in [
        (Bytes::from_static(&[3, 1, 1]), RecordError::Newer(3)),
        (Bytes::from_static(&[2, 255]), RecordError::Malformed(BookKey::Token(token()))),
        (Bytes::new(), RecordError::Malformed(BookKey::Token(token()))),
    ] {
        let mut copy = original.clone();
        let records =
            vec![(BookKey::Holder(holder(9)), None), (BookKey::Token(token()), Some(record))];
        assert_eq!(copy.apply_changes(&records, &[], version(2)).0, Err(error));
        assert_eq!(copy.all_records(), original.all_records());
        assert_eq!(copy.books_version(), None);
    }
}

#[test]
fn the_longest_record_fits() {
    let mut registry = registry();
    let name = Some("n".repeat(dkv_wire::limits::NAME_BYTES_MAX));
    let hash = SecretHash::of(&SECRET);
    let far = Some(u64::MAX);
    let (created, _) = registry.handle_create_token(
        token(),
        hash,
        Role::Client,
        far,
        None,
        name,
        None,
        u64::MAX / 2,
    );
    created.unwrap();
    for number in 0..40 {
        registry.handle_join(token(), &SECRET, holder(u128::MAX - number), u64::MAX / 2).0.unwrap();
    }
    let longest = registry.all_records().into_iter().filter_map(|(_, record)| Some(record?.len()));
    let limit = dkv_wire::limits::BOOK_RECORD_BYTES_MAX;
    assert!(longest.max().is_some_and(|longest| longest * 2 < limit));
}

#[test]
fn the_first_report_takes_the_books_to_the_control_group() {
    let mut registry = registry();
    assert!(!registry.is_kept_by_control_group());
    let node = NodeId(Uuid::from_u128(4));
    registry.coordinator = Some(Confirmed { node, term: Term(1), at_ms: NOW });
    assert!(registry.is_kept_by_control_group());
}

#[test]
fn the_tokens_that_make_room_fit_into_one_change() {
    let mut registry = registry();
    let create = |registry: &mut Registry, number: usize, now_ms: u64| {
        let (id, hash) = (Uuid::from_u128(number as u128), SecretHash::of(&SECRET));
        registry.handle_create_token(id, hash, Role::Client, Some(1), None, None, None, now_ms).0
    };
    for number in 0..TOKENS_MAX {
        create(&mut registry, number, NOW).unwrap();
    }
    assert!(create(&mut registry, TOKENS_MAX, NOW).is_err(), "all of them live");
    let before = registry.clone();
    // As many as one round decides on, when all that there were have expired.
    for number in 0..GROUP_MAX {
        create(&mut registry, TOKENS_MAX + number, NOW + 1000).unwrap();
    }
    let changed = registry.changed_records(&before).len();
    assert!((GROUP_MAX + 1..=BOOKS_CHANGE_RECORDS_MAX).contains(&changed), "{changed} records");
}
