//! Sequences of reports, and the events that they cause.

use super::super::fixtures::report;
use super::*;

const ALL: [&str; 3] = ["n1", "n2", "n3"];

fn texts(events: &Events) -> Vec<&str> {
    events.all().map(|event| event.text.as_str()).collect()
}

#[test]
fn a_failover_is_one_event() {
    let mut events = Events::default();
    events.compare_report(1000, &report(&ALL, &["n1", "n1", "n2"], 4));
    events.record_wait(1500, Some(3_000));
    events.take_news();
    events.compare_report(4000, &report(&["-n1", "n2", "n3"], &["", "", "n2"], 4));
    assert_eq!(texts(&events)[0], "n1 lost, its groups have no leader yet");
    events.record_wait(4500, Some(89_200));
    events.compare_report(5000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 90 ms");
    let event = events.all().next().unwrap();
    let detail = event.detail.as_deref().unwrap();
    assert_eq!(
        detail,
        "n1 does not answer; n2 was elected coordinator in term 5; 1 shard has another primary"
    );
    assert_eq!((event.kind, event.at_ms), (Severity::Failover, 4000));
    let id = event.id;
    // A write that ends later waited too.
    assert_eq!(events.take_news(), BTreeSet::from([id]));
    events.record_wait(5500, Some(1_250_000));
    events.compare_report(6000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 1.2 s");
    // A write that is slow long after did not.
    events.compare_report(9000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    events.record_wait(9500, Some(7_000_000));
    events.compare_report(10_000, &report(&["-n1", "n2", "n3"], &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events).len(), 2, "{:?}", texts(&events));
    assert_eq!(texts(&events)[0], "n1 lost, n2 leads, writes waited 1.2 s");
    events.compare_report(20_000, &report(&ALL, &["n2", "n2", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 answers again");
}

#[test]
fn a_leader_replaced_before_its_loss_is_noticed_is_one_failover() {
    let mut events = Events::default();
    events.compare_report(1000, &report(&ALL, &["n1", "n1"], 4));
    events.compare_report(2000, &report(&ALL, &["n3", "n1"], 5));
    assert_eq!(texts(&events)[0], "n3 was elected coordinator in term 5");
    events.compare_report(5000, &report(&["-n1", "n2", "n3"], &["n3", "n2"], 5));
    assert_eq!(texts(&events)[0], "n1 lost, n2 and n3 lead");
    assert_eq!(texts(&events).len(), 2, "{:?}", texts(&events));
    // A leader that hands over and keeps answering is not a failover.
    events.compare_report(30_000, &report(&ALL, &["n3", "n2"], 5));
    events.compare_report(31_000, &report(&ALL, &["n1", "n2"], 6));
    events.compare_report(60_000, &report(&["-n3", "n2", "n1"], &["n1", "n2"], 6));
    assert_eq!(texts(&events)[0], "n3 does not answer");
}

#[test]
fn a_leader_that_returns_in_time_was_not_lost() {
    let mut events = Events::default();
    events.compare_report(1000, &report(&ALL, &["n1", "n1"], 4));
    events.compare_report(2000, &report(&["-n1", "n2", "n3"], &["", ""], 4));
    events.compare_report(4000, &report(&ALL, &["n1", "n1"], 4));
    assert!(
        texts(&events).contains(&"n1 did not answer for 2.0 s and still leads"),
        "{:?}",
        texts(&events)
    );
}

#[test]
fn other_changes_are_events() {
    let mut events = Events::default();
    events.compare_report(1000, &report(&ALL, &["n1", "n1"], 4));
    assert_eq!(texts(&events), ["watching; n1 is the coordinator"]);
    events.compare_report(2000, &report(&["n1", "n2", "-n3"], &["n1", "n1"], 4));
    assert_eq!(texts(&events)[0], "n3 does not answer");
    events.compare_report(3000, &report(&["n1", "-n2", "-n3"], &["n1", "n1"], 4));
    assert!(texts(&events).contains(&"a group has no majority"));
    events.compare_report(4000, &report(&["n1", "n2", "n3", "n4"], &["n1", "n2"], 4));
    for text in
        ["every group has a majority again", "n4 has joined", "n2 is the primary of shard 1"]
    {
        assert!(texts(&events).contains(&text), "{text} {:?}", texts(&events));
    }
    events.compare_report(5000, &report(&["n1", "n2"], &["n1", "n2"], 4));
    assert!(texts(&events).contains(&"n3 was removed"));
    events.record_reads(6000, Some("nobody answers"));
    events.record_reads(7000, Some("nobody answers still"));
    assert_eq!(texts(&events)[0], "strong reads fail: nobody answers");
    events.record_reads(8000, None);
    assert_eq!(texts(&events)[0], "strong reads succeed again");
    for at_ms in 0..2 * EVENTS_MAX as u64 {
        events.record_reads(at_ms, (at_ms % 2 == 0).then_some("x"));
    }
    assert_eq!(events.all().count(), EVENTS_MAX);
}
