//! One process of a network.
//!
//! Both of its output streams go to one log file, where the line `ready ADDRESS` is waited for. It
//! dies with this object, and also if the test process is killed: it is told its parent's id, as
//! `dkv local` tells its children.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::PATIENCE;

/// How often a process is looked at.
const TICK: Duration = Duration::from_millis(5);
/// The most of a log that is printed when a test fails, in bytes.
const LOG_SHOWN_BYTES: usize = 12 * 1024;

/// A running `dkv server` or `dkv node`.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Where in the log its own output begins.
    log_start: usize,
}

/// The built `dkv`.
///
/// A link to it, so that all processes of a test are of one build, whatever is built meanwhile.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_dkv"));
        let links = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end_to_end");
        std::fs::create_dir_all(&links).unwrap();
        for old in std::fs::read_dir(&links).unwrap().flatten() {
            let name = old.file_name().into_string().unwrap();
            if !Path::new("/proc").join(name).exists() {
                let _ = std::fs::remove_file(old.path());
            }
        }
        let link = links.join(std::process::id().to_string());
        std::fs::hard_link(built, &link).map_or_else(|_| built.to_owned(), |()| link)
    })
}

/// A command in the environment of a network: its home, and nothing of ours.
pub(crate) fn command(arguments: &[&str], home: &Path) -> Command {
    command_under(&[], arguments, home)
}

/// The same, run by other programs: each is given the next, with its arguments, as its own.
pub(crate) fn command_under(wrapper: &[&str], arguments: &[&str], home: &Path) -> Command {
    let mut command = match wrapper.split_first() {
        None => Command::new(program()),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program());
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DKV_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env("DKV_HOME", home).env("NO_COLOR", "1").current_dir(home);
    command
}

impl Process {
    /// Starts a process whose output is added to `log`.
    pub(crate) fn spawn(arguments: &[&str], home: &Path, log: &Path) -> Self {
        Self::run(command(arguments, home), log)
    }

    /// Starts a process of a command that becomes `dkv`.
    pub(crate) fn run(mut command: Command, log: &Path) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let log_start = output.metadata().unwrap().len() as usize;
        let copy = |file: &File| Stdio::from(file.try_clone().unwrap());
        let child = command
            .env("DKV_LOCAL_PARENT", std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(copy(&output))
            .stderr(copy(&output))
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned(), log_start }
    }

    /// Waits until it serves, and tells where; or what it said if it ended instead.
    pub(crate) async fn ready(&mut self) -> Result<SocketAddr, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().unwrap();
            let said = self.said();
            let ready = said.lines().find_map(|line| line.strip_prefix("ready "));
            if let Some(address) = ready
                && said.ends_with('\n')
            {
                return Ok(address.parse().unwrap());
            }
            if ended.is_some() {
                return Err(said);
            }
            if Instant::now() > deadline {
                return Err(format!("not ready in time: {said}"));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// What this process has printed.
    pub(crate) fn said(&self) -> String {
        let content = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&content[self.log_start..]).into_owned()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Memory that it has in RAM, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Pauses it, as a machine that swaps or a debugger does.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        // Its threads stop one by one, and until the last has, it still acknowledges.
        while !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Whether every one of its threads has stopped.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name may hold blanks; the state follows it.
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.said());
            tokio::time::sleep(TICK).await;
        }
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Prints the end of a log, for the report of a test that fails.
pub(crate) fn show_log(log: &Path) {
    let Ok(content) = std::fs::read(log) else { return };
    let shown = &content[content.len().saturating_sub(LOG_SHOWN_BYTES)..];
    eprintln!("--- {}\n{}", log.display(), String::from_utf8_lossy(shown));
}
