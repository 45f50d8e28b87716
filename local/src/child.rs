//! One child process: starting, watching, signalling and stopping it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dkv_console::quote::escaped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::sync::oneshot;

use crate::error::{ReadyError, SignalError};
use crate::tether::PARENT;

/// Lines of a log to show when its process has died.
const LOG_LINES_SHOWN: usize = 6;

/// How to start a child.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// The program: this one, or what wraps it.
    pub program: PathBuf,
    /// `server` or `node`, and what follows.
    pub arguments: Vec<OsString>,
    /// Its `DKV_HOME`.
    pub home: PathBuf,
    /// File to which its output is added.
    pub log: PathBuf,
    /// Environment variables to set besides.
    pub variables: Vec<(OsString, OsString)>,
}

/// A child that was started.
pub struct Child {
    process: Process,
    /// The child exits when this pipe ends, see [`tether`](crate::tether).
    _tie: Option<ChildStdin>,
    ready: Option<oneshot::Receiver<SocketAddr>>,
    log: PathBuf,
    /// Whether it is stopped by a signal.
    pub paused: bool,
}

impl Child {
    /// Starts a child.
    ///
    /// Call it from the main thread: on Linux a child that is tied to its parent dies with the
    /// *thread* that started it.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn start(spec: &ChildSpec) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&spec.log)?;
        let mut command = Command::new(&spec.program);
        // Variables that configure the user's own servers and nodes must not reach these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DKV_") && name != "DKV_LOG" {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(&spec.arguments)
            .envs(spec.variables.iter().map(|(name, value)| (name, value)))
            .env("DKV_HOME", &spec.home)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // In its own process group, so that Ctrl-C reaches the parent only.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (sender, ready) = oneshot::channel();
        if let Some(stdout) = process.stdout.take() {
            tokio::spawn(listen(stdout, sender, spec.log.clone()));
        }
        let tie = process.stdin.take();
        Ok(Self { process, _tie: tie, ready: Some(ready), log: spec.log.clone(), paused: false })
    }

    /// Waits until the child reports that it is ready. Returns its address.
    ///
    /// # Errors
    /// The child died or takes too long; [`end_of_log`](Self::end_of_log) may tell why.
    pub async fn ready(&mut self, timeout: Duration) -> Result<SocketAddr, ReadyError> {
        let Some(ready) = self.ready.take() else {
            return Err(ReadyError::AlreadyAwaited);
        };
        tokio::select! {
            biased;
            Ok(address) = ready => Ok(address),
            status = self.process.wait() => {
                let how = status.map_or_else(|error| error.to_string(), |it| ended(&it));
                Err(ReadyError::Ended { how, log: self.log.clone() })
            }
            () = tokio::time::sleep(timeout) => {
                Err(ReadyError::TooSlow { seconds: timeout.as_secs(), log: self.log.clone() })
            }
        }
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        Some(ended(&status))
    }

    /// The last lines of its log.
    pub fn end_of_log(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        last.iter().map(|line| escaped(line.as_bytes())).collect()
    }

    /// Its process id, until it has ended and been waited for.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends a signal. The process has not been waited for, so its id cannot belong to another.
    ///
    /// # Errors
    /// The process has ended, or the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<(), SignalError> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id else { return Err(SignalError::NotRunning) };
        kill(Pid::from_raw(id), signal).map_err(SignalError::Refused)
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// Asks it to stop in good order. Returns whether it did in time; otherwise it was killed.
    pub async fn stop(&mut self, timeout: Duration) -> bool {
        // A process that has already ended takes no signal and needs none.
        let _ = self.signal(Signal::SIGTERM);
        if self.paused {
            let _ = self.signal(Signal::SIGCONT);
        }
        if tokio::time::timeout(timeout, self.process.wait()).await.is_ok() {
            return true;
        }
        // Killing fails only if it was already gone.
        let _ = self.process.kill().await;
        false
    }
}

/// Reads what a child prints: reports the line `ready ADDRESS`, and adds the rest to its log.
async fn listen(
    stdout: tokio::process::ChildStdout,
    ready: oneshot::Sender<SocketAddr>,
    log: PathBuf,
) {
    let log = tokio::fs::OpenOptions::new().append(true).open(log).await;
    let mut log = log.ok();
    let mut ready = Some(ready);
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let address = line.strip_prefix("ready ").and_then(|text| text.trim().parse().ok());
        if let (Some(address), Some(ready)) = (address, ready.take_if(|_| address.is_some())) {
            // Sending fails if the parent has given up waiting.
            let _ = ready.send(address);
        } else if let Some(log) = &mut log {
            // The child must be able to go on even if its log cannot be written.
            let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        }
    }
}

fn ended(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {number}"),
        },
        (None, None) => "ended".into(),
    }
}
