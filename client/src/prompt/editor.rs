//! The line editor: history, completion and hints.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use dkv_base::durable;
use dkv_base::sync::lock;
use dkv_wire::local;
use nix::sys::termios::{self, SetArg, Termios};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Event, EventContext,
    EventHandler, Helper, KeyEvent, Movement, RepeatCount,
};

use crate::completions;
use crate::grammar::{KEYWORDS, Keyword};

const PROMPT: &str = "dkv> ";
/// Number of lines in the history.
const HISTORY_LINES_MAX: usize = 2000;

/// Input from the terminal.
pub(super) enum TerminalInput {
    /// A line.
    Line(String),
    /// Ctrl-C on an empty line.
    Interrupted,
    /// Ctrl-D, or the terminal has gone.
    End,
    /// The terminal failed.
    Broken(String),
}

/// The thread of the editor, and the settings of the terminal before it.
pub(super) struct Editor {
    wanted: mpsc::Sender<()>,
    inputs: tokio::sync::mpsc::Receiver<TerminalInput>,
    asked: bool,
    names: Arc<Mutex<Vec<String>>>,
    before: Option<Termios>,
}

impl Editor {
    /// Starts the thread.
    pub(super) fn start(local: bool, colour: bool) -> io::Result<Self> {
        let names = Arc::new(Mutex::new(Vec::new()));
        let helper = Assistant { local, colour, names: names.clone() };
        let (wanted, requests) = mpsc::channel();
        let (sender, inputs) = tokio::sync::mpsc::channel(1);
        let before = termios::tcgetattr(io::stdin()).ok();
        std::thread::Builder::new().name("prompt".into()).spawn(move || {
            if let Err(error) = edit(helper, &requests, &sender) {
                // Sending fails only if the receiver has gone.
                let _ = sender.blocking_send(TerminalInput::Broken(error.to_string()));
            }
        })?;
        Ok(Self { wanted, inputs, asked: false, names, before })
    }

    /// Sets the names that can be completed.
    pub(super) fn complete_names(&self, names: Vec<String>) {
        *lock(&self.names) = names;
    }

    /// Returns the next input. It is safe to drop this future and call it again.
    pub(super) async fn next(&mut self) -> TerminalInput {
        if !self.asked {
            self.asked = self.wanted.send(()).is_ok();
        }
        let input = self.inputs.recv().await.unwrap_or(TerminalInput::End);
        self.asked = false;
        input
    }
}

impl Drop for Editor {
    /// Restores the terminal, because the thread may still be reading from it.
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && self.asked
        {
            dkv_base::say!("");
            // There is no remedy for a terminal that fails here.
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Reads a line for each request, until the requests end.
fn edit(
    assistant: Assistant,
    requests: &mpsc::Receiver<()>,
    inputs: &tokio::sync::mpsc::Sender<TerminalInput>,
) -> Result<(), ReadlineError> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        // Several pasted lines are several commands.
        .bracketed_paste(false)
        .build();
    let mut editor = rustyline::Editor::<Assistant, DefaultHistory>::with_config(config)?;
    editor.set_helper(Some(assistant));
    let ctrl_c = EventHandler::Conditional(Box::new(ClearOrInterrupt));
    editor.bind_sequence(KeyEvent::ctrl('C'), ctrl_c);
    let history = history_file();
    if let Some(file) = &history {
        // The first start has no history to load.
        let _ = editor.load_history(file);
    }
    while requests.recv().is_ok() {
        let input = match editor.readline(PROMPT) {
            Ok(line) => {
                if let Some(file) = &history {
                    append_history(&mut editor, file);
                }
                TerminalInput::Line(line)
            }
            Err(ReadlineError::Interrupted) => TerminalInput::Interrupted,
            Err(ReadlineError::Eof) => TerminalInput::End,
            Err(error) => return Err(error),
        };
        if inputs.blocking_send(input).is_err() {
            break;
        }
    }
    Ok(())
}

fn append_history(editor: &mut rustyline::Editor<Assistant, DefaultHistory>, file: &Path) {
    // The editor creates the file readable only for its owner. Commands work without a history,
    // too.
    let _ = editor.append_history(file);
}

fn history_file() -> Option<PathBuf> {
    let home = local::home()?;
    durable::create_dir(&home).ok()?;
    Some(home.join("history"))
}

/// Lets Ctrl-C clear the line first.
struct ClearOrInterrupt;

impl ConditionalEventHandler for ClearOrInterrupt {
    fn handle(
        &self,
        _event: &Event,
        _count: RepeatCount,
        _positive: bool,
        context: &EventContext<'_>,
    ) -> Option<Cmd> {
        Some(if context.line().is_empty() {
            Cmd::Interrupt
        } else {
            Cmd::Kill(Movement::WholeBuffer)
        })
    }
}

/// Completes words and names, and hints at the operands of a word.
struct Assistant {
    local: bool,
    colour: bool,
    names: Arc<Mutex<Vec<String>>>,
}

impl Assistant {
    fn words(&self) -> impl Iterator<Item = &'static Keyword> {
        KEYWORDS.iter().filter(|word| self.local || !word.local)
    }

