//! `dkv lock NAME -- COMMAND...`: runs a command while this process has a lock.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use dkv_api::recipes::{Lock, LockOptions};
use dkv_api::{Client, Role};
use dkv_console::Console;
use dkv_console::problem::{Failure, Problem};
use dkv_console::quote;
use dkv_console::signals::{Signals, StopSignal};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::api_problems::{connect_problem, request_problem};
use crate::cli::{Addresses, Connect, LockArgs, default_addresses};
use crate::exit::ended;
use crate::lease::lease_problem;
use crate::store::{Connection, Session};

/// Time after which a command that waits says so.
const PATIENCE: Duration = Duration::from_millis(500);
/// Exit status of a command that was not found, as in a shell.
const NOT_FOUND: u8 = 127;
/// Exit status of a command that cannot be executed, as in a shell.
const NOT_EXECUTABLE: u8 = 126;

/// Connects to the network, for the keys of a keyspace if one is named.
async fn connect_to(connection: &Connection, keyspace: Option<&str>) -> Result<Session, Problem> {
    let session = Session::connect(connection).await.map_err(|error| connect_problem(&error))?;
    match keyspace {
        Some(name) => session.in_keyspace(name).await.map_err(|error| request_problem(&error)),
        None => Ok(session),
    }
}

/// Waits for the lock, runs the command, and releases the lock.
pub(crate) async fn run(
    args: LockArgs,
    address: Option<Addresses>,
    outer: Connect,
    console: &mut Console,
) -> ExitCode {
    let connect = args.connect.clone().or(outer);
    if connect.typed(&["--level"]).is_some() {
        return ended(console, &Problem::usage("lock does not take --level"));
    }
    let servers = match address.map_or_else(default_addresses, Ok) {
        Ok(servers) => servers,
        Err(error) => return ended(console, &Problem::usage(error.to_string())),
    };
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            let why = format!("cannot listen for signals: {error}");
            return ended(console, &Problem::failed(why));
        }
    };
    let keyspace = connect.keyspace.clone();
    let connection = Connection::new(servers, connect, Role::Client);
    let connected = tokio::select! {
        connected = connect_to(&connection, keyspace.as_deref()) => connected,
        signal = signals.next() => return ExitCode::from(signal.status()),
    };
    let session = match connected {
        Ok(session) => session,
        Err(problem) => return ended(console, &problem),
    };
    let status = match acquire(&args, &session.client, &mut signals, console).await {
        Ok(lock) => match run_held(&args, lock, &mut signals, console).await {
            Ok(status) => ExitCode::from(status),
            Err(problem) => ended(console, &problem),
        },
        Err(Unacquired::Signal(signal)) => ExitCode::from(signal.status()),
        Err(Unacquired::Problem(problem)) => ended(console, &problem),
    };
    session.close().await;
    status
}

/// Why there is no lock.
enum Unacquired {
    Signal(StopSignal),
    Problem(Problem),
}

