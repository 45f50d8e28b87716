//! The two output streams of a command: results on stdout, errors and notes on stderr.
//!
//! Results and errors take one line each. Colour and other decoration appear only on a terminal,
//! and never if `NO_COLOR` is set. A terminal gets everything that comes from the network escaped
//! (keys, values, names and errors), so that none of it can control the terminal; a pipe gets
//! results unchanged. Everything on stderr is escaped.
//!
//! Functions that write to stdout return the error if that fails, and [`broken`] turns it into a
//! problem to report. A closed stderr is ignored: no reader is left.
//!
//! For programs (`--output json`) every result and every problem is a JSON document, and notes such
//! as progress are omitted.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use dkv_base::sync::lock;
use serde_json::{Value, json};

use crate::closed_streams;
use crate::problem::{Problem, effect_of, unreported_change};
use crate::quote::is_unsafe_for_terminals;

/// The meaning of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// No emphasis.
    Plain,
    /// A side note.
    Dim,
    /// A heading.
    Strong,
    /// Healthy.
    Good,
    /// Needs attention.
    Warning,
    /// Broken.
    Bad,
}

/// The two streams of a process.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether stdout is a terminal.
    pub terminal: bool,
    /// Whether stdout takes colour.
    pub colour: bool,
    /// Whether stdout was already closed when the process started.
    pub closed: bool,
    /// Number of the input line that is running, if commands come from a pipe.
    pub input_line: Option<u64>,
    /// Whether results are JSON documents.
    pub json: bool,
    err_colour: bool,
    /// Width to use in place of the terminal's.
    fixed_width: Option<usize>,
}

impl Console {
    /// The output streams of this process.
    pub fn of_process() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let terminal = io::stdout().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal,
            closed: closed_streams::is_output_closed(),
            input_line: None,
            colour: terminal && !no_colour,
            json: false,
            err_colour: io::stderr().is_terminal() && !no_colour,
            fixed_width: None,
        }
    }

    /// Other streams, neither of them a terminal.
    pub fn of(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            terminal: false,
            closed: false,
            input_line: None,
            colour: false,
            json: false,
            err_colour: false,
            fixed_width: None,
        }
    }

    /// Returns the width for tables, in columns; `None` if there is no limit.
    pub fn width(&self) -> Option<usize> {
        let measured = || terminal_size::terminal_size().map(|(width, _)| width.0.into());
        self.fixed_width.or_else(|| self.terminal.then(measured).flatten())
    }

    /// Colours a text for stdout.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.colour, tone, text)
    }

    /// Prints a result: a text for people, or a document for programs.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn result(&mut self, text: &str, document: impl FnOnce() -> Value) -> io::Result<()> {
        if self.json {
            self.document(&document())?;
            return self.out.flush();
        }
        self.line(text)
    }

    /// Prints the result of a change. If that fails, the error says that the change was made.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn changed(&mut self, text: &str, document: impl FnOnce() -> Value) -> io::Result<()> {
        let told = self.result(text, document);
        told.map_err(|error| unreported_change(text.lines().next().unwrap_or_default(), error))
    }

    /// Prints a document in one line, without flushing it.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn document(&mut self, document: &Value) -> io::Result<()> {
        let text = document.to_string();
        let text = if self.terminal { for_terminal(text.as_bytes()) } else { text };
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Prints a text unchanged.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Prints bytes unchanged, as the result of a command that prints nothing else.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.flush()
    }

    /// Prints a line of results.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            self.document(&json!({ "message": text }))?;
            return self.out.flush();
        }
        if self.terminal {
            self.out.write_all(escaped(text).as_bytes())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.write_all(b"\n")?;
        self.out.flush()
    }

    /// Prints a value and a newline. On a terminal, a remark follows the value.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn value(&mut self, value: &[u8], remark: &str) -> io::Result<()> {
        if self.terminal {
            self.out.write_all(for_terminal(value).as_bytes())?;
        } else {
            self.out.write_all(value)?;
        }
        if self.terminal && !remark.is_empty() {
            let remark = self.paint(Tone::Dim, remark);
            self.out.write_all(format!("  {remark}").as_bytes())?;
        }
        self.out.write_all(b"\n")?;
        self.out.flush()
    }

    /// Prints a record of a list, without flushing it.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        if self.terminal {
            self.out.write_all(for_terminal(record).as_bytes())?;
        } else {
            self.out.write_all(record)?;
        }
        self.out.write_all(b"\n")
    }

    /// Flushes stdout.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Prints a note that is not a result, such as progress. Programs do not get it.
    pub fn note(&mut self, text: &str) {
        if self.json {
            return;
        }
        let text = paint(self.err_colour, Tone::Dim, &escaped(text));
        // A closed stderr has no reader.
        let _ = writeln!(self.err, "{text}");
    }

    /// Prints a remark that changes what a result means, such as what was left out. Programs get it
    /// as a JSON document.
    pub fn remark(&mut self, text: &str) {
        if self.json {
            // A closed stderr has no reader.
            let _ = writeln!(self.err, "{}", json!({ "note": text }));
            return;
        }
        self.note(text);
    }

    /// Reports a problem.
    pub fn problem(&mut self, problem: &Problem) {
        let problem = match self.input_line {
            Some(line) => &problem.clone().at_line(line),
            None => problem,
        };
        if self.json {
            // A closed stderr has no reader.
            let _ = writeln!(self.err, "{}", problem.document());
            return;
        }
        self.say(&problem.message);
    }

    /// Reports a failure in one line: what went wrong, and what to do about it.
    pub fn error(&mut self, text: &str) {
        self.problem(&Problem::failed(text));
    }

    fn say(&mut self, text: &str) {
        let label = paint(self.err_colour, Tone::Bad, "error:");
        let line = text.replace(char::is_whitespace, " ");
        let line = escaped(&line);
        // A closed stderr has no reader.
        let _ = writeln!(self.err, "{label} {line}");
    }
}

