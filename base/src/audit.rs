//! The audit log: who did what as an administrator, who was denied what, and, if that is wanted,
//! who wrote what.
//!
//! An act enters the log in one place: [`act`], [`rated`], [`write()`] or [`denied`]. Acts and
//! denials go to the log of the process under the target [`AUDIT`], which no filter hides. If the
//! process has an audit file ([`start`]), they go there too, as one JSON object a line, with their
//! outcome.
//!
//! No request waits for the file. Events go through a bounded queue to a thread that
//! writes and rotates it. Events that find no room in the queue or on the disk are counted, and the
//! count is a line of the file once there is room again. A sender that is denied over and over has
//! a rate, and so has one that is no administrator and acts; what is above it is counted as well.
//!
//! The file is a process's, as its log is: a node and its faces share one. It is locked, so that no
//! two processes rotate and truncate the same.
//!
//! Deliberately missing: any promise that a line is on the disk before the act is answered. To keep
//! lines from an attacker on the machine, an operator ships them to another one.

mod event;
mod file;
mod options;
mod rates;
mod writer;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::display;
use tracing::info;

use self::event::{AuditEvent, Kind};
use self::file::AuditFile;
use self::rates::{SenderRates, Verdict};
use self::writer::AuditQueue;
use crate::logging::AUDIT;
use crate::sync::lock;

pub use self::event::{CallerAddress, Outcome, What, Who};
#[cfg(feature = "clap")]
pub use self::options::{AuditArgs, UnusedAuditOption};
pub use self::options::{AuditOptions, KEEP_DEFAULT, KEEP_MAX, SIZE_MIB_DEFAULT, SIZE_MIB_MAX};
pub use self::writer::AuditFigures;

/// Time for writing the last events when a process ends.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The audit file of this process, if it has one.
static INSTALLED: OnceLock<Installed> = OnceLock::new();
/// The rates of denials in this process.
static DENIALS: Mutex<SenderRates> = Mutex::new(SenderRates::new());
/// The rates of acts of those who are no administrators.
static ACTS: Mutex<SenderRates> = Mutex::new(SenderRates::new());

struct Installed {
    queue: AuditQueue,
    /// What the process is, for events that name no face.
    process: &'static str,
    writes: bool,
}

/// The audit file cannot be written. The process does not start: what nobody recorded cannot be
/// looked up later.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another process has it.
    #[error(
        "another process writes the audit log {}; give each process a file of its own",
        .path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let this process write it.
    #[error(
        "cannot write the audit log {}: {source}; name a file in a directory that this process may \
         write to", .path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}

/// Guard of the audit log of this process. Dropping it waits up to a second for the last events.
#[must_use = "dropping it flushes the audit log, once"]
#[derive(Debug)]
pub struct AuditLog(bool);

impl Drop for AuditLog {
    fn drop(&mut self) {
        if let Some(installed) = INSTALLED.get().filter(|_| self.0) {
            installed.queue.flush(LAST_EVENTS);
        }
    }
}

/// Opens the audit file, if there are options for one, and starts to write it. `process` says in
/// each line what this process is. A second call in a process changes nothing.
///
/// # Errors
/// If the file cannot be opened, or another process writes it.
pub fn start(
    options: Option<&AuditOptions>,
    process: &'static str,
) -> Result<AuditLog, AuditError> {
    let Some(options) = options else { return Ok(AuditLog(false)) };
    let fail = |source: std::io::Error| {
        let path = options.path.clone();
        match source.kind() {
            ErrorKind::WouldBlock => AuditError::InUse { path },
            _ => AuditError::Unwritable { path, source },
        }
    };
    if INSTALLED.get().is_some() {
        return Ok(AuditLog(false));
    }
    let file = AuditFile::open(&options.path, options.bytes_max, options.keep).map_err(fail)?;
    let queue = AuditQueue::start(file, process, untold).map_err(fail)?;
    let is_first = INSTALLED.set(Installed { queue, process, writes: options.writes }).is_ok();
    Ok(AuditLog(is_first))
}

/// Which of the events that were counted and not told are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untold {
    /// Those of senders that have stopped.
    Quiet,
    /// All.
    All,
}

/// Returns lines that stand for events that were counted and not told, and tells the log of the
/// process how many they are.
fn untold(which: Untold) -> Vec<AuditEvent> {
    let as_before = || "as in the lines before".to_owned();
    let kinds = [
        (&DENIALS, Kind::Denial, "further requests", Outcome::Denied(as_before())),
        (&ACTS, Kind::Act, "further acts", Outcome::Unknown(as_before())),
    ];
    let mut events = Vec::new();
    for (rates, kind, act, outcome) in kinds {
        let untold = match which {
            Untold::Quiet => lock(rates).take_quiet(Instant::now()),
            Untold::All => lock(rates).take_all(),
        };
        let counted: u64 = untold.iter().map(|(_, counted)| counted).sum();
        if counted > 0 {
            info!(target: AUDIT, senders = untold.len(), counted, "{act}, as in the lines before");
        }
        events.extend(untold.into_iter().map(|(who, suppressed)| {
            let what = What { act: act.into(), ..What::default() };
            let event = AuditEvent::new(kind, who, what);
            AuditEvent { suppressed, outcome: outcome.clone(), ..event }
        }));
    }
    events
}

