//! Bytes in JSON, which has text only.
//!
//! Bytes that are UTF-8 are a string under their name, as in `"key": "color"`. Others are base64
//! (RFC 4648, section 4) under a name that says so, as in `"key_base64": "/w=="`. So one of the two
//! is there, and most of the time it is the one that people can read. Who would rather have one
//! form always asks for `encoding=base64`.

use data_encoding::BASE64;
use serde_json::{Map, Value};

/// How bytes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// As text if they are text.
    #[default]
    Text,
    /// As base64.
    Base64,
}

/// Puts bytes into an object under a name.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8], shown: Shown) {
    match std::str::from_utf8(bytes) {
        Ok(text) if shown == Shown::Text => object.insert(name.to_owned(), text.into()),
        _ => object.insert(format!("{name}_base64"), BASE64.encode(bytes).into()),
    };
}

/// The bytes that two members stand for, of which one may be there.
///
/// # Errors
/// What is wrong with them, in one line.
pub fn take(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(format!("{name}_base64 is no base64")),
        },
        (Some(_), Some(_)) => Err(format!("there is {name} or {name}_base64, not both")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(bytes: Vec<u8>, base64: bool) {
            let mut object = Map::new();
            put(&mut object, "key", &bytes, if base64 { Shown::Base64 } else { Shown::Text });
            prop_assert_eq!(object.len(), 1);
            let mut member = |name: &str| Some(object.remove(name)?.as_str()?.to_owned());
            let (text, encoded) = (member("key"), member("key_base64"));
            prop_assert_eq!(take("key", text, encoded), Ok(Some(bytes)));
        }
    }

    #[test]
    fn what_is_no_bytes() {
        assert_eq!(take("key", None, None), Ok(None));
        assert!(take("key", None, Some("/w".into())).is_err());
        assert!(take("key", Some("a".into()), Some("YQ==".into())).is_err());
    }
}
