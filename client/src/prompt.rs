//! The prompt: a line is edited, run, and the next one asked for.
//!
//! The editor blocks and owns the terminal while it does, so it has a thread of its own (see
//! `editor.rs`); this side runs the commands and listens for signals meanwhile. Ctrl-C clears the
//! line; while a command runs it gives the command up, and what that means for a write is said; at
//! an empty line it leaves if it is typed twice, as exit and Ctrl-D do. All that is the same on
//! every network, a local one too.

mod editor;

use std::io;

use self::editor::{Editor, Input};
use crate::input::Stdin;
use crate::run::Outcome;
use crate::steps::{self, Step};
use crate::store::Store;
use dkv_console::console::Screen;
use dkv_console::problem::{Failure, Problem};
use dkv_console::signals::{Ending, Signals};

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
    let mut interrupted = false;
    loop {
        for notice in store.notices().await {
            screen.note(&notice);
        }
        editor.complete_names(store.names().await);
        let input = tokio::select! {
            input = editor.next() => input,
            // So a terminal without an editor says it.
            ending = signals.next() => match ending {
                Ending::Interrupted => Input::Interrupted,
                Ending::Terminated => return Ok(Some(ending)),
            },
        };
        let line = match input {
            Input::Line(line) => line,
            Input::Interrupted if interrupted => return Ok(None),
            Input::Interrupted => {
                interrupted = true;
                screen.note(if store.is_local() {
                    "Ctrl-C once more, exit or Ctrl-D ends the network"
                } else {
                    "Ctrl-C once more, exit or Ctrl-D leaves"
                });
                continue;
            }
            Input::End => return Ok(None),
            Input::Broken(problem) => return Err(io::Error::other(problem)),
        };
        interrupted = false;
        let mut step = match steps::parse_line(line.as_bytes()) {
            Ok(Some(step)) => [step],
            Ok(None) => continue,
            Err(error) => {
                screen.problem(&Problem::usage(error.to_string()));
                continue;
            }
        };
        let json = screen.json;
        let done = async {
            if let Err(problem) = steps::fill(&mut step, &mut Stdin::Commands).await {
                screen.problem(&problem);
                return Ok(Outcome::Failed(problem.failure));
            }
            steps::one(&step[0], store, screen).await
        };
        let ending = tokio::select! {
            outcome = done => match outcome? {
                Outcome::Exit => return Ok(None),
                Outcome::Done | Outcome::Failed(_) => continue,
            },
            ending = signals.next() => ending,
        };
        if ending == Ending::Terminated {
            return Ok(Some(ending));
        }
        screen.problem(&given_up(&step[0]));
        // As it was before the command.
        screen.json = json;
    }
}

/// What it means that a command was given up.
fn given_up(step: &Step) -> Problem {
    if step.writes() {
        Problem::new(
            Failure::Unknown,
            "interrupted; it may still take effect. Check with get or status",
        )
    } else {
        Problem::failed("interrupted")
    }
}
