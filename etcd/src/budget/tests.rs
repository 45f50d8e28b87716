//! Tests of the shares of callers, and of the bytes that requests hold.

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;

use super::{Budget, RequestBytes, Resource, Shares, Taken, freed_when_handled};
use crate::error::EtcdError;

const KIB: usize = 1024;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// Returns the shares of a new connection.
fn connection(budget: &Budget, last: u8) -> Arc<Shares> {
    Arc::new(budget.connection(address(last)))
}

fn request(budget: &Budget, last: u8) -> RequestBytes {
    RequestBytes::new(connection(budget, last))
}

/// Takes as much as possible, in steps; returns it and how much it is.
fn take_all(shares: &Arc<Shares>, kind: Resource, step: usize) -> (Vec<Taken>, usize) {
    let taken: Vec<Taken> = std::iter::from_fn(|| shares.take(kind, step).ok()).collect();
    let number = taken.iter().map(Taken::number).sum();
    (taken, number)
}

#[tokio::test]
async fn a_stream_sends_more_than_all_may_have_while_another_request_is_served() {
    const MESSAGE: usize = 1000;
    let all = Budget::new([4 * MESSAGE, 0, 0, 0], 0);
    let (stream, other) = (request(&all, 1), request(&all, 2));
    // As a body does it: a message comes in frames, and is taken before it is decoded.
    let takes = stream.clone();
    let messages = futures::stream::iter(0..9)
        .map(move |_| takes.take(MESSAGE / 2).and_then(|()| takes.take(MESSAGE / 2)));
    let mut messages = freed_when_handled(messages, Some(stream.clone()));
    for _ in 0..9 {
        assert_eq!(messages.next().await, Some(Ok(())));
        assert!(stream.has_message(), "it is being handled");
    }
    assert_eq!(messages.next().await, None);
    assert!(!stream.has_message(), "the stream is open, and holds nothing");
    assert_eq!(other.take(MESSAGE), Ok(()));
}

