//! The signals that a process of a network obeys.
//!
//! SIGTERM and SIGINT (Ctrl-C) stop it in good order. SIGHUP is ignored: a terminal that closes, or a tool that
//! means "read your configuration again", must not end a process that others count on; there is no file that
//! it could open anew, for logs go to standard error.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// The signals of this process, noticed from when this was made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Watches for them from now on. Within a runtime.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Completes when the process is to stop.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                received = self.hangup.recv() => match received {
                    Some(()) => info!("SIGHUP is ignored: SIGTERM and Ctrl-C stop this process"),
                    None => std::future::pending().await,
                },
            }
        }
    }
}
