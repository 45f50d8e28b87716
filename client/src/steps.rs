//! Turns typed commands into steps. The same words mean the same in the arguments of `dkv`, after
//! `--`, in a pipe and at the prompt.
//!
//! `grammar` parses the commands that read and write keys; every other word, such as `drain`, is
//! parsed like the command line, with the same options and the same help.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Parser;
use dkv_api::Level;
use dkv_console::Console;
use dkv_console::problem::{Failure, Problem, worst};

use crate::cli::{KeyspaceAction, KeyspaceArgs, SingleSubcommand, Subcommand, is_network_word};
use crate::grammar::{self, Command, GrammarError, ValueSource};
use crate::input::{self, Stdin};
use crate::run::{self, Outcome};
use crate::store::Store;
use crate::{help, subcommands};

/// One step of a script.
#[derive(Debug)]
pub(crate) struct Step {
    /// What to do.
    pub(crate) act: StepKind,
    /// Whether its results are JSON documents, whatever the default.
    json: bool,
    /// The keyspace of its keys, if it names one.
    keyspace: Option<String>,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum StepKind {
    /// A command of the grammar.
    Command(Command),
    /// A subcommand that the grammar does not have.
    Subcommand(Box<Subcommand>),
    /// The help of a command.
    Help(Vec<String>),
}

impl Step {
    /// Returns the step of a subcommand.
    ///
    /// # Errors
    /// A mistake in its operands.
    pub(crate) fn from_subcommand(word: Subcommand) -> Result<Self, GrammarError> {
        let json = word.connect().is_some_and(|connect| connect.is_json());
        let keyspace = word.connect().and_then(|connect| connect.keyspace);
        let act = match word.command()? {
            Some(command) => StepKind::Command(command),
            None => match word {
                Subcommand::Help { topic } => StepKind::Help(topic),
                word => StepKind::Subcommand(Box::new(word)),
            },
        };
        Ok(Self { act, json, keyspace })
    }

    /// Returns whether it is about keys, and so about those of one keyspace.
    pub(crate) fn has_keyspace(&self) -> bool {
        match &self.act {
            StepKind::Command(command) => matches!(
                command,
                Command::Read { .. }
                    | Command::Write { .. }
                    | Command::Delete { .. }
                    | Command::Scan(_)
                    | Command::History(_)
                    | Command::Watch(_)
                    | Command::Search(_)
                    | Command::ShowAll { .. }
            ),
            StepKind::Subcommand(word) => word.is_on_keys(),
            StepKind::Help(_) => false,
        }
    }

    /// Returns whether it takes a keyspace although it is not about its keys.
    pub(crate) fn takes_keyspace(&self) -> bool {
        matches!(&self.act, StepKind::Subcommand(word) if word.takes_keyspace())
    }

    /// Returns whether a level applies to it.
    pub(crate) fn has_level(&self) -> bool {
        match &self.act {
            StepKind::Command(command) => matches!(
                command,
                Command::Read { .. }
                    | Command::Write { .. }
                    | Command::Delete { .. }
                    | Command::Scan(_)
            ),
            StepKind::Subcommand(word) => {
                matches!(**word, Subcommand::Load(_) | Subcommand::Verify(_))
                    || matches!(&**word, Subcommand::Import(args) if args.of_etcd().is_none())
            }
            StepKind::Help(_) => false,
        }
    }

    /// Returns whether it is useless without its output.
    fn is_for_its_output(&self) -> bool {
        match &self.act {
            StepKind::Command(command) => matches!(
                command,
                Command::Read { .. }
                    | Command::Scan(_)
                    | Command::History(_)
                    | Command::Watch(_)
                    | Command::Search(_)
                    | Command::ShowAll { .. }
            ),
            StepKind::Subcommand(word) => word.creates_token() || word.is_bundle_for_output(),
            StepKind::Help(_) => true,
        }
    }

    /// Checks that it can run at the level of the connection, if the user gave one.
    ///
    /// # Errors
    /// It cannot; says what to write instead.
    pub(crate) fn check_level(&self, given: Option<Level>) -> Result<(), Problem> {
        match &self.act {
            StepKind::Command(command) => run::check_level(command, given),
            StepKind::Subcommand(_) | StepKind::Help(_) => Ok(()),
        }
    }

