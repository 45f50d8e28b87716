//! Entry points for fuzzing: messages of other nodes are parsed but have no effect, and messages of
//! an attacker are forged.

pub use crate::net::incarnations::introduce;
pub use crate::raft::fuzzing::{Forged, RAFT_FRAMES, forgeries, raft_frame, raft_frame_samples};
