//! Environment variables as files and charts write them: one that is set to nothing is not set.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{Command, Parser};

/// Reads the arguments of this process, and ends it where they ask for help or cannot be understood.
pub fn parse<P: Parser>() -> P {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads arguments, the first of which is the name of the program.
///
/// # Errors
/// What is wrong with them, or the help that they ask for.
pub fn parse_from<P: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, clap::Error> {
    let mut command = without_empty(P::command());
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// A command whose options do not look at variables that are set to nothing.
pub fn without_empty(command: Command) -> Command {
    without(command, &|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
}

fn without(command: Command, is_empty: &dyn Fn(&std::ffi::OsStr) -> bool) -> Command {
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(Resettable::Reset),
        _ => argument,
    });
    command.mut_subcommands(|inner| without(inner, is_empty))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    struct Example {
        #[command(subcommand)]
        _word: Word,
    }

    #[derive(clap::Subcommand)]
    enum Word {
        Serve {
            #[arg(long, env = "DKV_TEST_PORT")]
            _port: Option<u16>,
            #[arg(long, env = "DKV_TEST_NAME")]
            _name: Option<String>,
        },
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_not_looked_at() {
        let command = without(Example::command(), &|name| name == "DKV_TEST_PORT");
        let serve = command.find_subcommand("serve").unwrap();
        let variables: Vec<_> = serve.get_arguments().filter_map(|it| it.get_env()).collect();
        assert_eq!(variables, ["DKV_TEST_NAME"]);
    }
}
