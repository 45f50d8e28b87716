//! Bytes in JSON, which can hold only text.
//!
//! Bytes that are UTF-8 become a string under their name, as in `"key": "color"`. Others become
//! base64 (RFC 4648, section 4) under a name that says so, as in `"key_base64": "/w=="`. Exactly
//! one of the two members is present, and usually it is the readable one. A caller that prefers one
//! form throughout asks for `encoding=base64`.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As text if they are UTF-8, else as base64.
    #[default]
    Text,
    /// Always as base64.
    Base64,
}

/// Why two members do not make up bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// The member with the suffix `_base64` is not base64.
    #[error("{0}_base64 is not base64")]
    NotBase64(String),
    /// Both members are present.
    #[error("give either {0} or {0}_base64, not both")]
    Both(String),
}

/// Inserts bytes into an object under a name.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8], encoding: Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) if encoding == Encoding::Text => object.insert(name.to_owned(), text.into()),
        _ => object.insert(format!("{name}_base64"), BASE64.encode(bytes).into()),
    };
}

/// Returns the bytes of the member that is present, or `None` if neither is.
///
/// # Errors
/// See [`BytesError`].
pub fn take(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, BytesError> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(BytesError::NotBase64(name.to_owned())),
        },
        (Some(_), Some(_)) => Err(BytesError::Both(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
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
}
