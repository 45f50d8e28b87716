//! Names that people give to nodes and tokens.
//!
//! A name ends up in terminals, logs and command lines of other people, so it consists of
//! characters without a special meaning to any of them: no control characters, no spaces, nothing
//! that changes the direction of text.

use crate::limits::NAME_BYTES_MAX;

/// A text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a name: {NAME_RULE}")]
pub struct NameError(pub(crate) String);

/// The rule for names, for error messages; it repeats [`NAME_BYTES_MAX`].
pub(crate) const NAME_RULE: &str =
    "a name has 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or digit";

/// Checks that a text is a valid name.
///
/// # Errors
/// If it is not. The error quotes the beginning of the text, escaped.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let good = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let starts = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if fits && starts && name.chars().all(good) {
        return Ok(());
    }
    Err(NameError(name.chars().take(NAME_BYTES_MAX).collect()))
}

/// Parses a name, as a command-line argument.
///
/// # Errors
/// If the text is not a valid name.
pub fn parse_name(name: &str) -> Result<String, NameError> {
    check_name(name).map(|()| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_a_terminal_interprets() {
        for good in ["n1", "N-1_a.b", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "-n", ".n", "a b", "a\x1b[2J", "a\nb", "a\u{202e}b", "n\u{e4}me", &long] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(!error.contains(['\x1b', '\n', '\u{202e}']), "{error}");
        }
    }
}
