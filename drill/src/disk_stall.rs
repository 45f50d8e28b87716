//! A disk that does not come back from a sync.
//!
//! For a node, a disk stalls when the thread that writes and syncs its log does not get on,
//! whatever the reason. So that thread alone is stopped, as a debugger stops it; all others go on.
//! The kernel allows that for one's own children without any privilege, and wants all requests
//! about a stopped thread from the thread that stopped it.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// The thread of a node that writes its log, by name.
const WRITER: &str = "wal-writer";

/// A stall that lasts until this is dropped.
pub(crate) struct DiskStall {
    _end: Sender<()>,
}

impl DiskStall {
    /// Stalls the disk of a node, by its process id.
    ///
    /// # Errors
    /// Why it cannot be, in one line.
    pub(crate) async fn begin(process: u32) -> Result<Self, String> {
        let thread = writer(process)?;
        let (end, ended) = channel::<()>();
        let (begun, result) = oneshot::channel();
        std::thread::spawn(move || {
            let stopped = stop(thread);
            let is_stopped = stopped.is_ok();
            let _ = begun.send(stopped);
            // Nothing is ever sent: the other end is dropped.
            let _ = ended.recv();
            if is_stopped {
                // If it is gone there is nothing to let go of.
                let _ = ptrace::detach(thread, None);
            }
        });
        let result = result.await.unwrap_or_else(|_| Err("its thread ended".into()));
        result.map_err(|why| format!("the disk cannot be made to stall: {why}"))?;
        Ok(Self { _end: end })
    }
}

fn stop(thread: Pid) -> Result<(), String> {
    ptrace::attach(thread).map_err(|error| {
        format!("this system does not let a process be traced ({error}); it may allow it to root")
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