/// Notes an event of a sender with a rate. Returns how many of it the log does not have before this
/// one; `None` if it does not have this one, either.
fn note(rates: &Mutex<SenderRates>, who: &Who) -> Option<u64> {
    if INSTALLED.get().is_none() {
        // Without a file, no thread asks for them.
        drop(untold(Untold::Quiet));
    }
    match lock(rates).note(who, Instant::now()) {
        Verdict::Told { suppressed } => Some(suppressed),
        Verdict::Counted => None,
    }
}

/// Opens the audit file anew, under its name. Returns whether there is one.
pub fn reopen() -> bool {
    INSTALLED.get().is_some_and(|installed| {
        installed.queue.reopen();
        true
    })
}

/// Returns what was written and lost, if this process has an audit file.
pub fn figures() -> Option<AuditFigures> {
    INSTALLED.get().map(|installed| {
        let suppressed = lock(&DENIALS).suppressed() + lock(&ACTS).suppressed();
        AuditFigures { suppressed, ..installed.queue.figures() }
    })
}

/// Whether writes of data are to be told to [`write()`].
pub fn wants_writes() -> bool {
    INSTALLED.get().is_some_and(|installed| installed.writes)
}

/// Tells that an administrator begins an act.
pub fn act(who: Who, what: What) -> Act {
    told("administrative act", who, what)
}

/// Tells that an act begins that the log always has, of any sender. `word` says in the log of
/// the process what it is.
pub fn told(word: &'static str, who: Who, what: What) -> Act {
    let (name, address) = (who.name.as_deref(), who.address.map(display));
    info!(target: AUDIT, by = %who, name, address, "{word}: {what}");
    Act::begun(Kind::Act, who, what)
}

/// Tells that somebody who is no administrator begins an act that the log has all the same: it
/// joins, or lets history be forgotten. `word` says in the log of the process which. A sender has a
/// rate, as for denials.
pub fn rated(word: &'static str, who: Who, what: What) -> Act {
    let Some(suppressed) = note(&ACTS, &who) else { return Act::default() };
    let (name, address) = (who.name.as_deref(), who.address.map(display));
    info!(target: AUDIT, by = %who, name, address, before = suppressed, "{word}: {what}");
    let mut act = Act::begun(Kind::Act, who, what);
    if let Some(event) = &mut act.0 {
        event.suppressed = suppressed;
    }
    act
}

/// Tells that somebody begins to write data.
pub fn write(who: Who, what: What) -> Act {
    Act::begun(Kind::Write, who, what)
}

/// Tells that somebody was denied something.
pub fn denied(who: Who, what: What, why: &str) {
    let Some(suppressed) = note(&DENIALS, &who) else { return };
    let address = who.address.map(display);
    info!(target: AUDIT, by = %who, address, why, before = suppressed, "denied: {what}");
    if let Some(installed) = INSTALLED.get() {
        let event = AuditEvent::new(Kind::Denial, who, what);
        let outcome = Outcome::Denied(why.to_owned());
        installed.send(AuditEvent { suppressed, outcome, ..event });
    }
}

impl Installed {
    fn send(&self, mut event: AuditEvent) {
        event.who.at.get_or_insert(self.process);
        self.queue.send(event);
    }
}

/// An act whose outcome is not known yet. If it is dropped without one, its line says so. The
/// default has no line.
#[derive(Debug, Default)]
#[must_use = "an act has an outcome"]
pub struct Act(Option<Box<AuditEvent>>);

impl Act {
    fn begun(kind: Kind, who: Who, what: What) -> Self {
        let event = || Box::new(AuditEvent::new(kind, who, what));
        Self(INSTALLED.get().map(|_| event()))
    }

    /// Tells the outcome.
    pub fn ended(self, outcome: Outcome) {
        self.ended_with(|| outcome);
    }

    /// Tells the outcome, which is computed only if it is needed.
    pub fn ended_with(mut self, outcome: impl FnOnce() -> Outcome) {
        if self.0.is_some() {
            self.tell(outcome());
        }
    }

    /// Tells the outcome, and returns the result.
    ///
    /// # Errors
    /// Those of the result.
    pub fn settled<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        self.ended(match &result {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed(error.to_string()),
        });
        result
    }

    fn tell(&mut self, outcome: Outcome) {
        if let (Some(event), Some(installed)) = (self.0.take(), INSTALLED.get()) {
            installed.send(AuditEvent { outcome, ..*event });
        }
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        self.tell(Outcome::Unknown("it was not waited for".into()));
    }
}

impl From<SocketAddr> for CallerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}
