//! The order of changes, what a repetition does, pages, and limits.

use super::*;
use crate::directory::{Announcement, DirectoryCommand, DirectoryEntry, DirectoryResult, Recovery};
use dkv_base::id::{NetworkId, NodeId};
use dkv_wire::network::Settings;

fn directory() -> Directory {
    let id = NodeId(Uuid::from_u128(1));
    let founder = Announcement {
        id,
        name: "n1".into(),
        address: ([127, 0, 0, 1], 4401).into(),
        region: None,
    };
    let (network, settings) = (NetworkId(Uuid::from_u128(9)), Settings::default());
    let mut directory = Directory::new();
    execute(&mut directory, DirectoryCommand::Create { network, settings, founder }).unwrap();
    directory
}

fn execute(directory: &mut Directory, command: DirectoryCommand) -> Result<(), String> {
    match directory.execute(&DirectoryEntry { time_ms: 1, command }) {
        DirectoryResult::Done => Ok(()),
        DirectoryResult::Rejected(why) => Err(why),
    }
}

fn token(number: u128) -> BookKey {
    BookKey::Token(Uuid::from_u128(number))
}

fn server(number: u128) -> HolderId {
    HolderId(Uuid::from_u128(number))
}

/// The version that a change made.
fn at(number: u64, change: u128) -> BooksVersion {
    BooksVersion { number, change: Uuid::from_u128(change) }
}

/// A change that sets one record.
fn set(id: u128, at: BooksVersion, key: BookKey, text: &str) -> BooksChange {
    let records = vec![(key, Some(Bytes::copy_from_slice(text.as_bytes())))];
    BooksChange { id: Uuid::from_u128(id), at, complete: true, records, servers: Vec::new() }
}

fn change(directory: &mut Directory, change: BooksChange) -> Result<(), String> {
    change_by(directory, server(5), change)
}

fn change_by(
    directory: &mut Directory,
    server: HolderId,
    change: BooksChange,
) -> Result<(), String> {
    execute(directory, DirectoryCommand::ChangeBooks { server, change: Box::new(change) })
}

#[test]
fn of_two_changes_on_one_version_the_first_counts() {
    let mut directory = directory();
    change(&mut directory, set(1, at(0, 0), token(1), "unused")).unwrap();
    change(&mut directory, set(2, at(1, 1), token(1), "used by a")).unwrap();
    let late = change(&mut directory, set(3, at(1, 1), token(1), "used by b")).unwrap_err();
    assert!(late.starts_with("the books are at version 2"), "{late}");
    let page = directory.books_page(None, None);
    assert_eq!(page.records, [(token(1), Bytes::from_static(b"used by a"))]);
    assert_eq!((page.version, page.complete, page.more), (at(2, 2), true, false));
    assert_eq!(page.recent, [Uuid::from_u128(1), Uuid::from_u128(2)]);
}

#[test]
fn a_repetition_has_no_effect() {
    let mut directory = directory();
    change(&mut directory, set(1, at(0, 0), token(1), "unused")).unwrap();
    change(&mut directory, set(2, at(1, 1), token(1), "used")).unwrap();
    let (revision, hash) = (directory.revision(), directory.hash());
    change(&mut directory, set(1, at(0, 0), token(1), "unused")).unwrap();
    assert_eq!((directory.revision(), directory.hash()), (revision, hash));
}

#[test]
fn the_books_stay_complete_once_they_are() {
    let mut directory = directory();
    let part = BooksChange { complete: false, ..set(1, at(0, 0), token(1), "a") };
    change(&mut directory, part).unwrap();
    assert!(!directory.books_page(None, None).complete);
    change(&mut directory, set(2, at(1, 1), token(2), "b")).unwrap();
    let part = BooksChange { complete: false, ..set(3, at(2, 2), token(3), "c") };
    assert_eq!(change(&mut directory, part).unwrap_err(), "the books are complete");
}

#[test]
fn a_removed_server_is_not_listed_and_does_not_come_back() {
    let mut directory = directory();
    let address: SocketAddr = ([127, 0, 0, 1], 4400).into();
    let both = [(server(5), Some(address)), (server(6), Some(address))];
    let first = set(1, at(0, 0), token(1), "a");
    change(&mut directory, BooksChange { servers: both.into(), ..first }).unwrap();
    execute(&mut directory, DirectoryCommand::Deny(server(6))).unwrap();
    let last = execute(&mut directory, DirectoryCommand::Deny(server(5))).unwrap_err();
    assert!(last.contains("is the only registration server that the network lists"), "{last}");
    let ids = |directory: &Directory| directory.servers().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(&directory), [server(5)]);
    let again = set(2, at(1, 1), token(1), "a");
    let again = BooksChange { servers: vec![(server(6), Some(address))], ..again };
    assert!(change(&mut directory, again).unwrap_err().contains("was removed"));
    assert_eq!(ids(&directory), [server(5)]);
}

