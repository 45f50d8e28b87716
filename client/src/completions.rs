//! Completion scripts for shells, and completions for the prompt.
//!
//! The generator offers files wherever it knows nothing better. These scripts offer files only
//! where an operand or an option is a file.

use clap::{Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::cli::{Cli, is_network_word};
use crate::grammar::KEYWORDS;

/// Returns the completion script for a shell.
pub(crate) fn script(shell: Shell) -> String {
    let mut command = Cli::command();
    command.build();
    let with_files = with_files(&command);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "dkv", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => bash(&script, &with_files),
        Shell::Fish => fish(&script, &with_files),
        _ => script,
    }
}

/// Returns the commands of the command line that act on a network, for the prompt.
pub(crate) fn network_words() -> Vec<String> {
    let command = Cli::command();
    let names = command.get_subcommands().map(|command| command.get_name());
    let own =
        |name: &&str| is_network_word(name) && !KEYWORDS.iter().any(|word| word.word == *name);
    names.filter(own).map(ToOwned::to_owned).collect()
}

/// Returns what may follow these words of a command line: values of the last option, or subcommands
/// and options.
pub(crate) fn after(words: &[&str]) -> Vec<String> {
    let root = Cli::command();
    let mut command = &root;
    for word in words {
        match command.find_subcommand(word) {
            Some(inner) => command = inner,
            None if std::ptr::eq(command, &root) => return Vec::new(),
            None => {}
        }
    }
    let last = words.last().and_then(|word| word.strip_prefix("--"));
    let option = last.and_then(|name| command.get_opts().find(|it| it.get_long() == Some(name)));
    if let Some(option) = option
        && option.get_action().takes_values()
    {
        return option.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
    }
    let inner = command.get_subcommands().map(|command| command.get_name().to_owned());
    let options = command.get_opts().filter_map(|option| Some(format!("--{}", option.get_long()?)));
    inner.chain(options).collect()
}

/// Returns the commands that take a file as an operand.
fn with_files(command: &Command) -> Vec<String> {
    let has_file = |command: &&Command| {
        command.get_positionals().any(|it| it.get_value_hint() == ValueHint::FilePath)
    };
    let with_files = command.get_subcommands().filter(has_file);
    with_files.map(|command| command.get_name().to_owned()).collect()
}

fn bash(script: &str, with_files: &[String]) -> String {
    let cases: Vec<String> = with_files.iter().map(|name| format!("dkv__subcmd__{name}")).collect();
    let files = format!(
        "    case \"${{cmd}}\" in\n        {})\n            [[ \"${{cur}}\" == -* ]] || compopt -o \
         default 2>/dev/null\n            ;;\n    esac\n\n    case \"${{cmd}}\" in\n        dkv)",
        cases.join("|")
    );
    script
        .replacen("    case \"${cmd}\" in\n        dkv)", &files, 1)
        .replace(" -o bashdefault -o default ", " ")
}

fn fish(script: &str, with_files: &[String]) -> String {
    let none = format!(
        "complete -c dkv -n \"not __fish_seen_subcommand_from {}\" -f\n",
        with_files.join(" ")
    );
    format!("{script}{none}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_offered_only_where_they_belong() {
        let script = script(Shell::Bash);
        assert!(!script.contains("bashdefault"), "no fallback to files");
        for name in ["load", "verify", "put"] {
            assert!(
                script.contains(&format!("dkv__subcmd__{name}|"))
                    || script.contains(&format!("dkv__subcmd__{name})\n            [[")),
                "{name}"
            );
        }
        assert!(script.contains("compgen -W \"node client reader admin server\""), "roles");
        assert!(script.contains("compgen -W \"strong session eventual all\""), "levels");
        assert!(script.contains("if-absent"), "conditions");
    }
}
