//! Environment variables of command-line options.
//!
//! A blank variable counts as not set (see [`environment`](crate::environment)). An error caused by
//! a variable names the variable, because the user has not typed the option.

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory, Error, Parser};

pub use crate::environment::value;

/// Parses the arguments of this process. Exits if they ask for help or are wrong.
pub fn parse<P: Parser>() -> P {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Parses arguments, the first of which is the name of the program.
///
/// # Errors
/// If the arguments are wrong, or ask for help.
pub fn parse_from<P: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<P, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = without_empty(P::command());
    let mut matches = match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => matches,
        Err(error) => return Err(blamed(error, &P::command(), &arguments)),
    };
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// A command whose options ignore blank variables.
pub fn without_empty(command: Command) -> Command {
    without(command, &|name| value(name).is_none())
}

/// The name of an option, such as `--region`, for an error message: its variable, if the value
/// comes from there.
pub fn name_of<P: CommandFactory>(option: &str) -> String {
    let typed = std::env::args_os()
        .any(|argument| argument.to_str().is_some_and(|it| it.split('=').next() == Some(option)));
    let command = P::command();
    let argument = command.get_arguments().find(|it| it.get_long() == option.strip_prefix("--"));
    let variable = argument.and_then(Arg::get_env).filter(|name| value(name).is_some());
    match variable {
        Some(name) if !typed => name.to_string_lossy().into_owned(),
        _ => option.to_owned(),
    }
}

fn without(command: Command, is_empty: &dyn Fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(Resettable::Reset),
        _ => argument,
    });
    command.mut_subcommands(|inner| without(inner, is_empty))
}

/// The error, worded for the variable that causes it: the one without which it would be another
/// error or none.
fn blamed(error: Error, command: &Command, arguments: &[OsString]) -> Error {
    let told = error.to_string();
    // An argument can be displayed only after the command is built.
    let mut built = command.clone();
    built.build();
    for (name, option) in variables(&built) {
        let unset = without(command.clone(), &|it| it == name || value(it).is_none());
        let still = unset.clone().try_get_matches_from(arguments);
        if still.is_err_and(|other| other.to_string() == told) {
            continue;
        }
        let name = name.to_string_lossy();
        let named = told.replace(&format!("for '{option}'"), &format!("in the variable {name}"));
        let named = named.replace(&format!("'{option}'"), &format!("the variable {name}"));
        let (text, rest) = named.split_once("\n\n").unwrap_or((&named, ""));
        let text = text.trim_start_matches("error: ").trim_end();
        let mention =
            if text.contains(&*name) { String::new() } else { format!("{name} is set: ") };
        let rest = if rest.is_empty() { String::new() } else { format!("\n\n{}", rest.trim_end()) };
        return Error::raw(error.kind(), format!("{mention}{text}{rest}\n"));
    }
    error
}

/// The variables that are set and read by options, each with the displayed form of its option.
fn variables(command: &Command) -> Vec<(OsString, String)> {
    let own = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?;
        value(name)?;
        Some((name.to_owned(), argument.to_string()))
    });
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Example {
        #[command(subcommand)]
        _word: Word,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Word {
        Serve {
            #[arg(long, env = "DKV_TEST_PORT")]
            _port: Option<u16>,
            #[arg(long, env = "DKV_TEST_NAME")]
            _name: Option<String>,
        },
    }

    #[test]
    fn a_blank_variable_is_ignored() {
        let command = without(Example::command(), &|name| name == "DKV_TEST_PORT");
        let serve = command.find_subcommand("serve").unwrap();
        let variables: Vec<_> = serve.get_arguments().filter_map(|it| it.get_env()).collect();
        assert_eq!(variables, ["DKV_TEST_NAME"]);
    }

    /// Reads a variable that Cargo sets for every test, so that no test changes the environment,
    /// which others read.
    #[derive(Debug, Parser)]
    struct Blamed {
        #[arg(long, env = "CARGO_PKG_NAME", requires = "other")]
        port: Option<u16>,
        #[arg(long)]
        other: Option<String>,
    }

    #[test]
    fn an_error_names_the_variable_and_not_the_option_that_was_not_typed() {
        let read = |words: &[&str]| {
            let words = ["program"].iter().chain(words).map(OsString::from);
            parse_from::<Blamed>(words).unwrap_err().to_string()
        };
        let said = read(&[]);
        assert!(said.contains("in the variable CARGO_PKG_NAME: invalid digit"), "{said}");
        assert!(said.starts_with("error: invalid value 'dkv-base'") && !said.contains("--port"));
        let said = read(&["--port", "x"]);
        assert!(said.contains("'x' for '--port <PORT>'") && !said.contains("CARGO"), "{said}");
    }
}
