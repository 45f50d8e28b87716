//! The process around a node: runtime, log output, signals, exit status.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::run::NodeError;

/// Environment variable that says what is logged, e.g. `debug` or `dkv_node=debug,info`.
const LOG_VARIABLE: &str = "DKV_LOG";
const LOG_DEFAULT: &str = "info,openraft=error,quinn=error,fjall=error,lsm_tree=error";

/// Time that tasks have to end before the process does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs something as the process of a node does: with log output, so many threads, and an exit status
/// by its end.
pub fn process(
    threads: Option<NonZeroUsize>,
    work: impl Future<Output = Result<(), NodeError>>,
) -> ExitCode {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.unwrap_or_else(default_threads).into())
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}")),
    };
    let ended = runtime.block_on(work);
    // First everything falls silent: the last line says why the process ends.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

/// Half of the cores: the log, the kernel's network stack and whatever else runs there want some
/// too, and a thread that finds little to do costs more in wake-ups than it does.
fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

/// A line on stdout, for whoever started the process.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // Whoever started us may not listen.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn complain(error: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

/// Completes at Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        // Without it, Ctrl-C alone has to do.
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
