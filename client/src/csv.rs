//! CSV records of a key and a value, as in RFC 4180 (section 2, rules 5 to 7): a field in double
//! quotes may contain anything, with each quote doubled. All bytes are accepted.

/// Why a text is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsvError {
    /// A quoted field has no closing quote.
    #[error("a quote is not closed")]
    Unclosed,
    /// Text other than a comma follows a quoted field.
    #[error("text follows a closing quote")]
    TextAfterQuote,
    /// There is only one field.
    #[error("there is no comma after the key")]
    NoComma,
}

/// Returns a record without its final line feed. It has several lines if a field contains line
/// feeds.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(key.len() + value.len() + 8);
    field(key, &mut line);
    line.push(b',');
    field(value, &mut line);
    line
}

/// Appends a field, in quotes if necessary. Fields that are not plain text get quotes, too: at the
/// beginning of a file they could look like a byte order mark, or like another file format.
pub(crate) fn field(bytes: &[u8], line: &mut Vec<u8>) {
    let special = |byte: &u8| *byte < b' ' || matches!(byte, b',' | b'"');
    let plain = !bytes.iter().any(special)
        && !bytes.starts_with(b"\xef\xbb\xbf")
        && !bytes.starts_with(b"BZh")
        && std::str::from_utf8(bytes).is_ok();
    if plain {
        return line.extend_from_slice(bytes);
    }
    line.push(b'"');
    for byte in bytes {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}

/// Parses a record into key and value. A value that is not entirely in quotes includes all
/// remaining commas.
///
/// # Errors
/// See [`CsvError`].
pub(crate) fn parse(text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), CsvError> {
    let (key, rest) = first(text)?;
    let rest = rest.ok_or(CsvError::NoComma)?;
    let value = match first(rest) {
        Ok((value, None)) if rest.starts_with(b"\"") => value,
        Err(error) => return Err(error),
        _ => rest.to_vec(),
    };
    Ok((key, value))
}

/// Splits off the first field. Returns it with the text after its comma.
fn first(text: &[u8]) -> Result<(Vec<u8>, Option<&[u8]>), CsvError> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let comma = text.iter().position(|byte| *byte == b',');
        return Ok(match comma {
            Some(comma) => (text[..comma].to_vec(), Some(&text[comma + 1..])),
            None => (text.to_vec(), None),
        });
    };
    let mut field = Vec::new();
    let mut index = 0;
    while let Some(byte) = quoted.get(index) {
        match (byte, quoted.get(index + 1)) {
            (b'"', Some(b'"')) => {
                field.push(b'"');
                index += 2;
            }
            (b'"', Some(b',')) => return Ok((field, Some(&quoted[index + 2..]))),
            (b'"', None) => return Ok((field, None)),
            (b'"', Some(_)) => return Err(CsvError::TextAfterQuote),
            (byte, _) => {
                field.push(*byte);
                index += 1;
            }
        }
    }
    Err(CsvError::Unclosed)
}

/// State of a parser that goes through a record byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ParserState {
    /// At the beginning of the key.
    #[default]
    Key,
    /// In a key without quotes.
    BareKey,
    /// Inside a quoted key.
    KeyQuotes,
    /// After a quote inside it.
    KeyQuote,
    /// At the beginning of the value.
    Value,
    /// Inside a quoted value.
    ValueQuotes,
    /// After a quote inside it.
    ValueQuote,
    /// Where quotes and commas have no meaning any more.
    Rest,
}

impl ParserState {
    /// Returns the state after these bytes.
    pub(crate) fn over(self, bytes: &[u8]) -> Self {
        use ParserState::{
            BareKey, Key, KeyQuote, KeyQuotes, Rest, Value, ValueQuote, ValueQuotes,
        };
        bytes.iter().fold(self, |within, byte| match (within, byte) {
            (Key, b'"') | (KeyQuote, b'"') => KeyQuotes,
            (Key | BareKey | KeyQuote, b',') => Value,
            (Key | BareKey, _) => BareKey,
            (KeyQuotes, b'"') => KeyQuote,
            (KeyQuotes, _) => KeyQuotes,
            (Value, b'"') | (ValueQuote, b'"') => ValueQuotes,
            (ValueQuotes, b'"') => ValueQuote,
            (ValueQuotes, _) => ValueQuotes,
            (KeyQuote | Value | ValueQuote | Rest, _) => Rest,
        })
    }

    /// Returns whether a line feed would be part of the record.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::KeyQuotes | Self::ValueQuotes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![prop::sample::select(b"a,\"\r\n".to_vec()), any::<u8>()];
        prop::collection::vec(byte, 0..12)
    }

    proptest! {
        #[test]
        fn records_round_trip(key in bytes(), value in bytes()) {
            let text = record(&key, &value);
            prop_assert!(!ParserState::default().over(&text).is_open());
            let open = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (at, _) in open {
                prop_assert!(ParserState::default().over(&text[..at]).is_open());
            }
            prop_assert_eq!(parse(&text), Ok((key, value)));
        }

        #[test]
        fn any_text_parses_or_fails_cleanly(text in bytes()) {
            let open = ParserState::default().over(&text).is_open();
            prop_assert_eq!(parse(&text) == Err(CsvError::Unclosed), open);
        }
    }
}
