//! Where results and errors go, and how they look there.
//!
//! Results go to stdout and errors to stderr, one line each. Colour, and whatever else is only for
//! eyes, appears only where a terminal is, and never when `NO_COLOR` is set. Whatever comes from
//! the network reaches a terminal escaped, keys, values, names and errors alike, so that none of it
//! can steer it; a pipe gets results as they are. What goes to stderr is escaped always.
//!
//! A stdout that cannot be written is an error of each function here; [`broken`] says what is told
//! of it. A stderr that is closed is ignored: there is nobody left to tell.
//!
//! For programs (`--output json`) each result is a document, and each problem too. What is only to
//! be known, such as progress, is left out then.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::closed_streams;
use crate::problem::{Problem, effect_of, untold};
use crate::quote::is_dangerous;

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

/// The two streams of a process.
pub struct Screen {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether stdout is a terminal.
    pub terminal: bool,
    /// Whether stdout takes colour.
    pub colour: bool,
    /// Whether stdout was closed when the process began.
    pub closed: bool,
    /// The line of the input that is being run, if commands come from a pipe.
    pub input_line: Option<u64>,
    /// Whether results are documents for programs.
    pub json: bool,
    err_colour: bool,
    /// Columns of the terminal, if stdout is one.
    fixed_width: Option<usize>,
}

impl Screen {
    /// The streams of this process.
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

    /// Streams of another kind, for tests; neither is a terminal.
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

    /// Columns that a table may have; `None` if nothing limits them.
    pub fn width(&self) -> Option<usize> {
        let measured = || terminal_size::terminal_size().map(|(width, _)| width.0.into());
        self.fixed_width.or_else(|| self.terminal.then(measured).flatten())
    }

    /// A text in its tone, as stdout takes it.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.colour, tone, text)
    }

    /// A result: a text for people, or a document for programs.
    pub fn result(&mut self, text: &str, document: impl FnOnce() -> Value) -> io::Result<()> {
        if self.json {
            self.document(&document())?;
            return self.out.flush();
        }
        self.line(text)
    }

    /// A result that tells of a change: if it cannot be written, the error says that the change was
    /// made.
    pub fn changed(&mut self, text: &str, document: impl FnOnce() -> Value) -> io::Result<()> {
        let told = self.result(text, document);
        told.map_err(|error| untold(text.lines().next().unwrap_or_default(), error))
    }

    /// A document in one line: nothing is flushed before [`Self::flush`].
    pub fn document(&mut self, document: &Value) -> io::Result<()> {
        let text = document.to_string();
        let text = if self.terminal { for_terminal(text.as_bytes()) } else { text };
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// A text as it is, to its end.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// A line of results.
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

    /// A value and a newline. A terminal also gets a remark after it.
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

    /// A record of a list that may be long: nothing is flushed before [`Self::flush`].
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        if self.terminal {
            self.out.write_all(for_terminal(record).as_bytes())?;
        } else {
            self.out.write_all(record)?;
        }
        self.out.write_all(b"\n")
    }

    /// Lets out what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Something to know that is no result, such as progress.
    pub fn note(&mut self, text: &str) {
        if self.json {
            return;
        }
        let text = paint(self.err_colour, Tone::Dim, &escaped(text));
        // Nobody is left to tell.
        let _ = writeln!(self.err, "{text}");
    }

    /// What went wrong, what it means, and what to do about it.
    pub fn problem(&mut self, problem: &Problem) {
        let problem = match self.input_line {
            Some(line) => &problem.clone().in_line(line),
            None => problem,
        };
        if self.json {
            // Nobody is left to tell.
            let _ = writeln!(self.err, "{}", problem.document());
            return;
        }
        self.say(&problem.message);
    }

    /// What went wrong and what to do about it.
    pub fn error(&mut self, text: &str) {
        self.problem(&Problem::failed(text));
    }

    fn say(&mut self, text: &str) {
        let label = paint(self.err_colour, Tone::Bad, "error:");
        let line = text.replace(char::is_whitespace, " ");
        let line = escaped(&line);
        // Nobody is left to tell.
        let _ = writeln!(self.err, "{label} {line}");
    }
}

/// What is to be said of an output that does not work; nothing where its reader has gone.
pub fn broken(error: &io::Error) -> Option<Problem> {
    (error.kind() != io::ErrorKind::BrokenPipe).then(|| {
        let problem = Problem::failed(format!("cannot write to standard output: {error}"));
        problem.having(effect_of(error))
    })
}

/// A text in its tone.
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

/// A text in which nothing steers a terminal but the colours of this program.
fn escaped(text: &str) -> String {
    const OURS: [&str; 6] = ["\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"];
    if !text.chars().any(|it| is_dangerous(it) && it != '\n') {
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

/// A value with its lines and tabs, and everything else that a terminal would obey escaped.
fn for_terminal(value: &[u8]) -> String {
    let mut text = String::new();
    let escape = |text: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    };
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_dangerous(character) && !matches!(character, '\n' | '\t') {
                escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// A buffer that a test can read while a [`Screen`] writes to it.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    /// Returns what was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what was written so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
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
        let out = Shared::default();
        let mut screen = Screen::of(out.clone(), io::sink());
        screen.value(b"a\xff\x1b", "0.3 ms").unwrap();
        assert_eq!(out.bytes(), b"a\xff\x1b\n");
        screen.terminal = true;
        screen.value(b"a\xff\x1b[2J\n\tb", "0.3 ms").unwrap();
        assert_eq!(out.bytes()[4..], *b"a\\xff\\x1b[2J\n\tb  0.3 ms\n");
    }

    #[test]
    fn colour_is_only_where_it_is_wanted_and_errors_are_one_line() {
        assert_eq!(paint(true, Tone::Good, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(paint(false, Tone::Good, "x"), "x");
        let err = Shared::default();
        Screen::of(io::sink(), err.clone()).error("a\nb\x1b");
        assert_eq!(err.text(), "error: a b\\x1b\n");
    }

    #[test]
    fn nothing_that_comes_from_elsewhere_steers_a_terminal() {
        let (out, err) = (Shared::default(), Shared::default());
        let mut screen = Screen::of(out.clone(), err.clone());
        let hostile = "n1\x1b]0;owned\x07\u{202e}\u{9b}2J\r";
        screen.terminal = true;
        screen.line(&paint(true, Tone::Good, hostile)).unwrap();
        screen.note(hostile);
        screen.error(hostile);
        let said = out.text() + &err.text();
        let shown = "n1\\x1b]0;owned\\x07\\xe2\\x80\\xae\\xc2\\x9b2J";
        assert_eq!(said.matches(shown).count(), 3, "{said:?}");
        let bare = said.replace("\x1b[32m", "").replace("\x1b[0m", "").replace('\n', "");
        assert!(!bare.chars().any(is_dangerous), "{said:?}");
    }
}
