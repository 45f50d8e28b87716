//! Shell-like quoting of bytes.
//!
//! Blanks separate words. Single quotes keep everything literally. A backslash keeps the next byte
//! literally, in double quotes and outside of quotes; in double quotes, `\n`, `\t`, `\r`, `\0` and
//! `\xNN` mean what they mean in Rust, so that every byte can be written.

/// An unclosed quote, or an incomplete escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The text ends within quotes.
    #[error("a quote {0} is not closed")]
    Open(char),
    /// The text ends after a backslash.
    #[error("nothing follows the last backslash")]
    Backslash,
    /// `\x` without two hexadecimal digits.
    #[error("\\x needs two hexadecimal digits")]
    Hexadecimal,
}

/// Splits a text into words and removes the quotes.
///
/// # Errors
/// See [`QuoteError`].
pub fn split(text: &[u8]) -> Result<Vec<Vec<u8>>, QuoteError> {
    let mut words = Vec::new();
    let mut bytes = text.iter().copied();
    let mut word: Option<Vec<u8>> = None;
    while let Some(byte) = bytes.next() {
        match byte {
            _ if byte.is_ascii_whitespace() => words.extend(word.take()),
            b'\'' => single_quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => {
                let escaped = bytes.next().ok_or(QuoteError::Backslash)?;
                word.get_or_insert_default().push(escaped);
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(
    bytes: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), QuoteError> {
    loop {
        match bytes.next().ok_or(QuoteError::Open('\''))? {
            b'\'' => return Ok(()),
            byte => word.push(byte),
        }
    }
}

fn double_quoted(
    bytes: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), QuoteError> {
    loop {
        match bytes.next().ok_or(QuoteError::Open('"'))? {
            b'"' => return Ok(()),
            b'\\' => word.push(match bytes.next().ok_or(QuoteError::Open('"'))? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'0' => 0,
                b'x' => {
                    let digits = [digit(bytes.next())?, digit(bytes.next())?];
                    digits[0] * 16 + digits[1]
                }
                byte => byte,
            }),
            byte => word.push(byte),
        }
    }
}

fn digit(byte: Option<u8>) -> Result<u8, QuoteError> {
    let digit = byte.and_then(|byte| char::from(byte).to_digit(16));
    digit.map(|digit| digit as u8).ok_or(QuoteError::Hexadecimal)
}

/// Quotes a word, if necessary, so that [`split`] returns it unchanged.
pub fn quoted(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:@+=%".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    let mut text = String::from("\"");
    for chunk in word.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                _ => push_visible(&mut text, character),
            }
        }
        push_hexadecimal(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}

/// Escapes bytes for display: on one line, and unable to control a terminal.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|character| push_visible(&mut text, character));
        push_hexadecimal(&mut text, chunk.invalid());
    }
    text
}

fn push_visible(text: &mut String, character: char) {
    match character {
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        _ if is_unsafe_for_terminals(character) => {
            let mut buffer = [0; 4];
            push_hexadecimal(text, character.encode_utf8(&mut buffer).as_bytes());
        }
        _ => text.push(character),
    }
}

fn push_hexadecimal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

/// Returns whether a character could control a terminal, or reverse the text beside it.
pub fn is_unsafe_for_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
