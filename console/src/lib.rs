//! What the commands of `dkv` share: where results and errors go, what an exit status means, how
//! times, sizes and tables are written, how bytes are quoted, and which signals end a command.
//!
//! Reading order: [`problem`] (kinds of failure, their exit statuses), [`Console`] (stdout and
//! stderr), [`quote`], [`units`] and [`table`] (text for people), [`closed_streams`] and
//! [`signals`] (the process itself).
//!
//! Deliberately missing: the network. Nothing here knows a client, a node or a command.
#![forbid(unsafe_code)]

mod console;
pub mod problem;

pub mod quote;
pub mod table;
pub mod units;

pub mod closed_streams;
pub mod signals;

pub use console::{Buffer, Console, Tone, broken, paint};
