//! What a process logs, and where: to standard error, as far as `DKV_LOG` asks for it.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::output::Log;

/// Environment variable that says what is logged, e.g. `debug` or `dkv_node=debug,info`.
pub const LOG_VARIABLE: &str = "DKV_LOG";

/// The crates of dkv that log.
const CRATES: &[&str] = &[
    "dkv",
    "dkv_api",
    "dkv_base",
    "dkv_daemon",
    "dkv_gateway",
    "dkv_node",
    "dkv_server",
    "dkv_state",
    "dkv_wal",
    "dkv_wire",
];

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The variable does not say what to log.
    #[error(
        "{LOG_VARIABLE}: cannot use \"{part}\": write a level (off, error, warn, info, debug, trace), or \
         MODULE=LEVEL as in \"dkv_node=debug,info\""
    )]
    Filter {
        /// The part of it that does not.
        part: String,
    },
    /// A module of dkv that there is not.
    #[error("{LOG_VARIABLE}: there is no module {own}: use one of {}", CRATES.join(", "))]
    Crate {
        /// What is written for one.
        own: String,
    },
    /// There is no thread to write it.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// The log of this process. Dropped, it waits a moment for its last lines to be written.
#[must_use = "dropped, it takes the last lines to be written now"]
pub struct Logging(Option<Log>);

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(log) = &self.0 {
            log.flush();
        }
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Each names the module that it is from.
    Shown,
    /// None does.
    Hidden,
}

/// Begins to log; what, is said by [`LOG_VARIABLE`], or by `default` if that is not set or empty.
///
/// Whoever embeds a part of dkv may log in a way of its own, and then this changes nothing.
///
/// # Errors
/// If the variable cannot be understood: who misspells it is not to find out by missing lines.
pub fn start(default: &str, targets: Targets) -> Result<Logging, LoggingError> {
    let wanted = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&wanted.to_string_lossy(), default)?;
    let log = Log::to_stderr().map_err(LoggingError::Thread)?;
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_target(targets == Targets::Shown)
        // It would be told with `eprintln!`, which panics where a log cannot be written.
        .log_internal_errors(false)
        .with_writer(move || writer.clone())
        .finish();
    let is_first = tracing::subscriber::set_global_default(subscriber).is_ok();
    Ok(Logging(is_first.then_some(log)))
}

/// Checked part by part: the parser takes whatever is no level for the name of a module.
fn filter(wanted: &str, default: &str) -> Result<EnvFilter, LoggingError> {
    if wanted.trim().is_empty() {
        return Ok(EnvFilter::new(default));
    }
    for part in wanted.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if level.parse::<LevelFilter>().is_err() || part.starts_with('=') {
            return Err(LoggingError::Filter { part: part.escape_default().to_string() });
        }
        let target = part.rsplit_once('=').map_or("", |(target, _)| target);
        let own = target.split([':', '[']).next().unwrap_or_default();
        if own.starts_with("dkv") && !CRATES.contains(&own) {
            let own = own.escape_default().to_string();
            return Err(LoggingError::Crate { own });
        }
    }
    let malformed = |_| LoggingError::Filter { part: wanted.escape_default().to_string() };
    EnvFilter::builder().parse(wanted).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_a_level_nor_a_module_is_refused() {
        for wanted in ["", " ", "debug", "INFO", "dkv_node=debug,info", "off", "quinn=error, warn"]
        {
            assert!(filter(wanted, "info").is_ok(), "{wanted}");
        }
        for wanted in ["dkv_nod=debug", "info,dkv-node=debug", "dkvnode::raft=trace"] {
            let error = filter(wanted, "info").unwrap_err();
            assert!(matches!(error, LoggingError::Crate { .. }), "{wanted}: {error}");
        }
        assert!(filter("dkv_node::raft=trace,dkv=info", "info").is_ok());
        for wanted in
            ["nonsense===", "verbose", "dkv_node=loud", "info,dkv_node", "=debug", "a=b=c"]
        {
            let error = filter(wanted, "info").unwrap_err();
            assert!(matches!(error, LoggingError::Filter { .. }), "{wanted}: {error}");
        }
    }
}
