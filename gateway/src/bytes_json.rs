//! Bytes in JSON, which can hold only text; and whole numbers.
//!
//! Bytes that are UTF-8 become a string under their name, as in `"key": "color"`. Others become
//! base64 (RFC 4648, section 4) under a name that says so, as in `"key_base64": "/w=="`. Exactly
//! one of the two members is present, and usually it is the readable one. A caller that prefers one
//! form throughout asks for `encoding=base64`.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Map, Number, Value};

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

/// Converts a whole number from zero to 64 bits. In JSON, `7.0` is one too.
pub(crate) fn whole(number: &Number) -> Option<u64> {
    /// Two to the power of 64.
    const END: f64 = 18_446_744_073_709_551_616.0;
    let float = number.as_f64().filter(|it| it.fract() == 0.0 && (0.0..END).contains(it));
    number.as_u64().or(float.map(|it| it as u64))
}

/// Converts a whole number of 64 signed bits, as [`whole`] does.
pub(crate) fn signed(number: &Number) -> Option<i64> {
    /// Two to the power of 63.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let float = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < END);
    number.as_i64().or(float.map(|it| it as i64))
}

#[cfg(test)]
mod tests;