async fn acquire(
    args: &LockArgs,
    client: &Client,
    signals: &mut Signals,
    console: &mut Console,
) -> Result<Lock, Unacquired> {
    let name = key_of(&args.name);
    let shown = quote::quoted(args.name.as_bytes());
    let options =
        LockOptions::default().ttl(args.ttl).value(format!("process {}", std::process::id()));
    let failed = |error| Unacquired::Problem(lease_problem(&error));
    let taken = || {
        let why = format!("somebody has the lock {shown}; the command was not run");
        Unacquired::Problem(Problem::new(Failure::Conflict, why))
    };
    if args.no_wait {
        let lock = tokio::select! {
            lock = Lock::try_acquire(client, &name, options) => lock,
            signal = signals.next() => return Err(Unacquired::Signal(signal)),
        };
        return lock.map_err(failed)?.ok_or_else(taken);
    }
    let stop = async {
        let limit = async {
            match args.wait {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let limit = std::pin::pin!(limit);
        let patience = async {
            tokio::time::sleep(PATIENCE).await;
            console.note(&format!("waiting for the lock {shown}"));
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = limit => None,
            signal = signals.next() => Some(signal),
            () = patience => None,
        }
    };
    match Lock::acquire_until(client, &name, options, stop).await.map_err(failed)? {
        Ok(lock) => Ok(lock),
        Err(Some(signal)) => Err(Unacquired::Signal(signal)),
        Err(None) => Err(taken()),
    }
}

/// Returns the name under which the network knows a lock.
fn key_of(name: &OsString) -> Vec<u8> {
    [b"lock/", name.as_bytes()].concat()
}

/// Runs the command; returns the exit status for this process.
async fn run_held(
    args: &LockArgs,
    lock: Lock,
    signals: &mut Signals,
    console: &mut Console,
) -> Result<u8, Problem> {
    let held = Held::start(args, &lock);
    let mut held = match held {
        Ok(held) => held,
        Err((status, why)) => {
            console.problem(&Problem::failed(why));
            release(lock, console).await;
            return Ok(status);
        }
    };
    let status = loop {
        tokio::select! {
            biased;
            status = held.child.wait() => break status,
            lost = lock.lost() => {
                let status = held.stop(args.grace).await;
                let name = quote::quoted(args.name.as_bytes());
                let why = match status {
                    Some(signal) => format!("it was ended with {signal}"),
                    None => "it ended by itself".to_owned(),
                };
                let why = format!("the lock {name} was lost while the command ran: {lost}; {why}");
                return Err(Problem::new(Failure::Unavailable, why));
            }
            signal = signals.next() => held.forward(signal),
        }
    };
    // What the command did last may have been without the lock.
    let was_lost = lock.is_lost();
    release(lock, console).await;
    if was_lost {
        let name = quote::quoted(args.name.as_bytes());
        let why = format!("the lock {name} was lost before the command had ended");
        return Err(Problem::new(Failure::Unavailable, why));
    }
    match status {
        Ok(status) => Ok(status_of(status)),
        Err(error) => Err(Problem::failed(format!("cannot wait for the command: {error}"))),
    }
}

async fn release(lock: Lock, console: &mut Console) {
    if let Err(error) = lock.release().await {
        console.note(&format!("the lock is released when its time is over: {error}"));
    }
}

/// Returns the exit status that a shell shows for that of a command.
fn status_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        (None, None) => u8::MAX,
    }
}

/// The command, while it runs.
struct Held {
    child: Child,
    /// Its group, if it has one of its own. At a terminal it stays in that of this process, so that
    /// it may read what is typed; Ctrl-C then reaches both.
    group: Option<Pid>,
}

impl Held {
    /// Starts the command.
    ///
    /// # Errors
    /// The exit status for this process, and the reason.
    fn start(args: &LockArgs, lock: &Lock) -> Result<Self, (u8, String)> {
        let (program, arguments) = match args.command.as_slice() {
            [program, arguments @ ..] => (program, arguments),
            [] => return Err((NOT_FOUND, "there is no command".to_owned())),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command.env("DKV_LOCK", &args.name);
        command.env("DKV_LOCK_FENCE", lock.fence().to_string());
        command.env("DKV_LOCK_LEASE", lock.lease().to_string());
        let has_terminal = io::stdin().is_terminal();
        if !has_terminal {
            command.process_group(0);
        }
        let child = command.kill_on_drop(true).spawn().map_err(|error| {
            let status = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            (status, format!("cannot run {}: {error}", quote::quoted(program.as_bytes())))
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Ok(Self { child, group: pid.filter(|_| !has_terminal) })
    }

    /// Sends a signal to the command, and to its children if it has a group.
    fn signal(&self, signal: Signal) {
        let sent = match (self.group, self.child.id().and_then(|pid| i32::try_from(pid).ok())) {
            (Some(group), _) => killpg(group, signal),
            (None, Some(pid)) => kill(Pid::from_raw(pid), signal),
            // It has ended.
            (None, None) => Ok(()),
        };
        if let Err(error) = sent
            && error != Errno::ESRCH
        {
            // Not fatal: SIGKILL follows.
            dkv_base::complain!("cannot signal the command: {error}");
        }
    }

    /// Passes on a signal that this process was sent.
    fn forward(&self, signal: StopSignal) {
        match signal {
            // The terminal has sent it to the command itself.
            StopSignal::Interrupted if self.group.is_none() => {}
            StopSignal::Interrupted => self.signal(Signal::SIGINT),
            StopSignal::Terminated => self.signal(Signal::SIGTERM),
        }
    }

    /// Ends the command; returns the signal that it took, if it took one.
    async fn stop(&mut self, grace: Duration) -> Option<&'static str> {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return None;
        }
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_ok() {
            // What the command had started must not go on either.
            if self.group.is_some() {
                self.signal(Signal::SIGKILL);
            }
            return Some("SIGTERM");
        }
        self.signal(Signal::SIGKILL);
        // The kernel ends it.
        let _ = self.child.wait().await;
        Some("SIGKILL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_a_shell() {
        assert_eq!(status_of(ExitStatus::from_raw(0)), 0);
        assert_eq!(status_of(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status_of(ExitStatus::from_raw(9)), 137);
        assert_eq!(key_of(&"backup".into()), b"lock/backup");
    }
}
