//! Signals that end things.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM, or the terminal is gone.
    Terminated,
}

impl Ending {
    /// The exit status that a shell expects after it.
    pub fn status(self) -> u8 {
        match self {
            Self::Interrupted => 128 + 2,
            Self::Terminated => 128 + 15,
        }
    }
}

/// The signals that ask this process to end. From when this exists they do nothing by themselves.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupted,
            _ = self.terminate.recv() => Ending::Terminated,
            _ = self.hangup.recv() => Ending::Terminated,
        }
    }

    /// Waits for the next one that ends a service: that a terminal has gone does not, as with
    /// servers and nodes.
    pub async fn next_of_service(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupted,
            _ = self.terminate.recv() => Ending::Terminated,
        }
    }
}
