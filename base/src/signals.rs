//! The signals that a process of a network handles.
//!
//! SIGTERM and SIGINT (Ctrl-C) stop it in good order. SIGHUP does not: a closing terminal, or a
//! tool that means "reload your configuration", must not end a process that others depend on. It
//! opens the [audit log](crate::audit) anew, if there is one, and is ignored otherwise.
//! SIGUSR1, SIGUSR2, SIGALRM and SIGIO are ignored for the same reason: see [`ignore_strays`].
//!
//! Signals are handled from the beginning of the start-up on, even while it blocks on a file that
//! never ends, such as a pipe without a writer: see [`Starting`].

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

use crate::audit;

/// Time for a start-up to end by itself after a signal to stop.
const START_ENDS_WITHIN: Duration = Duration::from_millis(500);

/// Ignores the signals that mean nothing to this process and would end it by default. Must be
/// called within a runtime, and lasts for the life of the process.
///
/// # Errors
/// The error of the operating system.
pub fn ignore_strays() -> io::Result<()> {
    let kinds = [
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        SignalKind::io(),
    ];
    // Tokio's handler stays installed although its stream is dropped.
    kinds.into_iter().try_for_each(|kind| signal(kind).map(drop))
}

/// The signals that arrive from its creation on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to watch for signals. Must be called within a runtime.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn watch() -> io::Result<Self> {
        ignore_strays()?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Completes when a signal asks the process to stop.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                received = self.hangup.recv() => match received {
                    Some(()) if audit::reopen() => info!("the audit log is opened anew"),
                    Some(()) => info!("SIGHUP is ignored: SIGTERM and Ctrl-C stop this process"),
                    None => std::future::pending().await,
                },
            }
        }
    }
}

/// Guard of a start-up that is under way, until it is dropped.
///
/// A start-up reads files, and blocks the thread that would otherwise handle signals. If a signal
/// asks it to stop and it does not end by itself, this guard exits the process with status 0, as
/// after any stop: the process has served no request yet, and its files are as consistent as after
/// a crash.
pub struct Starting {
    _over: oneshot::Sender<()>,
}

impl Starting {
    /// Starts to watch for signals on a separate thread.
    ///
    /// # Errors
    /// The error of the operating system.
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
