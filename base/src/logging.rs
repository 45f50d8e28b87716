//! The log of a process: to standard error, filtered by the variable `DKV_LOG` at first. An
//! administrator may have it filtered otherwise [while it runs](level).

mod json;
pub mod level;

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Metadata;
use tracing_subscriber::filter::Builder;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::EitherWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::output::{KeptLine, Log};

/// Environment variable that filters the log, such as `debug` or `dkv_node=debug,info`.
pub const LOG_VARIABLE: &str = "DKV_LOG";

/// The target of lines that every filter keeps: who has done what as an administrator. A filter
/// that hid them would hide what is done after it.
pub const AUDIT: &str = "dkv_audit";

/// Most characters of a text that [`brief`] keeps.
const TEXT_CHARS_MAX: usize = 200;

/// Returns a text of a peer for a line of [`AUDIT`], cut after 200 characters, and escaped so that
/// it is no line of its own: nothing may have bounded it before, and no filter hides such lines.
pub fn brief(text: &str) -> String {
    let cut = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    let more = if cut < text.len() { "..." } else { "" };
    format!("{}{more}", text[..cut].escape_debug())
}

/// The crates of dkv, whose names are valid log targets.
const CRATES: &[&str] = &[
    "dkv",
    "dkv_api",
    "dkv_backup",
    "dkv_base",
    "dkv_daemon",
    "dkv_etcd",
    "dkv_gateway",
    "dkv_listener",
    "dkv_node",
    "dkv_server",
    "dkv_state",
    "dkv_wal",
    "dkv_wire",
];

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A part of the variable is neither a level nor a filter.
    #[error(
        "{LOG_VARIABLE}: cannot use \"{part}\": write a level (off, error, warn, info, debug, trace), or \
         MODULE=LEVEL as in \"dkv_node=debug,info\""
    )]
    Filter {
        /// That part.
        part: String,
    },
    /// The variable names a crate of dkv that does not exist.
    #[error("{LOG_VARIABLE}: there is no module {own}: use one of {}", CRATES.join(", "))]
    Crate {
        /// The name in the variable.
        own: String,
    },
    /// The thread that writes the log cannot be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// Guard of the log of this process. Dropping it waits up to 250 ms for the last lines.
#[must_use = "dropping it flushes the log, once"]
pub struct Logging(Option<Log>);

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(log) = &self.0 {
            log.flush();
        }
    }
}

/// Whether log lines name their modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Each line names its module.
    Shown,
    /// No line does.
    Hidden,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// A text names no form of log lines. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use text or json")]
pub struct FormatError;

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(FormatError),
        }
    }
}

/// Starts logging, filtered by [`LOG_VARIABLE`], or by `default` if that is blank or not set.
///
/// A program that embeds a part of dkv may have installed a subscriber of its own; this call then
/// changes nothing.
///
/// # Errors
/// If the variable is misspelt, since silently missing lines would be the only sign of it.
pub fn start(default: &str, targets: Targets, format: Format) -> Result<Logging, LoggingError> {
    let wanted = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    let wanted = wanted.to_string_lossy();
    let first = filter(&wanted, default)?;
    let text = if wanted.trim().is_empty() { default } else { wanted.trim() };
    let log = Log::to_stderr().map_err(LoggingError::Thread)?;
    let (first, handle) = reload::Layer::new(first);
    let lines = fmt::layer()
        .with_ansi(format == Format::Text && io::stderr().is_terminal())
        .with_target(targets == Targets::Shown || format == Format::Json)
        // It would be reported with `eprintln!`, which panics where a log cannot be written.
        .log_internal_errors(false)
        .with_writer(Writers(log.clone()));
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.event_format(json::JsonLines).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(first).with(lines);
    let is_first = tracing::subscriber::set_global_default(subscriber).is_ok();
    if is_first {
        let switch = move |filter| handle.reload(filter).is_ok();
        level::install(text, Box::new(switch));
    }
    Ok(Logging(is_first.then_some(log)))
}

/// Chooses the writer of a line: what administrators do has room of its own in the log.
struct Writers(Log);

impl<'a> MakeWriter<'a> for Writers {
    type Writer = EitherWriter<Log, KeptLine<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        EitherWriter::A(self.0.clone())
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Self::Writer {
        if about.target() == AUDIT { EitherWriter::B(self.0.kept()) } else { self.make_writer() }
    }
}

/// Parses the filter. Checks each part first, as the parser would take any misspelt level for the
/// name of a module.
fn filter(wanted: &str, default: &str) -> Result<EnvFilter, LoggingError> {
    if wanted.trim().is_empty() {
        return Ok(keeping(EnvFilter::new(default)));
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
    builder().parse(wanted).map(keeping).map_err(malformed)
}

/// Adds the lines that every filter keeps.
fn keeping(filter: EnvFilter) -> EnvFilter {
    match format!("{AUDIT}=info").parse() {
        Ok(kept) => filter.add_directive(kept),
        Err(_) => filter,
    }
}

/// Begins a filter. Values of fields are compared as they are: a regular expression could take all
/// memory.
fn builder() -> Builder {
    EnvFilter::builder().with_regex(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_neither_a_level_nor_a_module_is_refused() {
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

    /// Returns what a filter lets through of an act of an administrator and of another line.
    fn kept(filter: EnvFilter) -> String {
        #[derive(Clone, Default)]
        struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: AUDIT, "administrative act: revoke");
            tracing::error!("another line");
        });
        let lines = lines.0.lock().unwrap().clone();
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn no_filter_hides_what_administrators_do() {
        for wanted in ["off", "dkv_node=off", "error", "off,dkv=trace", "[{a=b}]=off"] {
            let lines = kept(filter(wanted, "info").unwrap());
            assert!(lines.contains("administrative act: revoke"), "{wanted}: {lines}");
        }
        assert!(kept(filter("", "off").unwrap()).contains("administrative act"));
        assert!(!kept(filter("off", "info").unwrap()).contains("another line"));
        assert!(filter(&format!("{AUDIT}=off"), "info").is_err(), "nobody names it");
    }

    #[test]
    fn a_text_of_a_peer_is_cut_and_escaped() {
        assert_eq!(brief("Mars"), "Mars");
        assert_eq!(brief("a\nb\"c"), "a\\nb\\\"c");
        let exact = "ä".repeat(TEXT_CHARS_MAX);
        assert_eq!(brief(&exact), exact);
        assert_eq!(brief(&"ä".repeat(1 << 20)), format!("{exact}..."));
    }

    #[test]
    fn a_filter_of_a_value_takes_no_memory_to_speak_of() {
        // As a regular expression, its automaton would have a million states.
        let value = format!("(a|b)*a{}", "(a|b)".repeat(20));
        let begun = std::time::Instant::now();
        assert!(filter(&format!("[{{key={value}}}]=debug"), "info").is_ok());
        assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    }
}
