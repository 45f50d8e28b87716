//! What other nodes send, read and not obeyed, and what a thief would send: for whoever tries what
//! comes of it.

pub use crate::net::incarnations::introduce;
pub use crate::raft::fuzzing::{Forged, RAFT_FRAMES, forgeries, raft_frame, raft_frame_samples};
