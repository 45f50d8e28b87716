//! A node: a process that holds data, as coordinator or as replicant.
//!
//! A node holds one replica of each group that the directory gives it: of the *control group*,
//! whose state is the directory and whose leader is the coordinator, and of the *shards*, whose
//! leaders are the primaries of their keys. All groups of a node share one log on disk, one store
//! of checkpoints, and one endpoint.
//!
//! What a node decides is plain code in `dkv_state`; what it does about it are small tasks around
//! that: see docs/architecture.md. The registration server is never on the path of a read or a
//! write: a node serves, fails over and restarts without it.
#![forbid(unsafe_code)]

mod args;
mod run;
mod main_loop;
mod observer;
mod counters;

mod node;
mod group;
mod raft;

mod incoming;
mod requests;
mod shares;
mod replies;
mod writes;
mod reads;
mod rhythm;
mod rounds;
mod eventual;
mod everywhere;
mod outbox;
mod deposits;
mod forwarding;

mod coordinator;
mod measuring;
mod placing;
mod departures;
mod former;
mod lookout;
mod metronome;
mod pacing;
mod stewards;
mod announce;
mod compaction;

mod peers;
mod runs;
mod ask;
mod hearing;
mod members;
mod refusals;
mod registration;
mod contact;
mod admission;
mod data_dir;
mod disk_check;
mod memory;
mod clock;
mod shell;
mod tasks;
mod suspend;

mod storage;

mod turns;
pub mod untrusted;

pub use args::Args;
pub use counters::{Counted, CountedKind};
pub use main_loop::{process, say, stop_signal};
pub use observer::{Figures, GroupFigures, Observer, Serving};
pub use run::{NodeError, run, run_on};
pub use storage::{Storage, StorageError};
