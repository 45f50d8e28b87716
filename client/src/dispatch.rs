//! From the command line to whatever does it, and from its end to an exit status.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use dkv_api::{ConnectError, Level, Role};
use dkv_wire::join::JoinError;
use dkv_wire::message::JoinRefusal;

use crate::cli::{Addresses, Cli, Connect, TokenAction, Word};
use crate::grammar::{self, Command, Scan};
use crate::load::{self, Task};
use crate::screen::Screen;
use crate::signals::Signals;
use crate::store::{Connection, Session, Store};
use crate::{admin, drill, gateway, holders, local, pipe, places, prompt, rehearse, roles, run};

/// Exit status for a command line that is wrong.
const USAGE: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is not an error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    if cli.address.is_none()
        && matches!(cli.word, Some(Word::Server(_) | Word::Node(_) | Word::Gateway(_)))
    {
        roles::die_with_parent();
    }
    let cli = match cli {
        // It makes its own threads.
        Cli { address: None, word: Some(Word::Node(args)), .. } => return roles::node(args),
        cli => cli,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Screen::of_process().error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(dispatch(cli));
    // A thread that waits for a line of stdin would hold the end up.
    runtime.shutdown_timeout(Duration::ZERO);
    status
}

async fn dispatch(cli: Cli) -> ExitCode {
    let mut screen = Screen::of_process();
    let Cli { address, commands, connect, word } = cli;
    match (address, word) {
        (None, None) => {
            // Nobody is left to tell if this fails.
            let _ = Cli::command().print_help();
            ExitCode::from(USAGE)
        }
        (None, Some(Word::Server(_) | Word::Node(_) | Word::Completions { .. }))
            if connect.level.is_some() || connect.timeout.is_some() =>
        {
            usage(&mut screen, "--level and --timeout are for clients, and this word is none")
        }
        (None, Some(word)) => match word {
            Word::Server(args) => roles::server(args).await,
            Word::Local(args) => local::run(args, connect, &mut screen).await,
            Word::Drill(args) => drill::run(args, None, connect, &mut screen).await,
            Word::Rehearse(args) => rehearse::run(args, connect, &mut screen).await,
            Word::Gateway(args) => gateway::run(args, None, connect, &mut screen).await,
            Word::Completions { shell } => completions(shell),
            other => {
                let form = other.needs_address().unwrap_or_default();
                usage(
                    &mut screen,
                    &format!(
                        "the address of the server is missing; write dkv 127.0.0.1:4400 {form}"
                    ),
                )
            }
        },
        (Some(address), None) => on_network(address, commands, connect, &mut screen).await,
        (Some(address), Some(Word::Drill(args))) => {
            drill::run(args, Some(address), connect, &mut screen).await
        }
        (Some(address), Some(Word::Gateway(args))) => {
            gateway::run(args, Some(address), connect, &mut screen).await
        }
        (Some(address), Some(word)) => word_on_network(address, word, connect, &mut screen).await,
    }
}

/// Commands, the prompt or a pipe.
async fn on_network(
    address: Addresses,
    commands: Vec<OsString>,
    connect: Connect,
    screen: &mut Screen,
) -> ExitCode {
    let commands = match parse_commands(commands) {
        Ok(commands) => commands,
        Err(problem) => return usage(screen, &problem),
    };
    let session = match Session::connect(&connection(address, connect, Role::Client)).await {
        Ok(session) => session,
        Err(error) => return not_connected(screen, &error),
    };
    let result = if !commands.is_empty() {
        run::all(&commands, &session, screen).await
    } else if io::stdin().is_terminal() {
        at_prompt(&session, screen).await
    } else {
        let input = tokio::io::BufReader::new(tokio::io::stdin());
        pipe::run(input, &session, screen).await
    };
    session.client.close().await;
    finished(screen, result)
}

async fn at_prompt(session: &Session, screen: &mut Screen) -> io::Result<bool> {
    let mut signals = Signals::take()?;
    screen.note(&format!("connected to {}; help shows the commands", session.address()));
    Ok(prompt::run(session, screen, &mut signals).await?.is_none())
}

/// Arguments as commands.
pub(crate) fn parse_commands(commands: Vec<OsString>) -> Result<Vec<Command>, String> {
    let commands: Vec<Vec<u8>> = commands.into_iter().map(OsString::into_vec).collect();
    grammar::parse_arguments(&commands).map_err(|error| error.to_string())
}

async fn word_on_network(
    address: Addresses,
    word: Word,
    outer: Connect,
    screen: &mut Screen,
) -> ExitCode {
    let (connect, role) = match &word {
        Word::Status { connect, .. } | Word::Scan { connect, .. } => (connect, Role::Client),
        Word::Load(args) => (&args.transfer.connect, Role::Client),
        Word::Verify(args) => (&args.connect, Role::Client),
        Word::Token(args) => {
            let inner = match &args.action {
                TokenAction::Create { connect, .. }
                | TokenAction::List { connect }
                | TokenAction::Revoke { connect, .. } => connect,
            };
            (&inner.clone().or(args.connect.clone()), Role::Admin)
        }
        // Looking changes nothing.
        Word::Rebalance { dry_run: true, connect } => (connect, Role::Client),
        Word::Drain { connect, .. }
        | Word::Rebalance { connect, .. }
        | Word::Remove { connect, .. }
        | Word::Keep { connect, .. }
        | Word::Holders { connect, .. }
        | Word::Revoke { connect, .. } => (connect, Role::Admin),
        Word::Local(_)
        | Word::Drill(_)
        | Word::Rehearse(_)
        | Word::Server(_)
        | Word::Node(_)
        | Word::Gateway(_)
        | Word::Completions { .. } => {
            return usage(screen, "this word stands alone; leave the address before it out");
        }
    };
    let connect = connect.clone().or(outer);
    let asks = matches!(word, Word::Scan { .. } | Word::Load(_) | Word::Verify(_));
    if connect.level.is_some() && !asks {
        return usage(screen, "--level is for reads and writes, and this word does neither");
    }
    let connection = connection(address, connect, role);
    let session = match Session::connect(&connection).await {
        Ok(session) => session,
        Err(error) => return not_connected(screen, &error),
    };
    let result = on_session(&word, &session, screen).await;
    session.client.close().await;
    finished(screen, result)
}

