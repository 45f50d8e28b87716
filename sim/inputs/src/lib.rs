//! What others have written and we read: streams, messages, logs, snapshots, tokens, keys, files
//! and lines, each with a function that reads any bytes as that and says what must hold of the
//! outcome.
//!
//! A [`Target`] is such a function, with inputs that are as they should be. Two things use it. The
//! tests change these inputs a fixed number of times, by a fixed seed (`attempt`), so that every
//! change of the product is tried with the same inputs on the compiler that builds it. The programs
//! in `fuzz/` hand it to libFuzzer, which looks for inputs that go where none has been.
//!
//! A target panics if a promise does not hold: bytes that are no value are refused and change
//! nothing; those that are one mean the same when they are written and read again; an error is one
//! line that has no power over a terminal; a signed certificate says what the authority decided.
//! Checksums in files are made to fit first, or nothing would be tried but checksums.
//!
//! Deliberately missing: processes and sockets. Floods and slow peers are in the end-to-end tests.
#![forbid(unsafe_code)]

mod parts;
mod random;
mod change;
mod attempt;

pub mod targets;

pub use attempt::{Tried, attempt};
pub use targets::{TARGETS, Target};