    /// Returns what may follow these words.
    fn candidates(&self, before: &[&str]) -> Vec<String> {
        let names = || lock(&self.names).clone();
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match before {
            [] => {
                let own = self.words().map(|word| word.word.to_owned());
                own.chain(completions::network_words()).collect()
            }
            ["kill" | "stop" | "pause"] if self.local => {
                [vec!["coordinator".into()], names()].concat()
            }
            ["start" | "resume"] if self.local => names(),
            ["drain" | "remove" | "keep" | "show-all"] => names(),
            ["status"] => own(&["--json"]),
            ["get", _] => own(&["strong", "session", "eventual", "all", "--revision"]),
            ["history", _, ..] => own(&["--limit", "--before", "--json"]),
            ["watch", ..] => own(&["--key", "--from", "--previous", "--json"]),
            ["put", _, _] => own(&[
                "strong",
                "session",
                "eventual",
                "all",
                "if-absent",
                "if-present",
                "if-revision",
            ]),
            ["delete", _] => {
                own(&["strong", "session", "eventual", "all", "if-present", "if-revision"])
            }
            ["help"] => self.candidates(&[]),
            [word, ..] if !KEYWORDS.iter().any(|known| known.word == *word) => {
                completions::after(before)
            }
            ["scan", ..] => own(&["--after", "--limit", "--keys", "--revision"]),
            _ => Vec::new(),
        }
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let text = &line[..position];
        let start = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let before: Vec<&str> = text[..start].split_whitespace().collect();
        let begun = &text[start..];
        let mut found = self.candidates(&before);
        found.retain(|candidate| candidate.starts_with(begun));
        let pair = |display: String| Pair { replacement: format!("{display} "), display };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

/// The operands of a word, shown as a hint that cannot be accepted.
struct Operands(String);

impl Hint for Operands {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Operands;

    fn hint(&self, line: &str, position: usize, _context: &Context<'_>) -> Option<Operands> {
        if !self.colour || position < line.len() {
            return None;
        }
        let word = line.strip_suffix(' ')?;
        let form = self.words().find(|known| known.word == word)?.form;
        let operands = form.strip_prefix(word)?.trim_start();
        (!operands.is_empty()).then(|| Operands(operands.to_owned()))
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        if self.colour { format!("\x1b[1m{prompt}\x1b[0m").into() } else { prompt.into() }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("\x1b[2m{hint}\x1b[0m").into()
    }
}

impl Validator for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use rustyline::history::MemHistory;

    use super::*;

    fn completed(local: bool, line: &str) -> Vec<String> {
        let names = Arc::new(Mutex::new(vec!["n1".into(), "n2".into(), "server".into()]));
        let assistant = Assistant { local, colour: true, names };
        let history = MemHistory::new();
        let context = Context::new(&history);
        let (_, pairs) = assistant.complete(line, line.len(), &context).unwrap();
        pairs.into_iter().map(|pair| pair.display).collect()
    }

    #[test]
    fn words_and_names_are_completed() {
        assert_eq!(completed(false, "st"), ["status"]);
        assert_eq!(completed(true, "st"), ["status", "start", "stop"]);
        assert_eq!(completed(true, "kill "), ["coordinator", "n1", "n2", "server"]);
        assert_eq!(completed(true, "start n"), ["n1", "n2"]);
        assert!(completed(false, "kill ").is_empty());
        assert_eq!(completed(false, "get key e"), ["eventual"]);
        assert_eq!(completed(false, "put k v if-a"), ["if-absent"]);
        assert!(completed(false, "get ").is_empty());
        assert_eq!(completed(false, "dr"), ["drain"]);
        assert_eq!(completed(false, "drain n"), ["n1", "n2"]);
        assert_eq!(completed(false, "drain n1 --un"), ["--undo"]);
        assert_eq!(completed(false, "token cr"), ["create"]);
        assert_eq!(
            completed(false, "token create --role "),
            ["node", "client", "reader", "admin", "server"]
        );
        assert_eq!(completed(false, "help tok"), ["token"]);
        assert!(completed(false, "loca").is_empty(), "local is not a command of the prompt");
    }

    #[test]
    fn a_word_hints_at_its_operands() {
        let assistant = Assistant { local: false, colour: true, names: Arc::default() };
        let history = MemHistory::new();
        let hint = |line: &str| {
            let hint = assistant.hint(line, line.len(), &Context::new(&history));
            hint.map(|operands| operands.0)
        };
        assert_eq!(hint("wait ").as_deref(), Some("MS"));
        assert_eq!(hint("wait"), None);
        assert_eq!(hint("nodes "), None);
        assert_eq!(hint("wait 5 "), None);
    }
}
