//! Round trips of bytes, and invalid members.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn bytes_survive_a_round_trip(bytes: Vec<u8>, base64: bool) {
        let mut object = Map::new();
        put(&mut object, "key", &bytes, if base64 { Encoding::Base64 } else { Encoding::Text });
        prop_assert_eq!(object.len(), 1);
        let mut member = |name: &str| Some(object.remove(name)?.as_str()?.to_owned());
        let (text, encoded) = (member("key"), member("key_base64"));
        prop_assert_eq!(take("key", text, encoded), Ok(Some(bytes)));
    }
}

#[test]
fn members_that_are_not_bytes_are_refused() {
    assert_eq!(take("key", None, None), Ok(None));
    assert!(take("key", None, Some("/w".into())).is_err());
    assert!(take("key", Some("a".into()), Some("YQ==".into())).is_err());
}
