//! The prompt: reads a line, runs it, and asks for the next one.
//!
//! The editor blocks and owns the terminal meanwhile, so it has its own thread (see `editor`); this
//! side runs the commands and listens for signals. Ctrl-C clears the line. While a command runs, it
//! interrupts the command, and the prompt says what that means for a write. Twice on an empty line,
//! it leaves, as exit and Ctrl-D do. All networks behave alike, local ones too.

mod editor;

use std::io;
use std::time::Duration;

use self::editor::{Editor, TerminalInput};
use crate::input::Stdin;
use crate::run::Outcome;
use crate::steps::{self, Step};
use crate::store::Store;
use dkv_console::Console;
use dkv_console::problem::{Failure, Problem};
use dkv_console::signals::{Signals, StopSignal};
use tokio::time::timeout;

/// Reads lines and runs them until the user leaves. Returns the signal, if one ended it.
///
/// # Errors
/// Those of stdout and of the terminal.
pub(crate) async fn run(
    store: &impl Store,
    console: &mut Console,
    signals: &mut Signals,
) -> io::Result<Option<StopSignal>> {
    let mut editor = Editor::start(store.is_local(), console.colour)?;
    let mut interrupted = false;
    loop {
        for notice in store.notices().await {
            console.note(&notice);
        }
        editor.complete_names(store.names().await);
        let input = tokio::select! {
            input = editor.next() => input,
            // A terminal without an editor sends signals.
            ending = signals.next() => match ending {
                StopSignal::Interrupted => TerminalInput::Interrupted,
                StopSignal::Terminated => return Ok(Some(ending)),
            },
        };
        let line = match input {
            TerminalInput::Line(line) => line,
            TerminalInput::Interrupted if interrupted => return Ok(None),
            TerminalInput::Interrupted => {
                interrupted = true;
                console.note(if store.is_local() {
                    "press Ctrl-C again, or use exit or Ctrl-D, to end the network"
                } else {
                    "press Ctrl-C again, or use exit or Ctrl-D, to leave"
                });
                continue;
            }
            TerminalInput::End => return Ok(None),
            TerminalInput::Broken(problem) => return Err(io::Error::other(problem)),
        };
        interrupted = false;
        let mut step = match steps::parse_line(line.as_bytes()) {
            Ok(Some(step)) => [step],
            Ok(None) => continue,
            Err(error) => {
                console.problem(&Problem::usage(error.to_string()));
                continue;
            }
        };
        let (json, ends_itself) = (console.json, step[0].ends_at_interrupt());
        let done = async {
            if let Err(problem) = steps::read_values(&mut step, &mut Stdin::Commands).await {
                console.problem(&problem);
                return Ok(Outcome::Failed(problem.failure));
            }
            steps::run(&step[0], store, console).await
        };
        let mut done = Box::pin(done);
        let ending = loop {
            tokio::select! {
                outcome = &mut done => match outcome? {
                    Outcome::Exit => return Ok(None),
                    Outcome::Done | Outcome::Failed(_) => break None,
                },
                ending = signals.next() => match ending {
                    StopSignal::Interrupted if ends_itself => {}
                    ending => break Some(ending),
                },
            }
        };
        drop(done);
        let ending = match ending {
            // The Ctrl-C that has ended the command is not meant for the prompt.
            None if ends_itself => match timeout(Duration::ZERO, signals.next()).await {
                Ok(StopSignal::Terminated) => StopSignal::Terminated,
                Ok(StopSignal::Interrupted) | Err(_) => continue,
            },
            None => continue,
            Some(ending) => ending,
        };
        if ending == StopSignal::Terminated {
            return Ok(Some(ending));
        }
        console.problem(&interrupted_problem(&step[0]));
        // The interrupted command may have changed it.
        console.json = json;
    }
}

/// Returns the problem of an interrupted command.
fn interrupted_problem(step: &Step) -> Problem {
    if step.writes() {
        Problem::new(
            Failure::Unknown,
            "interrupted; the command may still take effect: check with get or status",
        )
    } else {
        Problem::failed("interrupted")
    }
}
