//! Checks what clients of a key-value store saw against what a linearizable store may show.
//!
//! A *history* is a list of operations, each with when it began, when it was answered and with
//! what. The checkers know nothing of the store itself: they take the word of its clients and look
//! for an explanation. Two of them read the same history:
//!
//! - [`linear`] searches, for each key, an order of its operations that agrees with the times at
//!   which they ran and in which each answer is the right one. It is complete: where it finds none,
//!   there is none.
//! - [`revisions`] looks at each operation once, and only at what revisions tell: that none was
//!   given twice, that a read returns what the write of its revision stored, that nothing is older
//!   than what was known before it began. It misses what a search would find, and takes an hour's
//!   history in seconds.
//!
//! An operation whose outcome is not known may have had its effect at any time after it began, or
//! never. Operations that failed had none.
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
//! Deliberately missing: operations over more than one key, and any contact with a store.
#![forbid(unsafe_code)]

mod history;
mod options;
mod finding;

mod register;
pub mod linear;
pub mod revisions;
pub mod eventual;

mod report;

pub use finding::{Finding, Kind};
pub use history::{
    Action, Condition, Current, History, HistoryError, Level, Line, Operation, Outcome, Recorder,
};
pub use options::Options;
pub use report::{Report, check};
