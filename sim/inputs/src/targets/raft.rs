//! All frames that the nodes of a Raft group send each other.

use bytes::Bytes;
use dkv_node::fuzzing::{RAFT_FRAMES, raft_frame, raft_frame_samples};

use crate::parts::Parts;

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let kind = usize::from(parts.byte()) % RAFT_FRAMES;
    let bytes = Bytes::copy_from_slice(parts.rest());
    if let Some(again) = raft_frame(kind, &bytes) {
        assert!(again.len() <= bytes.len());
        assert_eq!(raft_frame(kind, &again), Some(again));
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let samples = raft_frame_samples().into_iter();
    samples.map(|(kind, bytes)| [&[kind as u8], &bytes[..]].concat()).collect()
}