/// Returns the problem with an output that cannot be written, or `None` if its reader has gone.
pub fn broken(error: &io::Error) -> Option<Problem> {
    (error.kind() != io::ErrorKind::BrokenPipe).then(|| {
        let problem = Problem::failed(format!("cannot write to standard output: {error}"));
        problem.with_effect(effect_of(error))
    })
}

/// Colours a text.
pub fn paint(colour: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Dim => "2",
        Tone::Strong => "1",
        Tone::Good => "32",
        Tone::Warning => "33",
        Tone::Bad => "1;31",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Escapes a text so that nothing in it controls a terminal except the colours of this program.
fn escaped(text: &str) -> String {
    const OURS: [&str; 6] = ["\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"];
    if !text.chars().any(|it| is_unsafe_for_terminals(it) && it != '\n') {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let ours = OURS.iter().find(|code| rest.starts_with(**code));
        let (taken, after) = rest.split_at(ours.map_or(first.len_utf8(), |code| code.len()));
        match ours {
            Some(code) => shown.push_str(code),
            None => shown.push_str(&for_terminal(taken.as_bytes())),
        }
        rest = after;
    }
    shown
}

/// Escapes everything in a value that controls a terminal, except line feeds and tabs.
fn for_terminal(value: &[u8]) -> String {
    let mut text = String::new();
    let escape = |text: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    };
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unsafe_for_terminals(character) && !matches!(character, '\n' | '\t') {
                escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// A buffer that a test can read while a [`Console`] writes to it.
#[derive(Clone, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    /// Returns what was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.0).clone()
    }

    /// Returns what was written so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_raw_bytes_and_a_terminal_gets_them_escaped() {
        let out = Buffer::default();
        let mut console = Console::of(out.clone(), io::sink());
        console.value(b"a\xff\x1b", "0.3 ms").unwrap();
        assert_eq!(out.bytes(), b"a\xff\x1b\n");
        console.terminal = true;
        console.value(b"a\xff\x1b[2J\n\tb", "0.3 ms").unwrap();
        assert_eq!(out.bytes()[4..], *b"a\\xff\\x1b[2J\n\tb  0.3 ms\n");
    }

    #[test]
    fn colour_is_optional_and_errors_are_one_line() {
        assert_eq!(paint(true, Tone::Good, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(paint(false, Tone::Good, "x"), "x");
        let err = Buffer::default();
        Console::of(io::sink(), err.clone()).error("a\nb\x1b");
        assert_eq!(err.text(), "error: a b\\x1b\n");
    }

    #[test]
    fn programs_get_remarks_and_no_notes() {
        let err = Buffer::default();
        let mut console = Console::of(io::sink(), err.clone());
        console.json = true;
        console.note("half of it");
        console.remark("without \"a\"");
        assert_eq!(err.text(), "{\"note\":\"without \\\"a\\\"\"}\n");
    }

    #[test]
    fn foreign_text_cannot_control_a_terminal() {
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut console = Console::of(out.clone(), err.clone());
        let hostile = "n1\x1b]0;owned\x07\u{202e}\u{9b}2J\r";
        console.terminal = true;
        console.line(&paint(true, Tone::Good, hostile)).unwrap();
        console.note(hostile);
        console.error(hostile);
        let said = out.text() + &err.text();
        let shown = "n1\\x1b]0;owned\\x07\\xe2\\x80\\xae\\xc2\\x9b2J";
        assert_eq!(said.matches(shown).count(), 3, "{said:?}");
        let bare = said.replace("\x1b[32m", "").replace("\x1b[0m", "").replace('\n', "");
        assert!(!bare.chars().any(is_unsafe_for_terminals), "{said:?}");
    }
}
