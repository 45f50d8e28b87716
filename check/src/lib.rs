//! Checks what clients of a key-value store saw against what a linearizable store may show.
//!
//! A *history* is a list of operations, each with its start, its end and its answer. The checkers
//! know nothing of the store itself: they take what its clients report and look for an explanation.
//! These checkers read the same history:
//!
//! - [`linear`] searches, for each key, an order of its operations that agrees with the times at
//!   which they ran and in which every answer is right. It is complete: if it finds no order, there
//!   is none.
//! - [`revisions`] looks at each operation once, and only at its revision: none was given twice, a
//!   read returns what the write of its revision stored, and nothing is older than what was known
//!   before it began. It misses some violations that a search finds, and checks an hour's history
//!   in seconds.
//! - [`eventual`] checks the promises of eventual writes, for the keys that have some.
//! - [`transactions`] looks for cycles among transactions over lists: they are strictly
//!   serializable if there is none.
//! - [`watches`] compares what watches and reads of the past show with the changes that are known.
//! - [`leases`] checks that no lease ended too early, or much too late.
//!
//! An operation with an unknown outcome may have taken effect at any time after it began, or never.
//! Operations that failed had no effect.
//!
//! ```
//! use dkv_check::{History, Options, check};
//!
//! let history = r#"
//!     {"client":1,"key":"k","op":"put","value":"a","start_ns":0,"end_ns":10,"result":"ok","revision":1}
//!     {"client":2,"key":"k","op":"get","start_ns":20,"end_ns":30,"result":"absent","revision":1}
//! "#;
//! let report = check(&History::read(history.as_bytes()).unwrap(), Options::default());
//! assert!(!report.holds());
//! ```
//!
//! Deliberately missing: any contact with a store.
#![forbid(unsafe_code)]

mod history;
mod options;
mod anomaly;
mod finding;

mod register;
pub mod linear;
pub mod revisions;
pub mod eventual;
pub mod transactions;
pub mod watches;
pub mod leases;

mod report;

pub use anomaly::Anomaly;
pub use finding::{Finding, Kind};
pub use history::{
    Action, Compaction, Condition, Current, Disruption, Fate, History, HistoryError, LeaseEvent,
    LeaseNote, Level, Line, LineError, ListOperation, Operation, Outcome, PastAnswer, PastRead,
    PreviousVersion, Recorder, RevisionChanges, Transaction, VersionList, WatchEvent, WatchNote,
    WatchedKeys,
};
pub use options::Options;
pub use report::{Report, check};