#[test]
fn answers_hold_their_bytes_until_they_are_sent() {
    let all = Budget::new([0, 100 * KIB, 0, 0], 0);
    let (one, other) = (request(&all, 1), request(&all, 2));
    assert_eq!(one.take_answer(30 * KIB), Ok(()));
    assert_eq!(one.take_answer(50 * KIB), Ok(()), "as much in all");
    assert_eq!(one.take_answer(10 * KIB), Ok(()));
    assert_eq!(other.take_answer(40 * KIB), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    let sending = one.keep(vec![7; 50 * KIB].into(), ());
    drop(one);
    let last = sending.slice(49 * KIB..);
    drop(sending);
    assert_eq!(other.take_answer(40 * KIB), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    drop(last);
    assert_eq!(other.take_answer(40 * KIB), Ok(()));
}

#[test]
fn each_part_of_a_stream_holds_its_bytes_until_it_is_sent() {
    let all = Budget::new([0, 100 * KIB, 0, 0], 0);
    let (stream, other) = (request(&all, 1), request(&all, 2));
    let part = |bytes: usize| {
        stream.take_next_answer(bytes)?;
        Ok(stream.keep(vec![7; bytes].into(), stream.take_part()))
    };
    let first = part(30 * KIB).expect("room");
    let next = part(30 * KIB).expect("room");
    assert_eq!(other.take_answer(40 * KIB), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    drop(first);
    assert_eq!(other.take_answer(40 * KIB), Ok(()));
    // A part may have several messages.
    assert_eq!(part(50 * KIB), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    drop((next, other));
    assert_eq!(stream.take_next_answer(20 * KIB), Ok(()));
    assert_eq!(part(20 * KIB).expect("room").len(), 20 * KIB);
    for _ in 0..100 {
        assert!(part(50 * KIB).is_ok(), "those that have been sent hold nothing");
    }
}

#[test]
fn one_address_leaves_something_to_others_and_one_connection_to_the_rest_of_its_address() {
    let all = Budget::new([512 * KIB, 1024 * KIB, 8192, 64], 0);
    for (kind, alone, at_address, at_another) in [
        (Resource::Message, 170, 255, 80),
        (Resource::Answer, 614, 767, 80),
        (Resource::Watch, 4915, 6143, 80),
        (Resource::Login, 38, 47, 10),
    ] {
        let counted = matches!(kind, Resource::Watch | Resource::Login);
        let (step, unit) = if counted { (1, 1) } else { (256, KIB) };
        let (_first, number) = take_all(&connection(&all, 1), kind, step);
        assert_eq!(number / unit, alone, "{kind:?} of one connection");
        let mut many = Vec::new();
        let mut of_address = number;
        for _ in 0..64 {
            let (taken, number) = take_all(&connection(&all, 1), kind, step);
            many.push(taken);
            of_address += number;
        }
        assert!(of_address / unit <= at_address && of_address > number, "{kind:?} {of_address}");
        let (_others, number) = take_all(&connection(&all, 2), kind, step);
        assert!(number / unit >= at_another, "{kind:?}: {number} for another address");
    }
}

#[test]
fn the_seventh_connection_of_an_address_has_its_reserve_whatever_six_have_taken() {
    const RESERVE: usize = 8 * KIB;
    let all = Budget::new([512 * KIB, 1024 * KIB, 8192, 64], RESERVE);
    for (kind, third) in [
        (Resource::Message, 10 * KIB),
        (Resource::Answer, 20 * KIB),
        (Resource::Watch, 190),
        (Resource::Login, 1),
    ] {
        let counted = matches!(kind, Resource::Watch | Resource::Login);
        let step = if counted { 1 } else { 256 };
        let connections = (0..6).map(|_| take_all(&connection(&all, 1), kind, step));
        let (_taken, numbers): (Vec<_>, Vec<_>) = connections.unzip();
        assert!(numbers[2] >= third, "{kind:?}: {numbers:?}");
        // Watches and logins run out.
        let least = if counted { 0 } else { RESERVE };
        let (_seventh, number) = take_all(&connection(&all, 1), kind, step);
        assert!(number >= least, "{kind:?}: {number}");
    }
}

#[test]
fn those_who_are_no_users_yet_log_in_by_connection() {
    let all = Budget::default();
    let login = |last: u8| {
        let caller = all.user(&all.connection(address(last)), None);
        RequestBytes::new(Arc::new(caller)).take_login()
    };
    // The programs of a machine that has started. Another one is served meanwhile.
    let machine: Vec<Taken> = (0..47).map(|_| login(1).expect("a place")).collect();
    assert!(login(1).is_err());
    let other: Vec<Taken> = (0..10).map(|_| login(2).expect("a place")).collect();
    drop((machine, other));
    let connection = all.connection(address(1));
    let (_one, number) = take_all(&Arc::new(all.user(&connection, None)), Resource::Login, 1);
    assert_eq!(number, 38);
    assert!(login(1).is_ok(), "a connection that takes all it may leaves some to others");
}

#[test]
fn users_have_shares_whatever_those_have_who_are_none() {
    let all = Budget::new([512 * KIB, 0, 0, 0], 0);
    let connection = all.connection(address(1));
    let user = |name: Option<&str>| Arc::new(all.user(&connection, name));
    let mut nobody = Vec::new();
    for _ in 0..64 {
        nobody.push(take_all(&user(None), Resource::Message, 256).0);
    }
    let (_mars, number) = take_all(&user(Some("mars")), Resource::Message, 256);
    assert!(number >= 40 * KIB, "{number}");
    let (_again, number) = take_all(&user(Some("mars")), Resource::Message, 256);
    assert_eq!(number, 0, "a user has one share, on any number of connections");
    assert!(user(Some("venus")).take(Resource::Message, 8 * KIB).is_ok());
    drop(nobody);
}

#[test]
fn a_connection_has_a_little_that_nobody_takes() {
    let all = Budget::new([KIB, KIB, 0, 0], 100);
    let mut taken = Vec::new();
    for last in 0..100 {
        for kind in [Resource::Message, Resource::Answer] {
            taken.push(take_all(&connection(&all, last), kind, 10).0);
        }
    }
    let one = request(&all, 200);
    assert_eq!((one.take(60), one.take(40)), (Ok(()), Ok(())));
    assert_eq!(one.take_answer(100), Ok(()));
    assert_eq!(one.take(99), Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    one.free();
    assert_eq!(one.take(100), Ok(()));
}

proptest! {
    #[test]
    fn what_is_taken_is_given_back(
        steps in prop::collection::vec(
            (0..4_u8, 0..3_usize, 0..300_usize, any::<bool>()),
            0..200,
        ),
    ) {
        let all = Budget::new([1000; 4], 50);
        let kinds = [Resource::Message, Resource::Answer, Resource::Watch];
        let connections: Vec<_> = (0..4).map(|last| connection(&all, last / 2)).collect();
        let mut held: Vec<Taken> = Vec::new();
        for (who, kind, number, drops) in steps {
            if drops && !held.is_empty() {
                held.swap_remove(number % held.len());
            } else if let Ok(taken) = connections[usize::from(who)].take(kinds[kind], number) {
                prop_assert_eq!(taken.number(), number);
                held.push(taken);
            }
            prop_assert!(held.iter().map(Taken::number).sum::<usize>() <= 3 * 1000 + 2 * 4 * 50);
        }
        drop(held);
        for kind in kinds {
            prop_assert!(connections[0].take(kind, 300).is_ok());
        }
    }
}
