//! A node: a process that holds data, as coordinator or as replicant.
//!
//! A node holds one replica of each group that the directory assigns to it: the *control group*,
//! whose state is the directory and whose leader is the coordinator, and *shards*, whose leaders
//! are the primaries of their keys. All groups of a node share one log on disk, one store of
//! checkpoints, and one endpoint.
//!
//! The decisions of a node are plain code in `dkv_state`; small tasks around that code carry them
//! out: see docs/architecture.md. The registration server is never on the path of a read or a
//! write: a node serves, fails over and restarts without it.
//! write: a node serves, fails over and restarts without it.
#![forbid(unsafe_code)]

mod process;
mod serve;
mod cluster;
mod tasks;
mod node;
mod outbox;
mod replica;
mod raft;
mod storage;
mod net;
mod common;
pub mod recovery;

pub mod fuzzing;

pub use common::counters::{Counted, CountedKind};
pub use node::observer::{Figures, Observer, Serving};
pub use process::args::Args;
pub use process::error::NodeError;
pub use process::runtime::{process, say, stop_signal};
pub use process::start::{run, run_on};
pub use replica::GroupFigures;
pub use storage::stores::{Storage, StorageError};
