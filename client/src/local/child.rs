//! One child process: started, watched, signalled, stopped.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::sync::oneshot;

use crate::roles::PARENT;
use dkv_console::quote::shown;

/// Lines of a log that are shown when its process has died.
const LOG_LINES_SHOWN: usize = 6;

/// What a child is started as.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// This binary.
    pub(crate) program: PathBuf,
    /// `server` or `node`, and what follows.
    pub(crate) arguments: Vec<OsString>,
    /// Its `DKV_HOME`.
    pub(crate) home: PathBuf,
    /// Where what it says goes.
    pub(crate) log: PathBuf,
    /// Variables that it has besides.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// A child that was started.
pub(crate) struct Child {
    process: Process,
    /// The child takes the end of this pipe for the end of its parent.
    _tie: Option<ChildStdin>,
    ready: Option<oneshot::Receiver<SocketAddr>>,
    log: PathBuf,
    /// Whether it stands still.
    pub(crate) paused: bool,
}

impl Child {
    /// Starts it.
    ///
    /// It must be called from the main thread: on Linux a child that is tied to its parent dies
    /// with the *thread* that started it.
    pub(crate) fn start(plan: &Plan) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&plan.log)?;
        let mut command = Command::new(&plan.program);
        // What is set for the user's own servers and nodes is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DKV_") && name != "DKV_LOG" {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(&plan.arguments)
            .envs(plan.variables.iter().map(|(name, value)| (name, value)))
            .env("DKV_HOME", &plan.home)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Of a group of its own, so that Ctrl-C reaches the parent only.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (sender, ready) = oneshot::channel();
        if let Some(stdout) = process.stdout.take() {
            tokio::spawn(listen(stdout, sender, plan.log.clone()));
        }
        let tie = process.stdin.take();
        Ok(Self { process, _tie: tie, ready: Some(ready), log: plan.log.clone(), paused: false })
    }

    /// Waits until it says that it is ready, and where.
    ///
    /// # Errors
    /// That it died or takes too long; [`end_of_log`](Self::end_of_log) may tell why.
    pub(crate) async fn ready(&mut self, patience: Duration) -> Result<SocketAddr, String> {
        let Some(ready) = self.ready.take() else {
            return Err("it was waited for already".into());
        };
        tokio::select! {
            biased;
            Ok(address) = ready => Ok(address),
            status = self.process.wait() => {
                let how = status.map_or_else(|error| error.to_string(), |it| ended(&it));
                Err(format!("{how} while starting; see {}", self.log.display()))
            }
            () = tokio::time::sleep(patience) => {
                Err(format!("not ready after {} s; see {}", patience.as_secs(), self.log.display()))
            }
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        Some(ended(&status))
    }

    /// The last lines of its log.
    pub(crate) fn end_of_log(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        last.iter().map(|line| shown(line.as_bytes())).collect()
    }

    /// Its process id, while it has not been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends a signal. The process has not been waited for, so its id is still its own.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id else { return Err("it does not run".into()) };
        kill(Pid::from_raw(id), signal).map_err(|error| error.to_string())
    }

    /// Ends it at once and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<(), String> {
        self.process.kill().await.map_err(|error| error.to_string())
    }

    /// Asks it to stop in good order; true if it did in time, otherwise it was killed.
    pub(crate) async fn stop(&mut self, patience: Duration) -> bool {
        // One that has ended already takes no signal and needs none.
        let _ = self.signal(Signal::SIGTERM);
        if self.paused {
            let _ = self.signal(Signal::SIGCONT);
        }
        if tokio::time::timeout(patience, self.process.wait()).await.is_ok() {
            return true;
        }
        // It is gone after this, or was gone before.
        let _ = self.process.kill().await;
        false
    }
}

/// Passes on what a child prints: the line that it is ready, and the rest to its log.
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
            // Nobody waits any more if this cannot be sent.
            let _ = ready.send(address);
        } else if let Some(log) = &mut log {
            // A log that cannot be written is no reason to stop listening.
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