    /// Returns whether it handles Ctrl-C itself, which is how it ends.
    pub(crate) fn ends_at_interrupt(&self) -> bool {
        match &self.act {
            StepKind::Command(command) => matches!(command, Command::Watch(_)),
            StepKind::Subcommand(word) => word.ends_at_interrupt(),
            StepKind::Help(_) => false,
        }
    }

    /// Returns whether it may have changed something when it is interrupted.
    pub(crate) fn writes(&self) -> bool {
        match &self.act {
            StepKind::Command(command) => {
                matches!(command, Command::Write { .. } | Command::Delete { .. })
            }
            StepKind::Subcommand(word) => word.writes(),
            StepKind::Help(_) => false,
        }
    }
}

impl From<Command> for Step {
    fn from(command: Command) -> Self {
        Self { act: StepKind::Command(command), json: false, keyspace: None }
    }
}

/// Parses one line. Returns `None` if it is empty or a comment.
///
/// # Errors
/// A mistake in it.
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

/// Parses arguments. Each is a command, unless the first is a word that takes operands: then all of
/// them are the words of one command, which the shell has already split.
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

/// Parses the commands among the arguments of the process.
///
/// # Errors
/// A mistake in them.
pub(crate) fn parse_commands(commands: Vec<OsString>) -> Result<Vec<Step>, GrammarError> {
    let commands: Vec<Vec<u8>> = commands.into_iter().map(OsString::into_vec).collect();
    parse_arguments(&commands)
}

/// Returns whether a word is a subcommand that the grammar does not have.
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
        return Ok(Step { act: StepKind::Help(topic), json: false, keyspace: None });
    }
    let known = grammar::is_word(first) || is_other_word(first);
    if known && operands.iter().any(|word| word == b"--help") {
        let topic = texts(words);
        let topic = topic.into_iter().take_while(|word| !word.starts_with('-')).take(1).collect();
        return Ok(Step { act: StepKind::Help(topic), json: false, keyspace: None });
    }
    if is_other_word(first) {
        return of_arguments(words);
    }
    match grammar::command(words) {
        Ok(command) => Ok(command.into()),
        // The grammar does not know options such as --output.
        Err(_) if operands.iter().any(|word| is_option(word)) => of_arguments(words),
        Err(error) => Err(error),
    }
}

/// Returns whether a word is an option of all commands.
fn is_option(word: &[u8]) -> bool {
    word.starts_with(b"--output") || word.starts_with(b"--keyspace")
}

/// Parses words like a command line.
fn of_arguments(words: &[Vec<u8>]) -> Result<Step, GrammarError> {
    let arguments = words.iter().map(|word| OsString::from_vec(word.clone()));
    let word = SingleSubcommand::try_parse_from(arguments)
        .map_err(|error| in_one_line(&error))?
        .subcommand;
    if let Some(connect) = word.connect()
        && let Some(option) = connect.of_connection()
    {
        return Err(GrammarError::new(
            format!("{option} belongs to the connection"),
            "give it when you start dkv",
        ));
    }
    if let Subcommand::Keyspace(KeyspaceArgs {
        action: KeyspaceAction::Drop { name, yes: None, .. },
        ..
    }) = &word
    {
        let shown = name.escape_debug();
        return Err(GrammarError::new(
            "dropping a keyspace needs its name once more",
            format!("write keyspace drop {shown} --yes {shown}"),
        ));
    }
    Step::from_subcommand(word)
}

/// Shortens an error of the argument parser to one line.
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

/// Reads the values that the steps name, before any step runs.
///
/// # Errors
/// What cannot be read.
pub(crate) async fn read_values(steps: &mut [Step], stdin: &mut Stdin) -> Result<(), Problem> {
    for step in steps {
        match &mut step.act {
            StepKind::Command(command) => input::read_value(command, stdin).await?,
            StepKind::Subcommand(word) => {
                if word.reads_stdin() {
                    stdin.take()?;
                    input::not_closed()?;
                }
                if let Subcommand::Append { value, .. } = &mut **word {
                    let mut source = ValueSource::of_operand(value.as_bytes())?;
                    input::read_source(&mut source, stdin).await?;
                    *value = OsString::from_vec(source.operand());
                }
            }
            StepKind::Help(_) => {}
        }
    }
    Ok(())
}

