//! The frames of a stream, in whatever pieces it arrives.

use std::pin::Pin;
use std::task::{Context, Poll};

use dkv_wire::frame::{FrameError, FrameReader};
use dkv_wire::limits::{FRAME_BYTES_MAX, JOIN_FRAME_BYTES_MAX};
use tokio::io::{AsyncRead, ReadBuf};

use crate::parts::Parts;

/// A stream that delivers its bytes in pieces of one length.
struct Pieces<'a> {
    rest: &'a [u8],
    length: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.length.min(self.rest.len()).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(length);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// The frames of a stream, by a trivial model of the reader.
fn model(mut stream: &[u8], limit: usize) -> (Vec<&[u8]>, &'static str) {
    let mut frames = Vec::new();
    loop {
        if stream.is_empty() {
            return (frames, "whole");
        }
        let Some((head, rest)) = stream.split_first_chunk::<4>() else { return (frames, "cut") };
        let length = u32::from_le_bytes(*head) as usize;
        if length > limit {
            return (frames, "too long");
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else { return (frames, "cut") };
        frames.push(frame);
        stream = rest;
    }
}

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let limit = [JOIN_FRAME_BYTES_MAX, 100, FRAME_BYTES_MAX][usize::from(parts.byte() % 3)];
    let length = usize::from(parts.byte()) * 7 + 1;
    let stream = parts.rest();
    let mut reader = FrameReader::new(Pieces { rest: stream, length }, limit);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let (frames, end) = model(stream, limit);
        for frame in frames {
            assert_eq!(reader.next().await.expect("a frame").expect("one more"), frame);
        }
        match (reader.next().await, end) {
            (Ok(None), "whole") | (Err(FrameError::Cut), "cut") => {}
            (Err(FrameError::TooLong { .. }), "too long") => {}
            (other, end) => panic!("{end}, and the reader says {other:?}"),
        }
    });
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for head in [[0, 0], [1, 1], [2, 255]] {
        let mut seed = head.to_vec();
        for length in [0_u32, 1, 5, 100, 300] {
            seed.extend(length.to_le_bytes());
            seed.extend((0..length).map(|at| at as u8));
        }
        seeds.push(seed.clone());
        seed.extend(u32::MAX.to_le_bytes());
        seeds.push(seed);
    }
    seeds
}
