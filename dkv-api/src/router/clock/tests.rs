use std::collections::BTreeSet;

use super::*;

#[test]
fn clients_that_saw_the_same_stamp_make_different_ones() {
    let seen = Stamp::at(Duration::from_secs(1_000));
    let mut made = BTreeSet::new();
    for seed in 0..10 {
        let mut clock = NetworkClock::new(seed);
        assert_eq!(clock.stamp(Duration::ZERO), Stamp(0), "there is no reading yet");
        clock.set(Duration::ZERO, Stamp::at(Duration::from_secs(999)));
        clock.observe(seen, true);
        let stamps = [clock.stamp(Duration::ZERO), clock.stamp(Duration::ZERO)];
        assert!(seen < stamps[0] && stamps[0] < stamps[1]);
        assert!(stamps[1].since_1970() - seen.since_1970() < Duration::from_micros(10));
        made.extend(stamps);
    }
    assert_eq!(made.len(), 20);
}
