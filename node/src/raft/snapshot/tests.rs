use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::*;

/// Value that reports the thread on which it is dropped.
struct Probe(mpsc::Sender<ThreadId>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).unwrap();
    }
}

#[test]
fn what_waits_for_the_disk_ends_on_no_thread_of_the_runtime() {
    let (sender, ended) = mpsc::channel();
    let probe = || OffThread::new(Probe(sender.clone()));
    let ended = || ended.recv_timeout(Duration::from_secs(20)).unwrap();
    // All tasks of this runtime run on this thread.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(probe()) });
    assert_ne!(ended(), thread::current().id());

    // A value that was taken out is dropped by the caller.
    let taken = runtime.block_on(async { probe().take() });
    drop(taken);
    assert_eq!(ended(), thread::current().id());

    drop(probe());
    assert_eq!(ended(), thread::current().id());
}
