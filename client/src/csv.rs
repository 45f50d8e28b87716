//! Records of a key and a value with a comma between them, as RFC 4180 has them (section 2, rules 5
//! to 7): a field in double quotes may hold anything, with each quote doubled. Any bytes are taken.

/// Why a text is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsvError {
    /// A field that begins with a quote has no second one.
    #[error("a quote is not closed")]
    Open,
    /// A field in quotes ends, and no comma follows.
    #[error("something follows a closing quote")]
    Behind,
    /// There is one field.
    #[error("there is no comma after the key")]
    NoComma,
}

/// A record in one line, or several if it has line feeds; without the end of the last one.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(key.len() + value.len() + 8);
    field(key, &mut line);
    line.push(b',');
    field(value, &mut line);
    line
}

/// One field, in quotes if it needs them. So does what is no plain text: at the beginning of a file
/// it could be taken for a byte order mark, or for the mark of another kind of file.
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

/// Reads a record: key and value. A value without quotes around all of it has every comma that is
/// left.
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

/// A field and what follows its comma.
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
            (b'"', Some(_)) => return Err(CsvError::Behind),
            (byte, _) => {
                field.push(*byte);
                index += 1;
            }
        }
    }
    Err(CsvError::Open)
}

/// Where in a record a reader is that goes through it byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Within {
    /// At the beginning of the key.
    #[default]
    Key,
    /// In a key without quotes.
    BareKey,
    /// In the quotes of the key.
    KeyQuotes,
    /// Behind a quote in them.
    KeyQuote,
    /// At the beginning of the value.
    Value,
    /// In the quotes of the value.
    ValueQuotes,
    /// Behind a quote in them.
    ValueQuote,
    /// Where quotes and commas mean nothing any more.
    Rest,
}

impl Within {
    /// Goes on over these bytes.
    pub(crate) fn over(self, bytes: &[u8]) -> Self {
        use Within::{BareKey, Key, KeyQuote, KeyQuotes, Rest, Value, ValueQuote, ValueQuotes};
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

    /// Whether an end of a line is a part of the record.
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
        fn a_record_is_read_as_it_was_written(key in bytes(), value in bytes()) {
            let text = record(&key, &value);
            prop_assert!(!Within::default().over(&text).is_open());
            let open = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (at, _) in open {
                prop_assert!(Within::default().over(&text[..at]).is_open());
            }
            prop_assert_eq!(parse(&text), Ok((key, value)));
        }

        #[test]
        fn no_text_is_too_strange(text in bytes()) {
            let open = Within::default().over(&text).is_open();
            prop_assert_eq!(parse(&text) == Err(CsvError::Open), open);
        }
    }
}
