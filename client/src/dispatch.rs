//! From the command line to whatever does it, and from its end to an exit status.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use dkv_api::Role;
use dkv_console::console::Screen;
use dkv_console::problem::{Failure, Problem};
use dkv_console::signals::{Ending, Signals};

use crate::api_problems::connect_problem;
use crate::cli::{Addresses, Cli, Connect, Line, Output, Word, usual};
use crate::exit::{ended, finished};
use crate::grammar::{Command, GrammarError};
use crate::input::Stdin;
use crate::steps::{self, Act, Step};
use crate::store::{Connection, Session, Store};
use crate::{completions, drill, gateway, help, input, local, pipe, prompt, rehearse};

/// The whole program.
pub fn main() -> ExitCode {
    let line = match Line::read(std::env::args_os()) {
        Ok(line) => line,
        Err(error) => return not_a_line(&error),
    };
    if line.address.is_none()
        && matches!(line.word, Some(Word::Server(_) | Word::Node(_) | Word::Gateway(_)))
    {
        dkv_local::tether::die_with_parent();
    }
    let no_client = match &line.word {
        Some(Word::Server(_)) => Some("server"),
        Some(Word::Node(_)) => Some("node"),
        Some(Word::Completions { .. }) => Some("completions"),
        Some(Word::Help { .. }) => Some("help"),
        _ => None,
    };
    if let (Some(name), Some(option)) = (no_client, line.connect.of_connection()) {
        let problem = Problem::usage(format!("{name} does not take {option}"));
        return ended(&mut Screen::of_process(), &problem);
    }
    let line = match line {
        // It makes its own threads.
        Line { address: None, word: Some(Word::Node(args)), .. } => return dkv_daemon::main(args),
        line => line,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Screen::of_process().error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(dispatch(line));
    // A thread that waits for a line of stdin would hold the end up.
    runtime.shutdown_timeout(Duration::ZERO);
    status
}

/// Shows the help that was asked for, or what is wrong with the command line.
fn not_a_line(error: &clap::Error) -> ExitCode {
    let mut screen = Screen::of_process();
    if !error.use_stderr() {
        if screen.closed {
            return ended(&mut screen, &Problem::failed("standard output is closed"));
        }
        let printed = error.print().and_then(|()| io::stdout().flush());
        return finished(&mut screen, printed.map(|()| None));
    }
    screen.json = wants_json();
    if screen.json {
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let words: Vec<&str> = text.split_whitespace().collect();
        return ended(&mut screen, &Problem::usage(words.join(" ")));
    }
    // Nobody is left to tell if this fails.
    let _ = error.print();
    ExitCode::from(Failure::Usage.status())
}

/// Whether a command line that cannot be understood asks for documents.
fn wants_json() -> bool {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let pair = |pair: &[OsString]| pair[0] == "--output" && pair[1] == "json";
    arguments.windows(2).any(pair)
        || arguments.iter().any(|argument| argument == "--output=json" || argument == "--json")
}

async fn dispatch(line: Line) -> ExitCode {
    let mut screen = Screen::of_process();
    let Line { address, commands, connect, word } = line;
    let of_word = word.as_ref().and_then(Word::connect).unwrap_or_default();
    let json_alone =
        matches!(word, Some(Word::Status { json: true, .. } | Word::Holders { json: true, .. }));
    screen.json =
        of_word.clone().or(connect.clone()).is_json() || (json_alone && commands.is_empty());
    if json_alone && of_word.clone().or(connect.clone()).output == Some(Output::Text) {
        screen.json = false;
        let why = "--json and --output text contradict each other; leave one of them out";
        return ended(&mut screen, &Problem::usage(why));
    }
    let stands_alone = address.is_none() && commands.is_empty();
    match word {
        Some(Word::Drill(args)) if commands.is_empty() => {
            drill::run(args, address, connect, &mut screen).await
        }
        Some(Word::Gateway(args)) if commands.is_empty() => {
            gateway::run(args, address, connect, &mut screen).await
        }
        Some(Word::Server(args)) if stands_alone => server(args).await,
        Some(Word::Local(args)) if stands_alone => local::run(args, connect, &mut screen).await,
        Some(Word::Rehearse(args)) if stands_alone => {
            rehearse::run(args, connect, &mut screen).await
        }
        Some(Word::Completions { .. } | Word::Help { .. }) if stands_alone && screen.closed => {
            ended(&mut screen, &Problem::failed("standard output is closed"))
        }
        Some(Word::Completions { shell }) if stands_alone => {
            let printed = screen.text(&completions::script(shell));
            finished(&mut screen, printed.map(|()| None))
        }
        Some(Word::Help { topic }) if stands_alone => match help::of(&topic) {
            Ok(text) => {
                let printed = screen.line(&text);
                finished(&mut screen, printed.map(|()| None))
            }
            Err(error) => ended(&mut screen, &Problem::usage(error.to_string())),
        },
        Some(
            Word::Server(_)
            | Word::Node(_)
            | Word::Local(_)
            | Word::Rehearse(_)
            | Word::Completions { .. }
            | Word::Help { .. }
            | Word::Drill(_)
            | Word::Gateway(_),
        ) => {
            let why = "this command stands alone; leave out what comes before it";
            ended(&mut screen, &Problem::usage(why))
        }
        word => {
            let asked = Asked { address, commands, word, connect: of_word.or(connect) };
            match on_network(asked, &mut screen).await {
                Ok(status) => status,
                Err(problem) => ended(&mut screen, &problem),
            }
        }
    }
}

/// Runs a registration server until it is told to stop.
async fn server(args: dkv_server::Args) -> ExitCode {
    match dkv_server::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dkv_wire::complain!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done on a network.
struct Asked {
    address: Option<Addresses>,
    commands: Vec<OsString>,
    word: Option<Word>,
    connect: Connect,
}

/// Commands, the prompt or a pipe.
async fn on_network(asked: Asked, screen: &mut Screen) -> Result<ExitCode, Problem> {
    let Asked { address, commands, mut word, connect } = asked;
    let then = word.as_mut().map_or_else(Vec::new, Word::then);
    let role = word.as_ref().map_or(Role::Client, Word::role);
    let mut steps =
        steps::parse_commands(commands).map_err(|why| mistaken(why, address.as_ref()))?;
    if let Some(word) = word {
        steps.push(Step::of_word(word).map_err(wrong)?);
        steps.extend(steps::parse_commands(then).map_err(Problem::usage)?);
    }
    if connect.level.is_some() && !steps.is_empty() && !steps.iter().any(Step::has_level) {
        return Err(Problem::usage(
            "--level is for commands that read or write keys; leave it out",
        ));
    }
    steps.iter().try_for_each(|step| step.fits(connect.level))?;
    if steps.iter().all(needs_no_network) && !steps.is_empty() {
        let result = without_network(&steps, screen);
        return Ok(finished(screen, result));
    }
    let servers = match address {
        Some(address) => address,
        None => usual().map_err(|why| nowhere(why, steps.is_empty()))?,
    };
    let mut stdin = Stdin::Free;
    steps::fill(&mut steps, &mut stdin).await?;
    unreadable_token(&connect, screen);
    let session = Session::connect(&Connection::new(servers, connect, role)).await;
    let session = session.map_err(|error| connect_problem(&error))?;
    let result = if !steps.is_empty() {
        steps::all(&steps, &session, screen).await
    } else if io::stdin().is_terminal() {
        let left = at_prompt(&session, screen).await;
        session.close().await;
        return Ok(match left {
            Ok(Some(ending)) => ExitCode::from(ending.status()),
            left => finished(screen, left.map(|_| None)),
        });
    } else {
        input::not_closed()?;
        let input = tokio::io::BufReader::new(tokio::io::stdin());
        pipe::run(input, &session, screen).await
    };
    session.close().await;
    Ok(finished(screen, result))
}

/// Says that the file with the token cannot be read: with stored credentials nobody looks at it.
fn unreadable_token(connect: &Connect, screen: &mut Screen) {
    if let Some(file) = &connect.token_file
        && let Err(error) = std::fs::File::open(file)
    {
        screen.note(&format!("cannot read the token file {}: {error}", file.display()));
    }
}

/// What is wrong with commands, and with the word before them if that was taken for an address.
fn mistaken(why: String, address: Option<&Addresses>) -> Problem {
    match address.map(|address| address.0.as_slice()) {
        Some([host]) if host.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            Problem::usage(format!("{why} ({host} was taken for the address of the server)"))
        }
        _ => Problem::usage(why),
    }
}

/// There is no address. Without a command either, whoever typed `dkv` may want to know what it is.
fn nowhere(why: String, nothing_asked: bool) -> Problem {
    if nothing_asked {
        // Nobody is left to tell if this fails.
        let _ = Cli::command().print_help();
    }
    Problem::usage(why)
}

fn needs_no_network(step: &Step) -> bool {
    matches!(step.act, Act::Help(_) | Act::Command(Command::Help | Command::Exit))
}

fn without_network(steps: &[Step], screen: &mut Screen) -> io::Result<Option<Failure>> {
    for step in steps {
        let text = match &step.act {
            Act::Help(topic) => help::of(topic).unwrap_or_else(|error| error.to_string()),
            Act::Command(Command::Help) => help::all(false),
            _ => break,
        };
        screen.line(&text)?;
    }
    Ok(None)
}

async fn at_prompt(session: &Session, screen: &mut Screen) -> io::Result<Option<Ending>> {
    let mut signals = Signals::take()?;
    screen.note(&format!("connected to {}; help lists the commands", session.address()));
    prompt::run(session, screen, &mut signals).await
}

fn wrong(error: GrammarError) -> Problem {
    Problem::usage(error.to_string())
}

/// Arguments as the process takes them, not obeyed.
pub(crate) fn check(arguments: Vec<OsString>) -> Result<(), String> {
    let words = std::iter::once("dkv".into()).chain(arguments);
    let line = Line::read(words).map_err(|error| error.to_string())?;
    steps::parse_commands(line.commands)?;
    match line.word {
        Some(word) => Step::of_word(word).map(drop).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
