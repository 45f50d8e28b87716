//! The comma form: `R,<key>`, `W,<key>,<value>`, `D,<key>`, `H,<key>`, `T,<ms>`.
//!
//! The letter is upper case. The key ends at the next comma; everything after it is the value,
//! including commas and spaces. A key that contains a comma needs the word form.

use dkv_wire::message::Condition;

use super::{Command, GrammarError, History, Key, ReadParameters, WAIT_MS_MAX, quote};

/// All comma forms, for messages.
pub(super) const FORMS: &str = "R,<key> W,<key>,<value> D,<key> H,<key> T,<ms>";

/// Returns whether a text is in the comma form: its first comma comes before any blank or quote, or
/// it is only the letter.
pub(super) fn is_comma_form(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| matches!(byte, b',' | b'"' | b'\'' | b'\\'));
    let end_of_word = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    match end {
        Some(end) if text[end] == b',' => end < end_of_word,
        _ => form(text).is_some(),
    }
}

/// Returns whether a text looks like one of these commands, even a malformed one: one of their
/// letters and a comma.
pub(crate) fn is_command(text: &[u8]) -> bool {
    matches!(text, [letter, b',', ..] if form(&[letter.to_ascii_uppercase()]).is_some())
}

/// Reads a command in the comma form.
pub(super) fn command(text: &[u8]) -> Result<Command, GrammarError> {
    let mut parts = text.splitn(2, |byte| *byte == b',');
    let letter = parts.next().unwrap_or_default();
    let Some(form) = form(letter) else {
        return Err(unknown(letter, parts.next()));
    };
    let Some(rest) = parts.next() else {
        return Err(GrammarError::new("the key is missing", format!("write {form}")));
    };
    match letter {
        b"R" => {
            Ok(Command::Read { key: whole_key(rest, form, "get")?, how: ReadParameters::default() })
        }
        b"D" => Ok(Command::Delete {
            key: whole_key(rest, form, "delete")?,
            level: None,
            condition: Condition::Always,
        }),
        b"H" => Ok(Command::History(History {
            key: whole_key(rest, form, "history")?,
            before: None,
            limit: None,
            json: false,
        })),
        b"W" => {
            let Some(comma) = rest.iter().position(|byte| *byte == b',') else {
                return Err(GrammarError::new("the value is missing", format!("write {form}")));
            };
            let (key, value) = (&rest[..comma], &rest[comma + 1..]);
            Ok(Command::Write {
                key: key_of(key, form)?,
                value: value.to_vec().into(),
                level: None,
                condition: Condition::Always,
                attach: None,
            })
        }
        _ => Ok(Command::Wait { ms: milliseconds(rest, form)? }),
    }
}

/// Returns the form of a letter.
fn form(letter: &[u8]) -> Option<&'static str> {
    match letter {
        b"R" => Some("R,<key>"),
        b"W" => Some("W,<key>,<value>"),
        b"D" => Some("D,<key>"),
        b"H" => Some("H,<key>"),
        b"T" => Some("T,<ms>"),
        _ => None,
    }
}

fn unknown(letter: &[u8], rest: Option<&[u8]>) -> GrammarError {
    if form(&letter.to_ascii_uppercase()).is_some() {
        let upper = quote::escaped(&letter.to_ascii_uppercase());
        let mut rest = quote::escaped(rest.unwrap_or_default());
        if rest.chars().count() > 48 {
            rest = "…".into();
        }
        return GrammarError::new("commands are in upper case", format!("write {upper},{rest}"));
    }
    GrammarError::new(
        format!("there is no command {}", quote::escaped(letter)),
        format!("write one of {FORMS}"),
    )
}

/// Parses the rest of the text as a key, which contains no comma in this form.
fn whole_key(rest: &[u8], form: &str, word: &str) -> Result<Key, GrammarError> {
    if rest.contains(&b',') {
        return Err(GrammarError::new(
            "a key in this form cannot contain a comma",
            format!("write {form}, or in words {word} {}", quote::quoted(rest)),
        ));
    }
    key_of(rest, form)
}

fn key_of(bytes: &[u8], form: &str) -> Result<Key, GrammarError> {
    Key::new(bytes).map_err(|error| GrammarError::new(error.to_string(), format!("write {form}")))
}

/// Parses a time to wait.
pub(super) fn milliseconds(text: &[u8], form: &str) -> Result<u64, GrammarError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match number {
        Some(ms) if ms <= WAIT_MS_MAX => Ok(ms),
        _ => Err(GrammarError::new(
            format!(
                "{:?} is not a number of milliseconds from 0 to {WAIT_MS_MAX}, which is a day",
                quote::escaped(text)
            ),
            format!("write {form}"),
        )),
    }
}
