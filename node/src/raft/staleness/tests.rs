use super::*;

const HEARTBEAT: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_state_is_as_old_as_the_last_time_that_it_was_complete() {
    let start = Instant::now();
    let mut staleness = Staleness::default();
    assert_eq!(staleness.age(start), None);
    staleness.heard(start, ms(0), 7);
    staleness.applied(6);
    assert_eq!(staleness.age(start + ms(10)), None);
    staleness.applied(7);
    assert_eq!(staleness.age(start + ms(10)), Some(ms(10)));
    staleness.heard(start + HEARTBEAT, ms(0), 7);
    staleness.applied(7);
    assert_eq!(staleness.age(start + ms(110)), Some(ms(10)));
}

#[test]
fn what_a_leader_without_a_majority_says_makes_nothing_fresh() {
    let start = Instant::now();
    let mut staleness = Staleness::default();
    // A quorum confirms each heartbeat, one heartbeat later.
    staleness.heard(start, HEARTBEAT, 7);
    staleness.applied(7);
    assert_eq!(staleness.age(start), Some(HEARTBEAT));
    // Then only this replica hears the leader.
    for beat in 1..50 {
        let now = start + beat * HEARTBEAT;
        staleness.heard(now, (beat + 1) * HEARTBEAT, 7);
        staleness.applied(7);
        assert_eq!(staleness.age(now), Some((beat + 1) * HEARTBEAT));
    }
    // Another leader, which was isolated for longer, does not make the state older than it is known
    // to be.
    let now = start + ms(6000);
    staleness.heard(now, ms(60_000), 7);
    staleness.applied(7);
    assert_eq!(staleness.age(now), Some(ms(6000) + HEARTBEAT));
}

#[test]
fn a_state_that_is_always_behind_still_knows_how_far() {
    let start = Instant::now();
    let mut staleness = Staleness::default();
    // The replica applies entries that were committed three heartbeats ago, and never the newest.
    for beat in 0..100_u64 {
        let now = start + ms(100 * beat);
        staleness.heard(now, ms(0), 10 * beat);
        staleness.applied((10 * beat).saturating_sub(30));
        if beat > 10 {
            let age = staleness.age(now).unwrap();
            assert!((ms(300)..=ms(700)).contains(&age), "{age:?}");
        }
    }
}
