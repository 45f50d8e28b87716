//! Runs the command line of the process.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use dkv_api::{Client, Role};
use dkv_base::durable::keep_files_private;
use dkv_console::Console;
use dkv_console::problem::{Failure, Problem};
use dkv_console::signals::{Signals, StopSignal};
use dkv_wire::token::Token;

use crate::api_problems::{connect_problem, request_problem};
use crate::cli::{
    Addresses, Cli, Connect, DefaultError, Line, Output, Subcommand, default_addresses,
};
use crate::exit::{ended, failure_of, finished};
use crate::grammar::{Command, GrammarError};
use crate::input::Stdin;
use crate::steps::{self, Step, StepKind};
use crate::store::{Connection, Session, Store};
use crate::{
    backup, completions, drill, gateway, help, input, local, lock, manual, pipe, prompt, recover,
    rehearse, run,
};

/// Runs the whole program.
pub fn main() -> ExitCode {
    let line = match Line::read(std::env::args_os()) {
        Ok(line) => line,
        Err(error) => return explain(&error),
    };
    // What others run with this, and manual pages, are for whom they will.
    if !matches!(line.subcommand, Some(Subcommand::Lock(_) | Subcommand::Manual { .. })) {
        keep_files_private();
    }
    if line.address.is_none()
        && matches!(
            line.subcommand,
            Some(Subcommand::Server(_) | Subcommand::Node(_) | Subcommand::Gateway(_))
        )
    {
        dkv_local::tether::die_with_parent();
    }
    let no_client = match &line.subcommand {
        Some(Subcommand::Server(_)) => Some("server"),
        Some(Subcommand::Node(_)) => Some("node"),
        Some(Subcommand::Recover(_)) => Some("recover"),
        Some(Subcommand::Completions { .. }) => Some("completions"),
        Some(Subcommand::Manual { .. }) => Some("manual"),
        Some(Subcommand::Help { .. }) => Some("help"),
        _ => None,
    };
    if let (Some(name), Some(option)) = (no_client, line.connect.not_for_processes()) {
        let problem = Problem::usage(format!("{name} does not take {option}"));
        return ended(&mut Console::of_process(), &problem);
    }
    let line = match line {
        // A node creates its own runtime.
        Line { address: None, subcommand: Some(Subcommand::Node(args)), .. } => {
            return dkv_daemon::main(args);
        }
        line => line,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Console::of_process().error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(dispatch(line));
    // A thread that waits for stdin must not delay the exit.
    runtime.shutdown_timeout(Duration::ZERO);
    status
}

/// Prints the requested help, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    let mut console = Console::of_process();
    if !error.use_stderr() {
        if console.closed {
            return ended(&mut console, &Problem::failed("standard output is closed"));
        }
        let printed = error.print().and_then(|()| io::stdout().flush());
        return finished(&mut console, printed.map(|()| None));
    }
    console.json = wants_json();
    if console.json {
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let words: Vec<&str> = text.split_whitespace().collect();
        return ended(&mut console, &Problem::usage(words.join(" ")));
    }
    // A closed stream has no reader.
    let _ = error.print();
    ExitCode::from(Failure::Usage.status())
}

/// Returns whether a command line that cannot be parsed asks for JSON.
fn wants_json() -> bool {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let pair = |pair: &[OsString]| pair[0] == "--output" && pair[1] == "json";
    arguments.windows(2).any(pair)
        || arguments.iter().any(|argument| argument == "--output=json" || argument == "--json")
}

