//! Has the user confirm what cannot be undone, by repeating the name of what goes.

use std::io::{self, IsTerminal};

use dkv_console::Console;
use dkv_console::problem::Problem;

/// Has the user repeat `name`; `effect` says what the command does, after "this".
///
/// # Errors
/// A problem of usage if another name is given, or none where nobody can be asked.
pub(crate) async fn confirm(
    effect: &str,
    name: &str,
    yes: Option<&str>,
    console: &mut Console,
) -> Result<(), Problem> {
    let typed = match yes {
        Some(yes) => yes.to_owned(),
        None if io::stdin().is_terminal() && !console.json => {
            console.note(&format!("this {effect}; type its name to confirm"));
            let read = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().read_line(&mut line).map(|_| line)
            });
            let read = read.await.unwrap_or_else(|_| Ok(String::new()));
            read.map_err(|error| Problem::failed(format!("cannot read the answer: {error}")))?
        }
        None => {
            return Err(Problem::usage(format!(
                "this {effect}; repeat the command with --yes {name}"
            )));
        }
    };
    if typed.trim_end_matches(['\r', '\n']) == name {
        return Ok(());
    }
    Err(Problem::usage(format!(
        "the name was not repeated, so nothing was changed; {name} was to be confirmed"
    )))
}
