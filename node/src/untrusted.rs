//! What other nodes send, read and not obeyed: for whoever tries what comes of it.

pub use crate::raft::untrusted::{RAFT_FRAMES, raft_frame, raft_frame_samples};
