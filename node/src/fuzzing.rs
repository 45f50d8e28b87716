//! Entry points for fuzzing: parsers that read the messages of other nodes without acting on them,
//! and messages that a thief of a node's identity would send.

pub use crate::net::incarnations::introduce;
pub use crate::raft::fuzzing::{Forged, RAFT_FRAMES, forgeries, raft_frame, raft_frame_samples};