#[test]
fn a_removed_server_changes_nothing() {
    let mut directory = directory();
    let address: SocketAddr = ([127, 0, 0, 1], 4400).into();
    let first = set(1, at(0, 0), token(1), "a");
    change(&mut directory, BooksChange { servers: vec![(server(5), Some(address))], ..first })
        .unwrap();
    execute(&mut directory, DirectoryCommand::Deny(server(6))).unwrap();
    let late = change_by(&mut directory, server(6), set(2, at(1, 1), token(1), "b"));
    assert!(late.unwrap_err().contains("was removed"));
    assert_eq!(directory.books_page(None, None).version, at(1, 1));
}

#[test]
fn the_founding_server_is_kept_while_no_other_is_listed() {
    let mut directory = directory();
    // It lists no address, and has the network's id.
    let founder = server(9);
    change(&mut directory, set(1, at(0, 0), token(1), "a")).unwrap();
    let deny = || DirectoryCommand::Deny(founder);
    let refused = execute(&mut directory, deny()).unwrap_err();
    assert!(refused.contains("is the only registration server"), "{refused}");
    execute(&mut directory, DirectoryCommand::Deny(server(7))).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 4400).into();
    let second = set(2, at(1, 1), token(1), "b");
    change(&mut directory, BooksChange { servers: vec![(server(5), Some(address))], ..second })
        .unwrap();
    execute(&mut directory, deny()).unwrap();
}

#[test]
fn the_pages_of_long_books_have_every_record_once() {
    let mut directory = directory();
    let record = Bytes::from(vec![7; limits::BOOK_RECORD_BYTES_MAX]);
    let keys: Vec<BookKey> = (0..1000).map(token).collect();
    let records = keys.iter().map(|key| (*key, Some(record.clone()))).collect();
    let first = set(1, at(0, 0), token(1), "a");
    change(&mut directory, BooksChange { records, ..first }).unwrap();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = directory.books_page(after, None);
        assert!(page.records.len() < 300, "a page is bounded");
        seen.extend(page.records.iter().map(|(key, _)| *key));
        after = seen.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, keys);
    assert!(directory.books_page(None, Some(at(1, 1))).records.is_empty(), "the asker knows it");
}

#[test]
fn records_and_changes_are_bounded() {
    let mut directory = directory();
    let long = "x".repeat(limits::BOOK_RECORD_BYTES_MAX + 1);
    assert!(
        change(&mut directory, set(1, at(0, 0), token(1), &long)).unwrap_err().contains("too long")
    );
    let one = set(2, at(0, 0), token(1), "a");
    let records = vec![one.records[0].clone(); limits::BOOKS_CHANGE_RECORDS_MAX + 1];
    let many = BooksChange { records, ..one };
    assert!(change(&mut directory, many).unwrap_err().contains("too large"));
    assert_eq!(directory.books_page(None, None).version, at(0, 0));
}

#[test]
fn a_change_on_lost_changes_does_not_count_whatever_the_number() {
    let mut directory = directory();
    change(&mut directory, set(1, at(0, 0), token(1), "unused")).unwrap();
    let before = directory.clone();
    change(&mut directory, set(2, at(1, 1), token(1), "used by a")).unwrap();
    // The group loses the last entry, and makes another one.
    let mut directory = before;
    change(&mut directory, set(3, at(1, 1), token(1), "used by b")).unwrap();
    let lost = change(&mut directory, set(4, at(2, 2), token(2), "a")).unwrap_err();
    assert!(lost.contains("made by another change"), "{lost}");
    assert_eq!(directory.books_page(None, Some(at(2, 2))).records.len(), 1);
    change(&mut directory, set(5, at(2, 3), token(2), "b")).unwrap();
}

#[test]
fn after_a_recovery_the_books_are_newer_than_any_copy() {
    let mut directory = directory();
    let recover = |id| {
        let id = Uuid::from_u128(id);
        DirectoryCommand::Recover(Recovery { id, ..Recovery::default() })
    };
    execute(&mut directory, recover(7)).unwrap();
    assert_eq!(directory.books_page(None, None).version, at(0, 0), "nobody has a copy");
    change(&mut directory, set(1, at(0, 0), token(1), "a")).unwrap();
    execute(&mut directory, recover(8)).unwrap();
    let version = directory.books_page(None, None).version;
    assert!(version.number > 1_000_000);
    execute(&mut directory, recover(8)).unwrap();
    assert_eq!(directory.books_page(None, None).version, version, "a repetition changes nothing");
    // Another one may lose what was changed since this one, and nothing else.
    let mut again = directory.clone();
    execute(&mut again, recover(9)).unwrap();
    assert!(again.books_page(None, None).version.number > version.number + 1_000_000);
    assert!(change(&mut directory, set(2, at(1, 1), token(1), "b")).is_err());
    change(&mut directory, set(3, version, token(1), "b")).unwrap();
}
