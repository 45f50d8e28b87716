//! The signals that a process of a network obeys.
//!
//! SIGTERM and SIGINT (Ctrl-C) stop it in good order. SIGHUP is ignored: a terminal that closes, or
//! a tool that means "read your configuration again", must not end a process that others count on;
//! there is no file that it could open anew, for logs go to standard error. SIGUSR1, SIGUSR2,
//! SIGALRM and SIGIO are ignored too, for the same reason: see [`ignore_strays`].
//!
//! They are obeyed from the beginning of the start on, also while that reads a file that does not
//! come to an end, such as a pipe that nobody writes to: see [`Starting`].

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

/// Time that a start has to end by itself once it was told to stop.
const START_ENDS_WITHIN: Duration = Duration::from_millis(500);

/// From now on, signals by which this process is told nothing do nothing, where the system would
/// end it. Within a runtime, and for good.
///
/// # Errors
/// Whatever the system reports.
pub fn ignore_strays() -> io::Result<()> {
    let kinds = [
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        SignalKind::io(),
    ];
    // A handler stays where it is, though nobody waits for it.
    kinds.into_iter().try_for_each(|kind| signal(kind).map(drop))
}

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
        ignore_strays()?;
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

/// A start that is under way, until this is dropped.
///
/// A start reads files, and waits for each on the thread that would otherwise obey a signal. If it
/// is told to stop and does not end by itself, the process ends here, as after any stop: nobody has
/// been served by then, and what it has on disk is as whole as after a crash.
pub struct Starting {
    _over: oneshot::Sender<()>,
}

impl Starting {
    /// Watches for signals on a thread of its own from now on.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn begin() -> io::Result<Self> {
        let (sender, over) = oneshot::channel();
        let (begun, watching) = mpsc::channel();
        std::thread::Builder::new().name("start".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(begun.send(Err(error))),
            };
            runtime.block_on(async move {
                match Signals::watch() {
                    Ok(signals) => {
                        let _ = begun.send(Ok(()));
                        end_if_stuck(signals, over).await;
                    }
                    Err(error) => drop(begun.send(Err(error))),
                }
            });
        })?;
        watching.recv().map_err(io::Error::other)??;
        Ok(Self { _over: sender })
    }
}

async fn end_if_stuck(mut signals: Signals, mut over: oneshot::Receiver<()>) {
    tokio::select! {
        () = signals.stop() => {}
        _ = &mut over => return,
    }
    if tokio::time::timeout(START_ENDS_WITHIN, over).await.is_err() {
        std::process::exit(0);
    }
}
