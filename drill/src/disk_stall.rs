//! A disk that hangs in a sync.
//!
//! For a node, a disk stalls when the thread that writes and syncs its log makes no progress,
//! whatever the reason. So this stops that thread alone, as a debugger does, and lets all others
//! run. The kernel allows that for child processes without any privilege, and requires that the
//! thread which stopped another one also resumes it.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::error::Obstacle;

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
    /// The system does not let this process stop the thread.
    pub(crate) async fn begin(process: u32) -> Result<Self, Obstacle> {
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
        result.await.map_err(|_| Obstacle::Task)??;
        Ok(Self { _end: end })
    }
}

fn stop(thread: Pid) -> Result<(), Obstacle> {
    ptrace::attach(thread).map_err(Obstacle::Tracing)?;
    let waited = waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop);
    waited.map_err(|error| Obstacle::Thread(io::Error::from(error)))
}

fn writer(process: u32) -> Result<Pid, Obstacle> {
    let tasks = Path::new("/proc").join(process.to_string()).join("task");
    let entries = std::fs::read_dir(&tasks).map_err(Obstacle::file(tasks.display().to_string()))?;
    for entry in entries.flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        if let (WRITER, Some(id)) = (name.trim(), id) {
            return Ok(Pid::from_raw(id));
        }
    }
    Err(Obstacle::NoThread { process, thread: WRITER })
}
