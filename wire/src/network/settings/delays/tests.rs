use super::*;
use crate::network::Settings;

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
