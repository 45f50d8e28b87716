//! What is typed, as steps: the same words mean the same in the arguments of `dkv`, behind `--`, in
//! a pipe and at the prompt.
//!
//! What reads and writes keys is understood by `grammar`; every other word, such as `drain`, is
//! read as the command line reads it, with the same options and the same help.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use dkv_api::Level;
use dkv_console::console::Screen;
use dkv_console::problem::{Failure, Problem, worst};

use crate::cli::{OneWord, Word, is_network_word};
use crate::grammar::{self, Command, GrammarError};
use crate::input::{self, Stdin};
use crate::run::{self, Outcome};
use crate::store::Store;
use crate::{help, subcommands};

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Step {
    /// What.
    pub(crate) act: Act,
    /// Whether its results are documents, whatever is usual.
    json: bool,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Act {
    /// A command of the grammar.
    Command(Command),
    /// Another word.
    Word(Box<Word>),
    /// The help of a command.
    Help(Vec<String>),
}

impl Step {
    /// The step that a word of the command line is.
    ///
    /// # Errors
    /// What is wrong with its operands.
    pub(crate) fn of_word(word: Word) -> Result<Self, GrammarError> {
        let json = word.connect().is_some_and(|connect| connect.is_json());
        let act = match word.command()? {
            Some(command) => Act::Command(command),
            None => match word {
                Word::Help { topic } => Act::Help(topic),
                word => Act::Word(Box::new(word)),
            },
        };
        Ok(Self { act, json })
    }

    /// Whether a level says anything about it.
    pub(crate) fn has_level(&self) -> bool {
        match &self.act {
            Act::Command(command) => matches!(
                command,
                Command::Read { .. }
                    | Command::Write { .. }
                    | Command::Delete { .. }
                    | Command::Scan(_)
            ),
            Act::Word(word) => matches!(**word, Word::Load(_) | Word::Verify(_)),
            Act::Help(_) => false,
        }
    }

    /// Whether it is of no use where its output is lost.
    fn is_for_its_output(&self) -> bool {
        match &self.act {
            Act::Command(command) => matches!(
                command,
                Command::Read { .. }
                    | Command::Scan(_)
                    | Command::Search(_)
                    | Command::ShowAll { .. }
            ),
            Act::Word(word) => word.creates_token(),
            Act::Help(_) => true,
        }
    }

    /// Whether it can be had at the level of the connection, if one was written.
    ///
    /// # Errors
    /// It cannot, and what to write.
    pub(crate) fn fits(&self, given: Option<Level>) -> Result<(), Problem> {
        match &self.act {
            Act::Command(command) => run::fits(command, given),
            Act::Word(_) | Act::Help(_) => Ok(()),
        }
    }

    /// Whether it may have changed something when it is given up.
    pub(crate) fn writes(&self) -> bool {
        match &self.act {
            Act::Command(command) => {
                matches!(command, Command::Write { .. } | Command::Delete { .. })
            }
            Act::Word(word) => word.writes(),
            Act::Help(_) => false,
        }
    }
}

impl From<Command> for Step {
    fn from(command: Command) -> Self {
        Self { act: Act::Command(command), json: false }
    }
}

/// Reads one line; `None` if it is empty or a comment.
pub(crate) fn parse_line(line: &[u8]) -> Result<Option<Step>, GrammarError> {
    let text = line.trim_ascii_start();
    if text.is_empty() || text[0] == b'#' {
        return Ok(None);
    }
    let words = grammar::words_of(text).map_err(|error| error.within(text))?;
    match words {
        None => Ok(grammar::parse_line(line)?.map(Step::from)),
        Some(words) => of_words(&words).map(Some).map_err(|error| error.within(text)),
    }
}

/// Reads arguments. Each is a command, except that a first one which is a word with operands makes
/// all of them the words of one command: the shell has done the quoting.
pub(crate) fn parse_arguments(arguments: &[Vec<u8>]) -> Result<Vec<Step>, GrammarError> {
    if let Some(first) = arguments.first()
        && (grammar::takes_operands(first)
            || (is_other_word(first) && arguments.len() > 1)
            || (first == b"help" && arguments.len() > 1))
    {
        let step = of_words(arguments);
        return Ok(vec![step.map_err(|error| error.within(&arguments.join(&b' ')))?]);
    }
    let one = |argument: &Vec<u8>| {
        let empty = || GrammarError::new("empty command", "help lists the commands");
        parse_line(argument)?.ok_or_else(empty)
    };
    arguments.iter().map(one).collect()
}

/// Reads the arguments of the process as steps.
///
/// # Errors
/// What is wrong with them, in one line.
pub(crate) fn parse_commands(commands: Vec<OsString>) -> Result<Vec<Step>, String> {
    let commands: Vec<Vec<u8>> = commands.into_iter().map(OsString::into_vec).collect();
    parse_arguments(&commands).map_err(|error| error.to_string())
}

/// Whether a word is one of the command line that the grammar does not know.
fn is_other_word(word: &[u8]) -> bool {
    !grammar::is_word(word) && std::str::from_utf8(word).is_ok_and(is_network_word)
}

fn of_words(words: &[Vec<u8>]) -> Result<Step, GrammarError> {
    let Some((first, operands)) = words.split_first() else {
        return grammar::command(words).map(Step::from);
    };
    let texts = |words: &[Vec<u8>]| -> Vec<String> {
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    if first == b"help" && !operands.is_empty() {
        let topic = texts(operands);
        help::of(&topic)?;
        return Ok(Step { act: Act::Help(topic), json: false });
    }
    let known = grammar::is_word(first) || is_other_word(first);
    if known && operands.iter().any(|word| word == b"--help") {
        let topic = texts(words);
        let topic = topic.into_iter().take_while(|word| !word.starts_with('-')).take(1).collect();
        return Ok(Step { act: Act::Help(topic), json: false });
    }
    if is_other_word(first) {
        return of_arguments(words);
    }
    match grammar::command(words) {
        Ok(command) => Ok(command.into()),
        // Options of the command line, such as --output.
        Err(_) if operands.iter().any(|word| word.starts_with(b"--output")) => of_arguments(words),
        Err(error) => Err(error),
    }
}

/// Reads words as the command line does.
fn of_arguments(words: &[Vec<u8>]) -> Result<Step, GrammarError> {
    let arguments = words.iter().map(|word| OsString::from_vec(word.clone()));
    let word = OneWord::try_parse_from(arguments).map_err(|error| in_one_line(&error))?.word;
    if let Some(connect) = word.connect()
        && let Some(option) = connect.of_connection()
    {
        return Err(GrammarError::new(
            format!("{option} belongs to the connection"),
            "give it when dkv is started",
        ));
    }
    Step::of_word(word)
}

/// What is wrong, and how it is written.
fn in_one_line(error: &clap::Error) -> GrammarError {
    let text = error.to_string();
    let problem: Vec<&str> =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let problem = problem.join(" ");
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let usage = usage.map(|usage| usage.trim_start_matches("dkv [ADDRESS] "));
    let advice = usage.map_or_else(|| "see help".to_owned(), |usage| format!("write {usage}"));
    GrammarError::new(problem.trim_start_matches("error: "), advice)
}

/// Reads the values that the steps name, before any of them is done.
///
/// # Errors
/// What cannot be read.
pub(crate) async fn fill(steps: &mut [Step], stdin: &mut Stdin) -> Result<(), Problem> {
    for step in steps {
        match &mut step.act {
            Act::Command(command) => input::fill(command, stdin).await?,
            Act::Word(word) if word.reads_stdin() => {
                stdin.take()?;
                input::not_closed()?;
            }
            Act::Word(_) | Act::Help(_) => {}
        }
    }
    Ok(())
}

/// Takes steps in order until one asks to leave; the most serious of what went wrong.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn all(
    steps: &[Step],
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<Option<Failure>> {
    let mut failure = None;
    for step in steps {
        match one(step, store, screen).await? {
            Outcome::Done => {}
            Outcome::Failed(why) => failure = worst(failure, Some(why)),
            Outcome::Exit => break,
        }
    }
    Ok(failure)
}

/// Takes one step.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn one(
    step: &Step,
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<Outcome> {
    let before = screen.json;
    screen.json |= step.json;
    if screen.closed && step.is_for_its_output() {
        let problem = Problem::failed("standard output is closed; nothing was done");
        screen.problem(&problem);
        screen.json = before;
        return Ok(Outcome::Failed(problem.failure));
    }
    let outcome = match &step.act {
        Act::Command(command) => run::one(command, store, screen).await,
        Act::Word(word) => {
            let done = subcommands::perform(word, store, screen).await;
            run::outcome(done, screen)
        }
        Act::Help(topic) => {
            let text = help::of(topic).unwrap_or_else(|error| error.to_string());
            screen.line(&text).map(|()| Outcome::Done)
        }
    };
    screen.json = before;
    outcome
}

#[cfg(test)]
mod tests {
    use dkv_api::RunChoice;

    use super::*;

    fn step(line: &str) -> Act {
        parse_line(line.as_bytes()).unwrap().unwrap().act
    }

    fn wrong(line: &str) -> String {
        parse_line(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_line_knows_the_words_of_the_command_line() {
        assert!(matches!(step("R,key"), Act::Command(Command::Read { .. })));
        assert!(matches!(step("get key"), Act::Command(Command::Read { .. })));
        let Act::Word(word) = step("drain n1 --no-wait") else { panic!() };
        assert!(matches!(*word, Word::Drain { ref node, no_wait: true, .. } if node == "n1"));
        let Act::Word(word) = step("keep n1 10.0.0.2:4401") else { panic!() };
        let kept = RunChoice::Address("10.0.0.2:4401".parse().unwrap());
        assert!(matches!(*word, Word::Keep { ref node, run, .. } if node == "n1" && run == kept));
        assert!(word.writes());
        let Act::Word(word) = step("keep n1 3") else { panic!() };
        assert!(matches!(*word, Word::Keep { run: RunChoice::Start(3), .. }));
        assert!(wrong("keep n1 n2").contains("use an address as in 10.0.0.2:4401"));
        let Act::Word(word) = step("token revoke 00000000-0000-0000-0000-000000000001") else {
            panic!()
        };
        assert!(word.writes());
        assert!(
            wrong("drain").contains("required arguments were not provided: <NODE>; write drain")
        );
        assert!(wrong("drain n1 --level all").contains("--level belongs to the connection"));
        assert!(wrong("drainn n1").contains("there is no command drainn"));
        assert!(wrong("local --nodes 3").contains("there is no command local"));
        assert!(!wrong("token create --role x\x07").chars().any(char::is_control));
    }

    #[test]
    fn results_may_be_documents_line_by_line() {
        for line in ["get key --output json", "drain n1 --output json", "put k v --output=json"] {
            assert!(parse_line(line.as_bytes()).unwrap().unwrap().json, "{line}");
        }
        assert!(!parse_line(b"get key").unwrap().unwrap().json);
    }

    #[test]
    fn each_command_has_its_help_in_each_place() {
        for line in ["help get", "get --help", "get key --help"] {
            assert!(matches!(step(line), Act::Help(topic) if topic == ["get"]), "{line}");
        }
        assert!(matches!(step("help"), Act::Command(Command::Help)));
        assert!(matches!(step("help token create"), Act::Help(topic) if topic.len() == 2));
        assert!(matches!(step("drain --help"), Act::Help(topic) if topic == ["drain"]));
        assert!(wrong("help me").contains("there is no command me"));
        let all = parse_arguments(&[b"help".to_vec(), b"get".to_vec()]).unwrap();
        assert!(matches!(&all[0].act, Act::Help(topic) if topic == &["get"]));
    }

    #[test]
    fn arguments_are_lines_or_the_words_of_one_command() {
        let read = |texts: &[&str]| {
            parse_arguments(&texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(read(&["W,a,1", "drain n1 --no-wait", "get a"]).unwrap().len(), 3);
        assert_eq!(read(&["drain", "n1"]).unwrap().len(), 1);
        assert_eq!(read(&["put", "a key", "v"]).unwrap().len(), 1);
        assert_eq!(read(&["nodes", "status", "help"]).unwrap().len(), 3);
        assert_eq!(read(&[]).unwrap().len(), 0);
        assert!(read(&["W,a,1", ""]).unwrap_err().to_string().contains("empty command"));
    }

    #[tokio::test]
    async fn standard_input_is_asked_for_once() {
        let texts = [b"load -".to_vec(), b"put k -".to_vec()];
        let mut steps = parse_arguments(&texts).unwrap();
        let refused = fill(&mut steps, &mut Stdin::Free).await.unwrap_err();
        assert!(refused.message.contains("once only"), "{}", refused.message);
    }
}