async fn on_session(word: &Word, session: &Session, screen: &mut Screen) -> io::Result<bool> {
    match word {
        Word::Status { json, .. } => {
            run::all(&[Command::Status { json: *json }], session, screen).await
        }
        Word::Scan { prefix, after, limit, keys, .. } => {
            let bytes = |text: &Option<OsString>| text.clone().unwrap_or_default().into_vec();
            let (prefix, after) = (bytes(prefix), bytes(after));
            let scan = Scan { prefix, after, limit: *limit, keys_only: *keys };
            run::all(&[Command::Scan(scan)], session, screen).await
        }
        Word::Load(args) => {
            let loaded = load::run(Task::Load, &args.transfer, session, screen).await?;
            if !loaded || !args.verify {
                return Ok(loaded);
            }
            load::run(Task::Verify, &args.transfer, session, screen).await
        }
        Word::Verify(transfer) => load::run(Task::Verify, transfer, session, screen).await,
        Word::Token(args) => admin::token(&args.action, &session.client, screen).await,
        Word::Drain { node, undo: true, .. } => {
            places::undrain(node, &session.client, screen).await
        }
        Word::Drain { node, no_wait, .. } => {
            places::drain(node, !no_wait, &session.client, screen).await
        }
        Word::Rebalance { dry_run: true, .. } => places::foresee(&session.client, screen).await,
        Word::Rebalance { .. } => places::rebalance(&session.client, screen).await,
        Word::Remove { node, .. } => admin::remove(node, &session.client, screen).await,
        Word::Holders { json, .. } => holders::list(*json, &session.client, screen).await,
        Word::Keep { node, run, .. } => admin::keep(node, *run, &session.client, screen).await,
        Word::Revoke { id, .. } => holders::revoke(id, &session.client, screen).await,
        // They were refused before anything was connected.
        Word::Local(_)
        | Word::Drill(_)
        | Word::Rehearse(_)
        | Word::Server(_)
        | Word::Node(_)
        | Word::Gateway(_)
        | Word::Completions { .. } => Ok(false),
    }
}

pub(crate) fn connection(address: Addresses, connect: Connect, role: Role) -> Connection {
    Connection {
        servers: address.0,
        role,
        level: connect.level.unwrap_or(Level::Strong),
        timeout: connect.timeout,
        region: connect.region,
        token_file: connect.token_file,
        home: None,
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dkv", &mut script);
    // Whoever reads only the beginning of the script wants no more of it.
    let _ = io::Write::write_all(&mut io::stdout(), &script);
    ExitCode::SUCCESS
}

fn usage(screen: &mut Screen, problem: &str) -> ExitCode {
    screen.error(problem);
    ExitCode::from(USAGE)
}

pub(crate) fn not_connected(screen: &mut Screen, error: &ConnectError) -> ExitCode {
    screen.error(&with_advice(error));
    ExitCode::FAILURE
}

/// What is wrong, and what to do next.
pub(crate) fn with_advice(error: &ConnectError) -> String {
    let advice = match error {
        ConnectError::Unreachable(_)
        | ConnectError::Join(JoinError::Connect(_) | JoinError::Call(..)) => {
            "; see that the server runs there, or start one with dkv server or dkv local"
        }
        ConnectError::Join(JoinError::OtherNetwork(_)) => {
            "; give a token of that server's network with --token-file, or another address"
        }
        ConnectError::Join(JoinError::Refused(JoinRefusal::Unknown)) => {
            "; ask an administrator of the network for one, and give it with --token-file"
        }
        ConnectError::Token(_) => "; a server of yours on this machine would have left you one",
        ConnectError::Denied(_) => {
            "; an administrator has taken you out: ask for a new token, and join with it under \
             another DKV_HOME"
        }
        ConnectError::Address { .. } | ConnectError::NoAddress => {
            "; give the address of the server as HOST:PORT"
        }
        ConnectError::Socket(_) => "; see that this user may open sockets and files enough",
        // These say it themselves.
        ConnectError::Region(_)
        | ConnectError::Join(_)
        | ConnectError::Role(_)
        | ConnectError::NoCredentials { .. }
        | ConnectError::Expired { .. }
        | ConnectError::Stored { .. } => "",
    };
    format!("{error}{advice}")
}

/// The exit status of what was done. A stdout that nobody reads any more is no news to anybody.
pub(crate) fn finished(screen: &mut Screen, result: io::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                screen.error(&format!("stopped: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
