//! A disk that hangs in a sync.
//!
//! For a node, a disk stalls when the thread that writes and syncs its log makes no progress,
//! whatever the reason. So this stops that thread alone, as a debugger does, and lets all others
//! run. The kernel allows that for child processes without any privilege, and requires that the
//! thread which stopped another one also resumes it.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// Name of the thread that writes the log of a node.
const WRITER: &str = "wal-writer";

/// A stalled disk; it works again when this is dropped.
pub(crate) struct DiskStall {
    _end: Sender<()>,
}

impl DiskStall {
    /// Stalls the disk of a node, given its process id.
    ///
    /// # Errors
    /// Why the disk cannot be stalled, in one line.
    pub(crate) async fn begin(process: u32) -> Result<Self, String> {
        let thread = writer(process)?;
        let (end, ended) = channel::<()>();
        let (begun, result) = oneshot::channel();
        std::thread::spawn(move || {
            let stopped = stop(thread);
            let is_stopped = stopped.is_ok();
            let _ = begun.send(stopped);
            // Nothing is ever sent; receiving ends when the other end is dropped.
            let _ = ended.recv();
            if is_stopped {
                // Detaching fails only if the thread has ended.
                let _ = ptrace::detach(thread, None);
            }
        });
        let result = result.await.unwrap_or_else(|_| Err("the tracing thread ended".into()));
        result.map_err(|why| format!("cannot stall the disk: {why}"))?;
        Ok(Self { _end: end })
    }
}

fn stop(thread: Pid) -> Result<(), String> {
    ptrace::attach(thread).map_err(|error| {
        format!("this system does not allow tracing a process ({error}); try again as root")
    })?;
    waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop).map_err(|error| error.to_string())
}

fn writer(process: u32) -> Result<Pid, String> {
    let tasks = Path::new("/proc").join(process.to_string()).join("task");
    let entries =
        std::fs::read_dir(&tasks).map_err(|error| format!("{}: {error}", tasks.display()))?;
    for entry in entries.flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        if let (WRITER, Some(id)) = (name.trim(), id) {
            return Ok(Pid::from_raw(id));
        }
    }
    Err(format!("process {process} has no thread {WRITER}"))
}
