//! Encoding of values as bytes: postcard, with stricter decoding.
//!
//! Decoding never trusts its input. Lengths are checked against the bytes present before anything
//! is allocated, and trailing bytes make the whole value invalid. No message type is recursive, so
//! no input can exhaust the stack.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Why bytes do not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are cut short, out of range, or of another type.
    #[error("malformed message: {0}")]
    Malformed(postcard::Error),
    /// A valid value is followed by this many bytes.
    #[error("malformed message: {0} bytes after its end")]
    Trailing(usize),
}

/// Encodes a value.
///
/// # Panics
/// Never for our own types. Postcard fails only on sequences of unknown length and map keys of
/// unsupported types, and no message has either; each has a round-trip test.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(encode_vec(value))
}

/// Encodes a value into a vector; see [`encode`].
pub fn encode_vec<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_allocvec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("a message that cannot be encoded: {error}"),
    }
}

/// Appends an encoded value to a buffer; see [`encode`].
pub fn encode_into<T: Serialize>(value: &T, buffer: Vec<u8>) -> Vec<u8> {
    match postcard::to_extend(value, buffer) {
        Ok(buffer) => buffer,
        Err(error) => unreachable!("a message that cannot be encoded: {error}"),
    }
}

/// Encodes a value that ends with a byte string, without copying the content of that string.
/// `value` has an empty string in its place and `ending` holds the content; the returned parts
/// together are the encoding.
///
/// # Panics
/// In debug builds, if `value` does not end with an empty byte string.
pub fn encode_ending<T: Serialize>(value: &T, ending: Vec<Bytes>) -> Vec<Bytes> {
    let mut head = encode_vec(value);
    let empty = head.pop();
    debug_assert_eq!(empty, Some(0), "it does not end with an empty byte string");
    let length: usize = ending.iter().map(Bytes::len).sum();
    let mut parts = vec![Bytes::from(encode_into(&length, head))];
    parts.extend(ending);
    parts
}

/// Decodes a value that fills `bytes` exactly.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(DecodeError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

/// Decodes a value from the front of `bytes` and returns it with the remaining bytes.
///
/// # Errors
/// If the front of `bytes` is not such a value.
pub fn decode_prefix<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(DecodeError::Malformed)
}

#[cfg(test)]
mod tests;