async fn dispatch(line: Line) -> ExitCode {
    let mut console = Console::of_process();
    let Line { address, commands, connect, subcommand } = line;
    let of_subcommand = subcommand.as_ref().and_then(Subcommand::connect).unwrap_or_default();
    let json_flag = matches!(
        subcommand,
        Some(
            Subcommand::Status { json: true, .. }
                | Subcommand::Holders { json: true, .. }
                | Subcommand::History { json: true, .. }
                | Subcommand::Txn { json: true, .. }
                | Subcommand::Watch { json: true, .. }
        )
    ) || matches!(&subcommand, Some(Subcommand::Keyspace(args)) if args.action.json())
        || matches!(&subcommand, Some(Subcommand::Backup(args)) if args.action.json())
        || matches!(&subcommand, Some(Subcommand::Restore(args)) if args.json)
        || matches!(&subcommand, Some(Subcommand::Recover(args)) if args.json())
        || matches!(&subcommand, Some(Subcommand::Import(args))
            if args.of_etcd().is_some_and(|args| args.json))
        || matches!(&subcommand, Some(Subcommand::Explain(args)) if args.json)
        || matches!(&subcommand, Some(Subcommand::Doctor(args)) if args.json);
    console.json =
        of_subcommand.clone().or(connect.clone()).is_json() || (json_flag && commands.is_empty());
    if json_flag && of_subcommand.clone().or(connect.clone()).output == Some(Output::Text) {
        console.json = false;
        let why = "--json and --output text contradict each other; omit one of them";
        return ended(&mut console, &Problem::usage(why));
    }
    let is_only = address.is_none() && commands.is_empty();
    match subcommand {
        Some(Subcommand::Drill(args)) if commands.is_empty() => {
            drill::run(args, address, connect, &mut console).await
        }
        Some(Subcommand::Backup(args)) if is_only && args.action.is_offline() => {
            let done = backup::offline(&args.action, &mut console).await;
            let done = run::report(done, &mut console).map(failure_of);
            finished(&mut console, done)
        }
        Some(Subcommand::Recover(args)) if commands.is_empty() => {
            recover::run(&args, address, &mut console).await
        }
        Some(Subcommand::Lock(args)) if commands.is_empty() => {
            lock::run(args, address, connect, &mut console).await
        }
        Some(Subcommand::Gateway(args)) if commands.is_empty() => {
            gateway::run(args, address, connect, &mut console).await
        }
        Some(Subcommand::Server(args)) if is_only => server(args).await,
        Some(Subcommand::Local(args)) if is_only => local::run(args, connect, &mut console).await,
        Some(Subcommand::Rehearse(args)) if is_only => {
            rehearse::run(args, connect, &mut console).await
        }
        Some(Subcommand::Completions { .. } | Subcommand::Help { .. })
            if is_only && console.closed =>
        {
            ended(&mut console, &Problem::failed("standard output is closed"))
        }
        Some(Subcommand::Completions { shell }) if is_only => {
            let printed = console.text(&completions::script(shell));
            finished(&mut console, printed.map(|()| None))
        }
        Some(Subcommand::Manual { folder }) if is_only => match manual::write(&folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let why = format!("cannot write manual pages to {}: {error}", folder.display());
                ended(&mut console, &Problem::failed(why))
            }
        },
        Some(Subcommand::Help { topic }) if is_only => match help::of(&topic) {
            Ok(text) => {
                let printed = console.line(&text);
                finished(&mut console, printed.map(|()| None))
            }
            Err(error) => ended(&mut console, &Problem::usage(error.to_string())),
        },
        Some(
            Subcommand::Server(_)
            | Subcommand::Node(_)
            | Subcommand::Local(_)
            | Subcommand::Rehearse(_)
            | Subcommand::Recover(_)
            | Subcommand::Completions { .. }
            | Subcommand::Manual { .. }
            | Subcommand::Help { .. }
            | Subcommand::Drill(_)
            | Subcommand::Lock(_)
            | Subcommand::Gateway(_),
        ) => {
            let why = "this command must be the only one; omit what comes before it";
            ended(&mut console, &Problem::usage(why))
        }
        subcommand => {
            let asked =
                Request { address, commands, subcommand, connect: of_subcommand.or(connect) };
            match on_network(asked, &mut console).await {
                Ok(status) => status,
                Err(problem) => ended(&mut console, &problem),
            }
        }
    }
}

