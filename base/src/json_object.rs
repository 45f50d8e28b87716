//! Objects of JSON lines, written field by field.

use std::fmt::{self, Write};

/// A JSON object that grows field by field.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.string(name);
        self.0.push(':');
    }

    /// Writes a text.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.string(value);
    }

    /// Writes a value whose text is its JSON form.
    pub(crate) fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // Writing to a string never fails.
        let _ = write!(self.0, "{value}");
    }

    fn string(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\t' => self.0.push_str("\\t"),
                control if control < ' ' || control == '\u{7f}' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(control));
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }

    /// Returns the text of the object.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_escaped() {
        let mut object = Object::default();
        object.text("a \"key\"", "line\nbreak \\ \u{1b}[31m ü");
        object.plain("ms", 12);
        let line = object.end();
        assert_eq!(line, r#"{"a \"key\"":"line\nbreak \\ \u001b[31m ü","ms":12}"#);
    }
}
