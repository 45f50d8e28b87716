//! The prompt: a line is edited, run, and the next one asked for.
//!
//! The editor blocks and owns the terminal while it does, so it has a thread of its own (see
//! `editor.rs`); this side runs the commands and listens for signals meanwhile. Ctrl-C clears the
//! line; at an empty line it ends a local network and is ignored otherwise; while a command runs
//! it gives the command up, and what that means for a write is said.

mod editor;

use std::io;

use self::editor::{Editor, Input};
use crate::grammar::{self, Command};
use crate::run::{self, Outcome};
use crate::screen::Screen;
use crate::signals::{Ending, Signals};
use crate::store::Store;

/// Asks for lines and runs them until somebody wants to leave.
///
/// # Errors
/// Those of stdout and of the terminal.
pub(crate) async fn run(
    store: &impl Store,
    screen: &mut Screen,
    signals: &mut Signals,
) -> io::Result<Option<Ending>> {
    let mut editor = Editor::start(store.is_local(), screen.colour)?;
    loop {
        for notice in store.notices().await {
            screen.note(&notice);
        }
        editor.complete_names(store.names().await);
        let input = tokio::select! {
            input = editor.next() => input,
            ending = signals.next() => return Ok(Some(ending)),
        };
        let line = match input {
            Input::Line(line) => line,
            Input::Interrupted if store.is_local() => return Ok(Some(Ending::Interrupted)),
            Input::Interrupted => {
                screen.note("exit or Ctrl-D leaves");
                continue;
            }
            Input::End => return Ok(None),
            Input::Broken(problem) => return Err(io::Error::other(problem)),
        };
        let command = match grammar::parse_line(line.as_bytes()) {
            Ok(Some(command)) => command,
            Ok(None) => continue,
            Err(error) => {
                screen.error(&error.to_string());
                continue;
            }
        };
        let ending = tokio::select! {
            outcome = run::one(&command, store, screen) => match outcome? {
                Outcome::Exit => return Ok(None),
                Outcome::Done | Outcome::Failed => continue,
            },
            ending = signals.next() => ending,
        };
        if store.is_local() || ending == Ending::Terminated {
            return Ok(Some(ending));
        }
        screen.error(match command {
            Command::Write { .. } | Command::Delete { .. } => {
                "given up; it may have had effect, or may yet: read the key to see"
            }
            _ => "given up",
        });
    }
}
