use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::*;

const LIMIT: usize = 1000;

/// A stream that gives one chunk for each read, counts the reads, and then ends.
struct Chunks {
    chunks: std::vec::IntoIter<Vec<u8>>,
    reads: usize,
}

impl Chunks {
    fn new(chunks: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let chunks: Vec<Vec<u8>> = chunks.into_iter().map(Into::into).collect();
        Self { chunks: chunks.into_iter(), reads: 0 }
    }
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        if let Some(chunk) = self.chunks.next() {
            buffer.put_slice(&chunk);
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream that takes one byte at a time.
#[derive(Default)]
struct Narrow(Vec<u8>);

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.extend(bytes.first());
        Poll::Ready(Ok(bytes.len().min(1)))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn framed(contents: &[&[u8]]) -> Vec<u8> {
    let frame = |content: &&[u8]| [&(content.len() as u32).to_le_bytes()[..], content].concat();
    contents.iter().flat_map(frame).collect()
}

/// All frames of a stream, and the error that ended them, if one did.
async fn read_all(chunks: Vec<Vec<u8>>, limit: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut reader = FrameReader::new(Chunks::new(chunks), limit);
    let mut frames = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// The next frame of a peer that says no more; an outcome that never comes is a failure too.
async fn next_of_silent<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<Option<Bytes>, FrameError> {
    tokio::time::timeout(FRAME_TIMEOUT * 100, reader.next()).await.expect("it waits for ever")
}

const CONTENTS: [&[u8]; 5] = [b"first", b"", b"", &[7; 300], b"!"];

#[tokio::test]
async fn frames_that_come_together_cost_one_read() {
    let mut reader = FrameReader::new(Chunks::new([framed(&CONTENTS)]), LIMIT);
    assert_eq!(reader.try_next().unwrap(), None);
    assert_eq!(reader.next().await.unwrap().unwrap(), CONTENTS[0]);
    for content in &CONTENTS[1..] {
        assert_eq!(reader.try_next().unwrap().unwrap(), content);
    }
    assert_eq!(reader.try_next().unwrap(), None);
    assert_eq!(reader.into_inner().0.reads, 1);
}

#[tokio::test]
async fn frames_may_be_cut_at_every_byte() {
    let stream = framed(&CONTENTS);
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        // An empty chunk would be the end of the stream.
        let chunks = [front, back].into_iter().filter(|chunk| !chunk.is_empty());
        let (frames, error) = read_all(chunks.map(<[u8]>::to_vec).collect(), LIMIT).await;
        assert!(error.is_none(), "{cut}: {error:?}");
        assert_eq!(frames, CONTENTS, "{cut}");
    }
    let (frames, error) = read_all(stream.chunks(1).map(<[u8]>::to_vec).collect(), LIMIT).await;
    assert!(error.is_none());
    assert_eq!(frames, CONTENTS);
}

#[tokio::test]
async fn a_stream_may_end_between_frames_only() {
    let stream = framed(&CONTENTS);
    let ends: Vec<usize> =
        (0..=CONTENTS.len()).map(|count| framed(&CONTENTS[..count]).len()).collect();
    for length in 1..=stream.len() {
        let (frames, error) = read_all(vec![stream[..length].to_vec()], LIMIT).await;
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        assert_eq!(frames, &CONTENTS[..whole], "{length}");
        match error {
            None => assert!(ends.contains(&length), "{length}"),
            Some(FrameError::Cut) => assert!(!ends.contains(&length), "{length}"),
            Some(other) => panic!("{length}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_by_its_head() {
    let (frames, error) = read_all(vec![framed(&[&[1; LIMIT]])], LIMIT).await;
    assert_eq!((frames.len(), error.is_none()), (1, true), "the limit itself is allowed");
    for announced in [LIMIT as u32 + 1, u32::MAX] {
        let mut stream = framed(&[b"good"]);
        stream.extend(announced.to_le_bytes());
        let mut reader = FrameReader::new(Chunks::new([stream]), LIMIT);
        assert_eq!(reader.next().await.unwrap().unwrap(), "good");
        // It stays refused: what follows can only be garbage.
        for _ in 0..2 {
            match reader.next().await {
                Err(FrameError::TooLong { bytes, limit }) => {
                    assert_eq!((bytes, limit), (announced as usize, LIMIT));
                }
                other => panic!("{other:?}"),
            }
        }
        let (stream, rest) = reader.into_inner();
        assert_eq!((stream.reads, rest.len()), (1, FRAME_HEAD_BYTES));
        assert!(rest.capacity() <= 2 * READ_BYTES, "{}", rest.capacity());
    }
}

#[tokio::test(start_paused = true)]
async fn an_announcement_alone_takes_no_memory() {
    let (mut peer, stream) = tokio::io::duplex(64);
    peer.write_all(&(FRAME_BYTES_MAX as u32).to_le_bytes()).await.unwrap();
    let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
    assert!(matches!(next_of_silent(&mut reader).await, Err(FrameError::Slow)));
    let capacity = reader.into_inner().1.capacity();
    assert!(capacity <= 2 * READ_BYTES, "{capacity}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_begun_must_be_finished_in_time() {
    for begun in 1..FRAME_HEAD_BYTES + 5 {
        let (mut peer, stream) = tokio::io::duplex(LIMIT);
        peer.write_all(&framed(&[b"12345"])[..begun]).await.unwrap();
        let started = Instant::now();
        let outcome = next_of_silent(&mut FrameReader::new(stream, LIMIT)).await;
        assert!(matches!(outcome, Err(FrameError::Slow)), "{begun}: {outcome:?}");
        assert_eq!(started.elapsed(), FRAME_TIMEOUT, "{begun}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_of_bytes_gains_no_time() {
    let (mut peer, stream) = tokio::io::duplex(LIMIT);
    let trickle = async {
        for byte in framed(&[&[1; 100]]) {
            peer.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(FRAME_TIMEOUT / 10).await;
        }
    };
    let started = Instant::now();
    let mut reader = FrameReader::new(stream, LIMIT);
    tokio::select! {
        outcome = reader.next() => assert!(matches!(outcome, Err(FrameError::Slow)), "{outcome:?}"),
        () = trickle => panic!("the reader waits for ever"),
    }
    assert!(started.elapsed() < FRAME_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_peer_is_not_hurried() {
    let (mut peer, stream) = tokio::io::duplex(LIMIT);
    let late = async {
        tokio::time::sleep(FRAME_TIMEOUT * 10).await;
        peer.write_all(&framed(&[b"late"])).await.unwrap();
    };
    let mut reader = FrameReader::new(stream, LIMIT);
    let (frame, ()) = tokio::join!(reader.next(), late);
    assert_eq!(frame.unwrap().unwrap(), "late");
}

#[tokio::test]
async fn what_was_read_and_not_handed_out_is_given_back() {
    let mut reader = FrameReader::new(Chunks::new([framed(&[b"one", b"two"])]), LIMIT);
    reader.next().await.unwrap();
    assert_eq!(reader.into_inner().1, framed(&[b"two"]));
}

#[tokio::test]
async fn what_is_written_can_be_read() {
    let mut writer = FrameWriter::new(Narrow::default());
    writer.push(&"message");
    writer.push_bytes(b"content");
    writer.push_bytes(b"");
    assert_eq!(writer.pending(), 3 * FRAME_HEAD_BYTES + 8 + 7);
    assert!(writer.stream.0.is_empty(), "nothing is written before it is flushed");
    writer.flush().await.unwrap();
    assert_eq!(writer.pending(), 0);
    writer.send(&7_u8).await.unwrap();
    writer.push(&"dropped");
    let written = writer.into_inner().0;
    assert_eq!(written, framed(&[b"\x07message", b"content", b"", b"\x07"]));
    let (frames, error) = read_all(vec![written], LIMIT).await;
    assert_eq!((frames.len(), error.is_none()), (4, true));
}

#[tokio::test]
async fn a_large_message_leaves_no_large_buffer_behind() {
    let mut writer = FrameWriter::new(tokio::io::sink());
    writer.send(&vec![1_u8; 4 * READ_BYTES]).await.unwrap();
    assert!(writer.buffer.capacity() <= READ_BYTES, "{}", writer.buffer.capacity());
}
