//! Fuzz targets for everything that reads untrusted bytes: streams, messages, logs, snapshots,
//! tokens, keys, files and command lines. Each target reads arbitrary bytes as one of these and
//! asserts what must hold of the outcome.
//!
//! A [`Target`] is such a function with valid inputs as seeds. Two things use it. The tests mutate
//! the seeds a fixed number of times, by a fixed random seed ([`attempt()`]), so that every change of
//! the product is tried with the same inputs on the stable compiler. The programs in `fuzz/` hand
//! the target to libFuzzer, which searches for inputs that reach new code.
//!
//! A target panics if a promise is broken: invalid bytes are refused and change nothing; a valid
//! value means the same after it is written and read again; an error is one line without control
//! characters; a signed certificate says what the authority decided. Checksums in files are
//! corrected first, or nothing but the checksums would be tested.
//!
//! Deliberately missing: processes and sockets. The end-to-end tests cover floods and slow peers.
#![forbid(unsafe_code)]

mod parts;
mod random;
mod change;
mod attempt;

pub mod targets;

pub use attempt::{Tried, attempt};
pub use targets::{TARGETS, Target};
