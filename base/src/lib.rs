//! The foundation that every crate of dkv shares: ids, the network's clock, durable files, the
//! platform seam, the output and the supervision of a process.
//!
//! The line between this crate and `dkv-wire` is one question: does it cross between processes?
//! Messages, frames, certificates and connections do, and live there. This crate's types stay
//! within one process and its data directory. Ids and stamps are the exception: they are in every
//! message and in every file, so they belong to neither.
//!
//! Deliberately missing: any other crate of dkv. This one imports none of them.
#![forbid(unsafe_code)]

pub mod id;
pub mod hlc;

pub mod platform;
pub mod durable;
pub mod sync;
pub mod mutants;

pub mod histogram;
pub mod slots;

pub mod environment;
#[cfg(feature = "clap")]
pub mod variables;
pub mod number;
pub mod output;
mod json_object;
pub mod logging;
pub mod log_limit;
pub mod audit;
pub mod signals;
pub mod supervise;
