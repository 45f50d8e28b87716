//! One process of a network.
//!
//! Both of its output streams go to one log file, in which the line `ready ADDRESS` shows that it
//! serves. It dies when its [`Process`] is dropped, and also if the test process is killed: it gets
//! its parent's id, as the children of `dkv local` do.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use dkv_local::tether::PARENT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::PATIENCE;

/// Time between two looks at a process.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of a log that are printed when a test fails.
const LOG_SHOWN_BYTES: usize = 12 * 1024;

/// A running `dkv server` or `dkv node`.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Offset of its own output in the log.
    log_start: usize,
}

/// Returns a hard link to the built `dkv` in `scratch`, so that all processes of a test run are of
/// one build, even if another is built meanwhile. Returns `built` itself if no link can be made.
pub fn program(built: &str, scratch: &str) -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let built = Path::new(built);
        let links = Path::new(scratch).join("programs");
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

/// Returns a command in the environment of a network: with its home, and without variables of this
/// process but `DKV_TEST_LOG`, which is its `DKV_LOG`. Each program of the wrapper gets the next
/// one, with its arguments, as arguments.
pub fn command(wrapper: &[&str], program: &Path, arguments: &[&str], home: &Path) -> Command {
    let mut command = match wrapper.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DKV_") {
            command.env_remove(name);
        }
    }
    if let Some(log) = std::env::var_os("DKV_TEST_LOG") {
        command.env("DKV_LOG", log);
    }
    command.args(arguments).env("DKV_HOME", home).env("NO_COLOR", "1").current_dir(home);
    command
}

impl Process {
    /// Starts a process whose output is added to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let log_start = output.metadata().unwrap().len() as usize;
        let copy = |file: &File| Stdio::from(file.try_clone().unwrap());
        let child = command
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(copy(&output))
            .stderr(copy(&output))
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned(), log_start }
    }

    /// Waits until it serves. Returns its address.
    ///
    /// # Errors
    /// Its output, if it ended instead or takes too long.
    pub async fn ready(&mut self) -> Result<SocketAddr, String> {
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

    /// Returns everything that this process has printed.
    pub fn said(&self) -> String {
        let content = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&content[self.log_start..]).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns its resident memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Pauses it, as swapping or a debugger would.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        // Its threads stop one by one, and it acknowledges requests until the last one has.
        while !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Resumes it.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Returns whether all of its threads have stopped.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name may contain blanks; the state follows it.
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    /// Asks it to stop, and waits until it has ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end: {}", self.said());
            tokio::time::sleep(TICK).await;
        }
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Prints the end of a log, for the report of a failed test.
pub fn show_log(log: &Path) {
    let Ok(content) = std::fs::read(log) else { return };
    let shown = &content[content.len().saturating_sub(LOG_SHOWN_BYTES)..];
    eprintln!("--- {}\n{}", log.display(), String::from_utf8_lossy(shown));
}
