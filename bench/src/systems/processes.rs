//! The processes of one system, in one directory. None of them outlives the value that started it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Bytes of a log that an error quotes.
const LOG_QUOTED: usize = 2000;

/// Running processes by name, and the directory with their data.
pub(crate) struct Processes {
    directory: TempDir,
    running: Vec<Process>,
}

struct Process {
    name: String,
    child: Child,
}

impl Processes {
    /// Creates an empty set with a new directory below `parent`, or below the system's temporary
    /// one.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self, String> {
        let directory = match parent {
            Some(path) => std::fs::create_dir_all(path)
                .and_then(|()| tempfile::Builder::new().prefix("dkv-bench-").tempdir_in(path)),
            None => tempfile::Builder::new().prefix("dkv-bench-").tempdir(),
        };
        let directory = directory.map_err(|error| format!("no directory for data: {error}"))?;
        Ok(Self { directory, running: Vec::new() })
    }

    /// Returns a path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a process whose output goes to a log of its name.
    #[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only the peers need it"))]
    pub(crate) fn start(&mut self, name: &str, command: &mut Command) -> Result<(), String> {
        let log = self.open_log(name)?;
        command.stdout(log.try_clone().map_err(|error| error.to_string())?);
        self.add(name, command, log).map(drop)
    }

    /// Starts a process, waits until it prints a line `ready ADDRESS`, and returns that address.
    pub(crate) fn start_until_ready(
        &mut self,
        name: &str,
        command: &mut Command,
    ) -> Result<String, String> {
        let log = self.open_log(name)?;
        command.stdout(Stdio::piped());
        let stdout = self.add(name, command, log)?.stdout.take();
        let lines = BufReader::new(stdout.ok_or("no output")?).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("ready ") {
                return Ok(address.to_owned());
            }
        }
        Err(format!("{name} did not start; its log:\n{}", self.log(name)))
    }

    fn add(&mut self, name: &str, command: &mut Command, log: File) -> Result<&mut Child, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|error| format!("{program}: {error}"))?;
        self.running.push(Process { name: name.to_owned(), child });
        let last = self.running.last_mut().ok_or("no process")?;
        Ok(&mut last.child)
    }

    /// Returns the ids of all processes.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.running.iter().map(|process| process.child.id()).collect()
    }

    /// Returns the names and ids of all processes.
    pub(crate) fn named(&self) -> Vec<(String, u32)> {
        let each = self.running.iter();
        each.map(|process| (process.name.clone(), process.child.id())).collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, name: &str, signal: Signal) -> Result<(), String> {
        let process = self.running.iter().find(|process| process.name == name);
        let child = &process.ok_or_else(|| format!("there is no process {name}"))?.child;
        kill_process(Pid::from_child(child), signal).map_err(|error| error.to_string())
    }

    /// Waits until a process has ended that was told to.
    pub(crate) async fn reap(&mut self, name: &str) -> Result<ExitStatus, String> {
        let index = self.running.iter().position(|process| process.name == name);
        let index = index.ok_or_else(|| format!("there is no process {name}"))?;
        loop {
            let child = &mut self.running[index].child;
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                self.running.remove(index);
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the end of a process's log.
    pub(crate) fn log(&self, name: &str) -> String {
        let log = std::fs::read(self.log_path(name)).unwrap_or_default();
        let end = &log[log.len().saturating_sub(LOG_QUOTED)..];
        String::from_utf8_lossy(end).into_owned()
    }

    /// Returns the ends of all logs.
    #[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only the peers need it"))]
    pub(crate) fn logs(&self) -> String {
        let each = self.running.iter().map(|process| &process.name);
        each.map(|name| format!("--- {name}\n{}\n", self.log(name))).collect()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn open_log(&self, name: &str) -> Result<File, String> {
        let opened = File::options().create(true).append(true).open(self.log_path(name));
        opened.map_err(|error| error.to_string())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // All are killed before any is awaited, so that none starts an election.
        for process in &mut self.running {
            let _ = process.child.kill();
        }
        for process in &mut self.running {
            let _ = process.child.wait();
        }
    }
}

/// Returns free ports of loopback. Another process may take them before they are used.
#[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "only the peers need it"))]
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    // All are bound until all are known, so that they are distinct.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_end_with_the_value() {
        let mut processes = Processes::new(None).unwrap();
        let directory = processes.path("");
        processes.start("sleeper", Command::new("sleep").arg("60")).unwrap();
        let id = processes.ids()[0];
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(processes);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_process_that_was_stopped_is_reaped() {
        let mut processes = Processes::new(None).unwrap();
        processes.start("sleeper", Command::new("sleep").arg("60")).unwrap();
        processes.signal("sleeper", Signal::TERM).unwrap();
        assert!(!processes.reap("sleeper").await.unwrap().success());
        assert!(processes.signal("sleeper", Signal::TERM).is_err());
    }

    #[test]
    fn a_process_that_is_never_ready_is_an_error_with_its_log() {
        let mut processes = Processes::new(None).unwrap();
        let mut command = Command::new("sh");
        let error = processes.start_until_ready("sad", command.args(["-c", "echo no >&2"]));
        assert!(error.unwrap_err().contains("no"));
    }

    #[test]
    fn ports_differ() {
        let [one, two] = free_ports::<2>().unwrap();
        assert_ne!(one, two);
    }
}
