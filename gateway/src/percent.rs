//! Percent-encoding (RFC 3986, section 2.1) and URL-encoded forms.

use std::borrow::Cow;

/// A `%` is not followed by two hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a % in the path must be followed by two hexadecimal digits")]
pub struct BadPercent;

/// Decodes a part of a path. A plus stays a plus.
///
/// # Errors
/// [`BadPercent`].
pub fn decode(text: &[u8]) -> Result<Cow<'_, [u8]>, BadPercent> {
    if !text.contains(&b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (byte, after) = hexadecimal(rest).ok_or(BadPercent)?;
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    Ok(Cow::Owned(bytes))
}

/// Encodes bytes as a part of a query. Letters, digits and `-._~/` stay as they are.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Returns the first value of a field in a form (`application/x-www-form-urlencoded`), parsed as
/// the WHATWG URL standard says: a plus is a space, and a `%` that encodes nothing is a `%`.
pub fn form_field(form: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    form.split(|&byte| byte == b'&').find_map(|pair| {
        let cut = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let value = pair.get(cut + 1..).unwrap_or_default();
        (form_decode(&pair[..cut]) == name).then(|| form_decode(value))
    })
}

fn form_decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, hexadecimal(rest)) {
            (b'%', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    bytes
}

/// Parses two leading hexadecimal digits; returns their value and the rest.
fn hexadecimal(text: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let [high, low, rest @ ..] = text else { return None };
    Some((digit(high)? * 16 + digit(low)?, rest))
}

#[cfg(test)]
mod tests;
