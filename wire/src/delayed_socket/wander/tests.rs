use proptest::prelude::*;

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Pseudo-random numbers (SplitMix64).
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

proptest! {
    /// Whenever a datagram is sent, it is late by no more than twice the average, and arrives no
    /// earlier than what was sent before.
    #[test]
    fn no_datagram_overtakes_another(
        average in 0..1000_u64,
        seed in any::<u64>(),
        pauses in prop::collection::vec(prop_oneof![0..50_000_u64, 0..9_000_000_u64], 0..60),
    ) {
        let (mut wander, mut random) = (Wander::new(ms(average), true), numbers(seed));
        let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
        for pause in pauses {
            now += Duration::from_micros(pause);
            let delay = wander.delay(now, &mut random);
            prop_assert!(delay <= ms(2 * average), "{delay:?}");
            prop_assert!(now + delay >= last, "{now:?} {delay:?} {last:?}");
            last = now + delay;
        }
    }
}

/// In the long run every delay from zero to twice the average is equally frequent.
#[test]
fn every_delay_is_equally_likely() {
    for spacing in [ms(40), ms(20_000)] {
        let (mut wander, mut random) = (Wander::new(ms(100), true), numbers(7));
        let mut tenths = [0_u32; 10];
        let mut now = Duration::ZERO;
        for _ in 0..100_000 {
            now += spacing;
            let delay = wander.delay(now, &mut random);
            tenths[(delay.as_micros() / 20_000).min(9) as usize] += 1;
        }
        for count in tenths {
            assert!((9_000..11_000).contains(&count), "{spacing:?}: {tenths:?}");
        }
    }
}
