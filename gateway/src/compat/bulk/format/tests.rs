//! Round trips of items.

use super::*;

#[test]
fn items_survive_a_round_trip() {
    let item = |encoding: &str, data: &str| Item { encoding: encoding.into(), data: data.into() };
    for good in [item("string", ""), item("string", "01é"), item("binary", "0110")] {
        assert_eq!(Item::from_stored(&good.stored().unwrap()), Some(good));
    }
    assert_ne!(item("string", "01").stored(), item("binary", "01").stored());
    for bad in [item("binary", "012"), item("String", "a"), item("", "a")] {
        assert_eq!(bad.stored(), None);
    }
    for bad in [&b""[..], b"x", b"s\xff"] {
        assert_eq!(Item::from_stored(bad), None);
    }
}
