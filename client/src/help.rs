//! The help of the prompt, and of single commands.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::grammar::{GrammarError, KEYWORDS, LEVELS, meant};

/// Returns the help of the prompt, which lists everything that can be typed there.
pub(crate) fn all(local: bool) -> String {
    let mut text = String::from(
        "commands in upper case; a value may contain commas and spaces:\n  \
           R,<key>            print the value of a key\n  \
           W,<key>,<value>    store a value\n  \
           D,<key>            remove a key\n  \
           H,<key>            list the versions of a key\n  \
           T,<ms>             wait\n\
         commands in words, quoted as in a shell:\n",
    );
    for word in KEYWORDS.iter().filter(|word| local || !word.local) {
        text.push_str(&format!("  {:<60} {}\n", word.form, word.does));
    }
    text.push_str("other commands, as on the command line (help COMMAND shows their options):\n");
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        if crate::cli::is_network_word(name) && !KEYWORDS.iter().any(|word| word.word == name) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {name:<60} {}\n", uncapitalised(&about)));
        }
    }
    text.push_str(&format!("levels: {LEVELS}; see docs/consistency.md\n"));
    text.push_str(
        "keys: Ctrl-C clears the line or interrupts the running command; twice on an empty line, \
         it leaves. Ctrl-D leaves\n",
    );
    text.push_str(
        "examples:\n  \
           W,greeting,hello, world\n  \
           get greeting eventual max-staleness 500\n  \
           put \"a key\" 'some value' if-absent",
    );
    if local {
        text.push_str("\n  kill coordinator");
    }
    text
}

fn uncapitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |it| it.to_lowercase().chain(characters).collect())
}

/// Returns the help of a command, such as `get` or `token create`, or of the program if the topic
/// is empty.
///
/// # Errors
/// There is no such command.
pub(crate) fn of(topic: &[String]) -> Result<String, GrammarError> {
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for (depth, word) in topic.iter().enumerate() {
        let Some(inner) = command.find_subcommand_mut(word) else {
            return at_the_prompt(depth, word);
        };
        command = inner;
    }
    Ok(command.render_long_help().to_string().trim_end().to_owned())
}

/// Returns the help of a command that exists only at the prompt.
fn at_the_prompt(depth: usize, word: &str) -> Result<String, GrammarError> {
    match KEYWORDS.iter().find(|known| depth == 0 && known.word == word) {
        Some(known) => Ok(format!("{}\n  {}", known.form, known.does)),
        None => {
            let advice = match meant(word) {
                Some(meant) => format!("did you mean {}?", meant.word),
                None => "help lists the commands".to_owned(),
            };
            Err(GrammarError::new(format!("there is no command {word}"), advice))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(topic: &[&str]) -> String {
        of(&topic.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_command_has_a_help_page() {
        for word in KEYWORDS {
            assert!(help(&[word.word]).contains(word.word), "{}", word.word);
        }
        assert!(help(&["get"]).contains("dkv [ADDRESS] get"), "{}", help(&["get"]));
        assert!(help(&["token", "create"]).contains("--role"));
        assert!(help(&[]).contains("Exit status"));
        let strange = of(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(strange.contains("there is no command nonsense"), "{strange}");
    }

    #[test]
    fn the_help_of_the_prompt_lists_every_command() {
        let text = all(true);
        assert!(KEYWORDS.iter().all(|word| text.contains(word.form)));
        for word in ["drain", "token", "load", "revoke", "rebalance"] {
            assert!(text.contains(&format!("\n  {word} ")), "{word}");
        }
        assert!(!all(false).contains("kill"));
    }
}
