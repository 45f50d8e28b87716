use dkv_base::id::NodeId;
use proptest::prelude::*;

use super::*;
use crate::network::{NodeState, Settings};

fn three() -> Delays {
    Delays {
        between: vec!["us-east".into(), "us-west".into(), "n7".into()],
        average_ms: vec![vec![0, 200, 600], vec![250, 1, 400], vec![0, 0, 0]],
        vary: false,
    }
}

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn node(name: &str, place: Option<&str>, port: u16) -> NodeInfo {
    NodeInfo {
        id: NodeId::random(),
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        region: place.map(region),
        state: NodeState::Live,
    }
}

#[test]
fn a_matrix_that_cannot_be_is_refused_with_what_is_wrong() {
    let check = |change: &dyn Fn(&mut Delays)| {
        let mut delays = three();
        change(&mut delays);
        let settings = Settings { delays, ..Settings::default() };
        settings.check().map_err(|error| error.to_string())
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(check(&|delays| *delays = Delays::default()), Ok(()));
    type Change<'a> = &'a dyn Fn(&mut Delays);
    let wrong: [(Change<'_>, &str); 8] = [
        (&|d| d.between[1] = "us-east".into(), "delays_between: names us-east twice"),
        (
            &|d| d.between[1].clear(),
            "delays_between: \"\" cannot be a region or a node's name: a name has 1 to 64 letters, digits, \
             '-', '_' or '.', and begins with a letter or digit",
        ),
        (
            &|d| d.between[1] = "us west".into(),
            "delays_between: \"us west\" cannot be a region or a node's name: a name has 1 to 64 letters, \
             digits, '-', '_' or '.', and begins with a letter or digit",
        ),
        (
            &|d| *d = Delays { vary: true, ..Delays::default() },
            "delays_vary: must be false without delays_between: there is no delay that could vary",
        ),
        (
            &|d| drop(d.average_ms.pop()),
            "delays_ms: must have a row for each of delays_between, that is 3, and has 2",
        ),
        (
            &|d| d.average_ms[1].push(1),
            "delays_ms: must have 3 numbers in the row of us-west, one for each of \
             delays_between, and has 4",
        ),
        (&|d| d.average_ms[0][2] = 1001, "delays_ms: must be at most 1000 each; us-east has 1001"),
        (
            &|d| d.between = (0..65).map(|number| number.to_string()).collect(),
            "delays_between: must be at most 64",
        ),
    ];
    for (change, expected) in wrong {
        assert_eq!(check(change), Err(expected.to_owned()));
    }
}

#[test]
fn each_way_has_its_own_delay() {
    let nodes = [
        node("a", Some("us-east"), 1),
        node("b", Some("us-west"), 2),
        // It has a place of its own, wherever its region is.
        node("n7", Some("us-east"), 3),
        node("c", Some("eu"), 4),
        node("d", None, 5),
    ];
    let delays = three();
    let ways = |own| -> Vec<(u16, u128, u128)> {
        let ways = delays.ways(own, &nodes);
        let ways = ways.into_iter();
        ways.map(|(to, way)| (to.port(), way.to.as_millis(), way.from.as_millis())).collect()
    };
    let east = delays.place(Some("somebody"), Some(&region("us-east")));
    assert_eq!(ways(east), [(2, 200, 250), (3, 600, 0)]);
    let west = delays.place(None, Some(&region("us-west")));
    assert_eq!(ways(west), [(1, 250, 200), (2, 1, 1), (3, 400, 0)]);
    assert_eq!(ways(delays.place(Some("d"), None)), []);
}

#[test]
fn a_region_without_delays_is_told_so() {
    let told = three().check_place(Some("a"), Some(&region("eu"))).unwrap_err().to_string();
    let expected =
        "this network has delays between us-east, us-west, n7, and none for the region eu";
    assert_eq!(told, expected);
    for (name, place) in [(Some("n7"), Some("eu")), (None, Some("us-west")), (Some("a"), None)] {
        assert_eq!(three().check_place(name, place.map(region).as_ref()), Ok(()));
    }
    assert_eq!(Delays::default().check_place(None, Some(&region("eu"))), Ok(()));
}

/// Numbers that seem random (SplitMix64).
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

proptest! {
    /// Whenever something is sent: it is late by no more than twice the average, and not before
    /// what was sent earlier.
    #[test]
    fn nothing_overtakes(
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

/// In the long run each delay from zero to twice the average is as frequent as any other.
#[test]
fn every_delay_is_as_likely_as_any_other() {
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
