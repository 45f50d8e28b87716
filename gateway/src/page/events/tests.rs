//! Reports, one after the other, and the sentences that come of them.

use super::super::fixtures::report;
use super::*;

const ALL: [&str; 3] = ["n1", "n2", "n3"];

fn texts(events: &Events) -> Vec<&str> {
    events.all().map(|event| event.text.as_str()).collect()
}

#[test]
fn a_failover_is_one_line() {
    let mut events = Events::default();
    events.report(1000, &report(&ALL, &["n1", "n1", "n2"], 4));
    events.waited(1500, Some(3_000));
    events.news();
    events.report(4000, &report(&["-n1", "n2", "n3"], &["", "", "n2"], 4));
    assert_eq!(texts(&events)[0], "n1 lost, nobody leads its groups yet");
    events.waited(4500, Some(89_200));
    events.report(5000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 90 ms");
    let event = events.all().next().unwrap();
    let detail = event.detail.as_deref().unwrap();
    assert_eq!(
        detail,
        "n1 does not answer; n2 was elected coordinator in term 5; 1 shard has another primary"
    );
    assert_eq!((event.kind, event.at_ms), (Kind::Failover, 4000));
    let id = event.id;
    // A write that ends later has waited too.
    assert_eq!(events.news(), BTreeSet::from([id]));
    events.waited(5500, Some(1_250_000));
    events.report(6000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 1.2 s");
    // And one that is slow long after has not.
    events.report(9000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    events.waited(9500, Some(7_000_000));
    events.report(10_000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events).len(), 2, "{:?}", texts(&events));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 1.2 s");
    events.report(20_000, &report(&ALL, &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 answers again");
}

#[test]
fn a_leader_that_is_replaced_before_it_is_missed_is_the_same_failover() {
    let mut events = Events::default();
    events.report(1000, &report(&ALL, &["n1", "n1"], 4));
    events.report(2000, &report(&ALL, &["n3", "n1"], 5));
    assert_eq!(texts(&events)[0], "n3 was elected coordinator in term 5");
    events.report(5000, &report(&["-n1", "n2", "n3"], &["n3", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 and n3 lead");
    assert_eq!(texts(&events).len(), 2, "{:?}", texts(&events));
    // One that hands over and goes on answering is none.
    events.report(30_000, &report(&ALL, &["n3", "n2"], 5));
    events.report(31_000, &report(&ALL, &["n1", "n2"], 6));
    events.report(60_000, &report(&["-n3", "n2", "n1"], &["n1", "n2"], 6));
    assert_eq!(texts(&events)[0], "n3 does not answer");
}

#[test]
fn whoever_leads_on_was_not_lost() {
    let mut events = Events::default();
    events.report(1000, &report(&ALL, &["n1", "n1"], 4));
    events.report(2000, &report(&["-n1", "n2", "n3"], &["", ""], 4));
    events.report(4000, &report(&ALL, &["n1", "n1"], 4));
    assert!(
        texts(&events).contains(&"n1 did not answer for 2.0 s and leads on"),
        "{:?}",
        texts(&events)
    );
}

#[test]
fn what_else_happens() {
    let mut events = Events::default();
    events.report(1000, &report(&ALL, &["n1", "n1"], 4));
    assert_eq!(texts(&events), ["watching; n1 is the coordinator"]);
    events.report(2000, &report(&["n1", "n2", "-n3"], &["n1", "n1"], 4));
    assert_eq!(texts(&events)[0], "n3 does not answer");
    events.report(3000, &report(&["n1", "-n2", "-n3"], &["n1", "n1"], 4));
    assert!(texts(&events).contains(&"a group has no majority"));
    events.report(4000, &report(&["n1", "n2", "n3", "n4"], &["n1", "n2"], 4));
    for text in
        ["every group has a majority again", "n4 has joined", "n2 is the primary of shard 1"]
    {
        assert!(texts(&events).contains(&text), "{text} {:?}", texts(&events));
    }
    events.report(5000, &report(&["n1", "n2"], &["n1", "n2"], 4));
    assert!(texts(&events).contains(&"n3 was removed"));
    events.reads(6000, Some("nobody answers"));
    events.reads(7000, Some("nobody answers still"));
    assert_eq!(texts(&events)[0], "strong reads fail: nobody answers");
    events.reads(8000, None);
    assert_eq!(texts(&events)[0], "strong reads succeed again");
    for at_ms in 0..2 * EVENTS_MAX as u64 {
        events.reads(at_ms, (at_ms % 2 == 0).then_some("x"));
    }
    assert_eq!(events.all().count(), EVENTS_MAX);
}
