//! The session compared with a naive model: a list of all write ids ever given.

use proptest::prelude::*;

use super::*;

fn open() -> Session {
    let mut session = Session::new(SessionId(Uuid::from_u128(7)));
    session.opening();
    session.opened(session.id());
    session
}

proptest! {
    #[test]
    fn settled_is_the_lowest_serial_that_is_not_finished(
        steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 1..400),
    ) {
        let mut session = open();
        let mut twin: Vec<(WriteId, bool)> = Vec::new();
        for (begin, pick) in steps {
            let unfinished: Vec<usize> =
                (0..twin.len()).filter(|&index| !twin[index].1).collect();
            if begin || unfinished.is_empty() {
                let write_id = session.next_write_id().unwrap();
                prop_assert_eq!(write_id.serial.0, twin.len() as u64 + 1);
                // The shard may forget nothing that is unfinished.
                let is_kept = |other: &WriteId| other.serial >= write_id.settled;
                prop_assert!(twin.iter().all(|(other, done)| *done || is_kept(other)));
                twin.push((write_id, false));
            } else {
                let index = unfinished[pick % unfinished.len()];
                twin[index].1 = true;
                session.settle(twin[index].0);
            }
            let lowest = twin.iter().find(|(_, done)| !done).map(|(write_id, _)| write_id.serial);
            prop_assert_eq!(session.settled(), lowest.unwrap_or(Serial(twin.len() as u64 + 1)));
        }
    }
}

#[test]
fn the_window_counts_the_span_and_not_the_number() {
    let mut session = open();
    let slow = session.next_write_id().unwrap();
    for _ in 1..SESSION_WINDOW_MAX {
        let quick = session.next_write_id().unwrap();
        session.settle(quick);
    }
    assert_eq!(session.next_write_id(), None, "one unsettled write at the bottom of a full span");
    session.settle(slow);
    assert_eq!(session.next_write_id().unwrap().settled, Serial(SESSION_WINDOW_MAX as u64 + 1));
}

#[test]
fn an_expired_session_gives_way_to_another_and_its_late_news_is_ignored() {
    let mut session = open();
    let old = session.next_write_id().unwrap();
    session.expired(old.session);
    assert_ne!(session.id(), old.session);
    assert!(session.is_closed());
    session.opening();
    session.opened(old.session);
    assert_eq!(session.next_write_id(), None, "the answer was for the old session");
    session.opened(session.id());
    let new = session.next_write_id().unwrap();
    assert_eq!(new.serial, Serial(1));
    session.settle(old);
    session.expired(old.session);
    assert_eq!(session.settled(), Serial(1), "the old session's serials are not the new one's");
}