/// Runs a registration server until a signal stops it.
async fn server(args: dkv_server::Args) -> ExitCode {
    match dkv_server::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dkv_base::complain!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A request to run commands on a network.
struct Request {
    address: Option<Addresses>,
    commands: Vec<OsString>,
    subcommand: Option<Subcommand>,
    connect: Connect,
}

/// Runs the commands of the arguments, of the prompt or of a pipe.
async fn on_network(asked: Request, console: &mut Console) -> Result<ExitCode, Problem> {
    let Request { address, commands, mut subcommand, connect } = asked;
    if let Some(subcommand) = &mut subcommand
        && connect.typed(&["--keyspace"]).is_some()
    {
        subcommand.set_keyspace(connect.keyspace.clone());
    }
    let then = subcommand.as_mut().map_or_else(Vec::new, Subcommand::then);
    let role = subcommand.as_ref().map_or(Role::Client, Subcommand::role);
    let mut steps =
        steps::parse_commands(commands).map_err(|error| malformed(&error, address.as_ref()))?;
    if let Some(subcommand) = subcommand {
        steps.push(Step::from_subcommand(subcommand)?);
        steps.extend(steps::parse_commands(then)?);
    }
    if connect.level.is_some() && !steps.is_empty() && !steps.iter().any(Step::has_level) {
        return Err(Problem::usage(
            "--level applies only to commands that read or write keys; omit it",
        ));
    }
    steps.iter().try_for_each(|step| step.check_level(connect.level))?;
    let is_on_keys = steps.is_empty() || steps.iter().any(Step::has_keyspace);
    let takes_keyspace = steps.iter().any(Step::takes_keyspace);
    if !is_on_keys && !takes_keyspace && connect.typed(&["--keyspace"]).is_some() {
        return Err(Problem::usage("--keyspace applies only to commands on keys; omit it"));
    }
    let keyspace = connect.keyspace.clone().filter(|_| is_on_keys);
    if steps.iter().all(needs_no_network) && !steps.is_empty() {
        let result = print_help(&steps, console);
        return Ok(finished(console, result));
    }
    let servers = match address {
        Some(address) => address,
        None => default_addresses().map_err(|error| no_address(&error, steps.is_empty()))?,
    };
    let mut stdin = Stdin::Free;
    steps::read_values(&mut steps, &mut stdin).await?;
    unreadable_token(&connect, console);
    let token_file = connect.token_file.clone();
    let session = Session::connect(&Connection::new(servers, connect, role)).await;
    let session = session.map_err(|error| connect_problem(&error))?;
    if let Some(file) = &token_file {
        unused_token(file, &session.client, console);
    }
    let session = match &keyspace {
        Some(name) => session.in_keyspace(name).await.map_err(|error| request_problem(&error))?,
        None => session,
    };
    let result = if !steps.is_empty() {
        steps::run_all(&steps, &session, console).await
    } else if io::stdin().is_terminal() {
        let left = at_prompt(&session, console).await;
        session.close().await;
        return Ok(match left {
            Ok(Some(ending)) => ExitCode::from(ending.status()),
            left => finished(console, left.map(|_| None)),
        });
    } else {
        input::not_closed()?;
        let input = tokio::io::BufReader::new(tokio::io::stdin());
        pipe::run(input, &session, console).await
    };
    session.close().await;
    Ok(finished(console, result))
}

/// Says that a token is not used because there are credentials already, from another one, which may
/// be another user's.
fn unused_token(file: &Path, client: &Client, console: &mut Console) {
    let Some(used) = client.token_id() else { return };
    // A pipe could take for ever, and would lose its writer.
    let is_file = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    let text = is_file.then(|| std::fs::read_to_string(file).ok()).flatten();
    let Some(named) = text.and_then(|text| text.parse::<Token>().ok()) else { return };
    if named.id == used {
        return;
    }
    let identity = client.identity();
    console.note(&format!(
        "the token in {} is not used: there are credentials of the role {} already, from token \
         {used}; to use it, delete credentials/{}/{} in its state directory, or set DKV_HOME to \
         another one",
        file.display(),
        identity.role,
        identity.network,
        identity.role,
    ));
}

/// Warns if the token file cannot be read, which stored credentials may make unnecessary.
fn unreadable_token(connect: &Connect, console: &mut Console) {
    let tried = |file: &PathBuf| match std::fs::metadata(file) {
        Ok(kind) if kind.is_file() => std::fs::File::open(file).map(drop),
        // A pipe would lose its writer.
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Some(file) = &connect.token_file
        && let Err(error) = tried(file)
    {
        console.note(&format!("cannot read the token file {}: {error}", file.display()));
    }
}

/// Returns the problem with malformed commands, and mentions a word that was taken as an address.
fn malformed(error: &GrammarError, address: Option<&Addresses>) -> Problem {
    match address.map(|address| address.0.as_slice()) {
        Some([host]) if host.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            Problem::usage(format!("{error} ({host} was taken as the address of the server)"))
        }
        _ => Problem::usage(error.to_string()),
    }
}

/// Returns the problem of a missing address. A plain `dkv` also gets the help.
fn no_address(error: &DefaultError, nothing_asked: bool) -> Problem {
    if nothing_asked {
        // A closed stream has no reader.
        let _ = Cli::command().print_help();
    }
    Problem::usage(error.to_string())
}

fn needs_no_network(step: &Step) -> bool {
    matches!(step.act, StepKind::Help(_) | StepKind::Command(Command::Help | Command::Exit))
}

fn print_help(steps: &[Step], console: &mut Console) -> io::Result<Option<Failure>> {
    for step in steps {
        let text = match &step.act {
            StepKind::Help(topic) => help::of(topic).unwrap_or_else(|error| error.to_string()),
            StepKind::Command(Command::Help) => help::all(false),
            _ => break,
        };
        console.line(&text)?;
    }
    Ok(None)
}

async fn at_prompt(session: &Session, console: &mut Console) -> io::Result<Option<StopSignal>> {
    let mut signals = Signals::take()?;
    console.note(&format!("connected to {}; help lists the commands", session.address()));
    prompt::run(session, console, &mut signals).await
}

/// A wrong command line: nothing was done.
impl From<GrammarError> for Problem {
    fn from(error: GrammarError) -> Self {
        Self::usage(error.to_string())
    }
}

/// Why the arguments of the process are not a command line. The user corrects them.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// An option or a subcommand is wrong, or help was requested.
    #[error(transparent)]
    Option(#[from] clap::Error),
    /// A command is wrong.
    #[error(transparent)]
    Command(#[from] GrammarError),
}

/// Parses the arguments of the process without running them.
pub(crate) fn check(arguments: Vec<OsString>) -> Result<(), ArgumentsError> {
    let words = std::iter::once("dkv".into()).chain(arguments);
    let line = Line::read(words)?;
    steps::parse_commands(line.commands)?;
    if let Some(subcommand) = line.subcommand {
        Step::from_subcommand(subcommand)?;
    }
    Ok(())
}
