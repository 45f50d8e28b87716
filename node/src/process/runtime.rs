//! The process around a node: runtime, log output, signals, exit status.

use std::fmt::Display;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use dkv_base::audit::{self, AuditOptions};
use dkv_base::logging::{self, Format, Targets};
use dkv_base::signals::Signals;
use dkv_base::{durable, output};
use tracing::warn;

const LOG_DEFAULT: &str = "info,openraft=error,quinn=error,fjall=error,lsm_tree=error";

/// Time that tasks have to end before the process does.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs `work` as the process of a node: sets up log output, the audit log and the given number of
/// threads, and returns an exit status that reflects the result. An error is printed as the last
/// line.
pub fn process<E: Display>(
    threads: Option<NonZeroUsize>,
    format: Format,
    audit: Option<&AuditOptions>,
    work: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    let log = match logging::start(LOG_DEFAULT, Targets::Hidden, format) {
        Ok(log) => log,
        Err(error) => return complain(&error.to_string()),
    };
    durable::keep_files_private();
    let audit = match audit::start(audit, "node") {
        Ok(audit) => audit,
        Err(error) => return complain(&error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.unwrap_or_else(default_threads).into())
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}")),
    };
    let ended = runtime.block_on(work);
    // All output stops first: the last line says why the process ends.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    drop(audit);
    drop(log);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

/// Half of the cores: the log, the kernel's network stack and other processes need some too, and a
/// thread with little to do costs more in wake-ups than it gains.
fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

/// Writes a line to stdout, for the caller that started the process. A write error is reported on
/// stderr and stops nothing: others rely on a serving node, whether or not anybody reads its
/// output.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        output::complain(format_args!(
            "warning: cannot write {line:?} to standard output: {error}; the node serves all the same"
        ));
    }
}

fn complain(error: &str) -> ExitCode {
    output::complain(format_args!("error: {error}"));
    ExitCode::FAILURE
}

/// Completes at Ctrl-C or SIGTERM, which it notices from the moment of this call. Must be called
/// within a runtime.
pub fn stop_signal() -> impl Future<Output = ()> + Send {
    let signals = Signals::watch();
    async move {
        match signals {
            Ok(mut signals) => signals.stop().await,
            Err(error) => {
                warn!(%error, "signals cannot be watched: they end this process at once");
                std::future::pending().await
            }
        }
    }
}
