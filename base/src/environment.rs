//! Environment variables, of which blank ones count as not set: that is how unit files and charts
//! leave one out.

use std::ffi::{OsStr, OsString};

/// The value of a variable, unless it is unset or blank.
pub fn value(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !is_blank(value))
}

/// The value of a variable as text, unless it is unset, blank or not UTF-8.
pub fn text(name: impl AsRef<OsStr>) -> Option<String> {
    value(name)?.into_string().ok()
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_blank() {
        for (value, blank) in [("", true), (" ", true), ("\t\n", true), (" a", false)] {
            assert_eq!(is_blank(OsStr::new(value)), blank, "{value:?}");
        }
    }
}