/// Runs steps in order until one asks to leave. Returns the most serious failure.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn run_all(
    steps: &[Step],
    store: &impl Store,
    console: &mut Console,
) -> io::Result<Option<Failure>> {
    let mut failure = None;
    for step in steps {
        match run(step, store, console).await? {
            Outcome::Done => {}
            Outcome::Failed(why) => failure = worst(failure, Some(why)),
            Outcome::Exit => break,
        }
    }
    Ok(failure)
}

/// Runs one step.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn run(
    step: &Step,
    store: &impl Store,
    console: &mut Console,
) -> io::Result<Outcome> {
    let before = console.json;
    console.json |= step.json;
    if console.closed && step.is_for_its_output() {
        let problem = Problem::failed("standard output is closed; nothing was done");
        console.problem(&problem);
        console.json = before;
        return Ok(Outcome::Failed(problem.failure));
    }
    let keyspace = step.keyspace.as_ref().filter(|_| step.has_keyspace());
    let outcome = match keyspace {
        Some(name) => match store.in_keyspace(name).await {
            Ok(session) => act(&step.act, &session, console).await,
            Err(problem) => run::report(Err(problem.into()), console),
        },
        None => act(&step.act, store, console).await,
    };
    console.json = before;
    outcome
}

async fn act(act: &StepKind, store: &impl Store, console: &mut Console) -> io::Result<Outcome> {
    match act {
        StepKind::Command(command) => run::run(command, store, console).await,
        StepKind::Subcommand(word) => {
            let done = subcommands::run(word, store, console).await;
            run::report(done, console)
        }
        StepKind::Help(topic) => {
            let text = help::of(topic).unwrap_or_else(|error| error.to_string());
            console.line(&text).map(|()| Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::RunChoice;

    use super::*;

    fn step(line: &str) -> StepKind {
        parse_line(line.as_bytes()).unwrap().unwrap().act
    }

    fn wrong(line: &str) -> String {
        parse_line(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_line_may_be_a_subcommand() {
        assert!(matches!(step("R,key"), StepKind::Command(Command::Read { .. })));
        assert!(matches!(step("get key"), StepKind::Command(Command::Read { .. })));
        let StepKind::Subcommand(word) = step("drain n1 --no-wait") else { panic!() };
        assert!(matches!(*word, Subcommand::Drain { ref node, no_wait: true, .. } if node == "n1"));
        let StepKind::Subcommand(word) = step("keep n1 10.0.0.2:4401") else { panic!() };
        let kept = RunChoice::Address("10.0.0.2:4401".parse().unwrap());
        assert!(
            matches!(*word, Subcommand::Keep { ref node, run, .. } if node == "n1" && run == kept)
        );
        assert!(word.writes());
        let StepKind::Subcommand(word) = step("keep n1 3") else { panic!() };
        assert!(matches!(*word, Subcommand::Keep { run: RunChoice::Start(3), .. }));
        assert!(wrong("keep n1 n2").contains("use an address such as 10.0.0.2:4401"));
        let StepKind::Subcommand(word) = step("token revoke 00000000-0000-0000-0000-000000000001")
        else {
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
    fn each_line_may_ask_for_json() {
        for line in ["get key --output json", "drain n1 --output json", "put k v --output=json"] {
            assert!(parse_line(line.as_bytes()).unwrap().unwrap().json, "{line}");
        }
        assert!(!parse_line(b"get key").unwrap().unwrap().json);
    }

    #[test]
    fn every_command_offers_help() {
        for line in ["help get", "get --help", "get key --help"] {
            assert!(matches!(step(line), StepKind::Help(topic) if topic == ["get"]), "{line}");
        }
        assert!(matches!(step("help"), StepKind::Command(Command::Help)));
        assert!(matches!(step("help token create"), StepKind::Help(topic) if topic.len() == 2));
        assert!(matches!(step("drain --help"), StepKind::Help(topic) if topic == ["drain"]));
        assert!(wrong("help me").contains("there is no command me"));
        let all = parse_arguments(&[b"help".to_vec(), b"get".to_vec()]).unwrap();
        assert!(matches!(&all[0].act, StepKind::Help(topic) if topic == &["get"]));
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
    async fn standard_input_is_read_only_once() {
        let texts = [b"load -".to_vec(), b"put k -".to_vec()];
        let mut steps = parse_arguments(&texts).unwrap();
        let refused = read_values(&mut steps, &mut Stdin::Free).await.unwrap_err();
        assert!(refused.message.contains("only once"), "{}", refused.message);
    }
}
