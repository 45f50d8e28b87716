//! Frames: the boundaries of messages in a stream.
//!
//! A frame is a length (four bytes, little endian) followed by that many bytes. A [`FrameReader`]
//! has one buffer and hands out the complete frames in it, so that many small frames written
//! together cost one read. A [`FrameWriter`] collects frames and writes them together.
//!
//! Deliberately missing: trust. A length over the limit is an error before anything is allocated
//! for it, the buffer grows only as bytes arrive, and a frame must be complete within
//! [`FRAME_TIMEOUT`] of its first byte.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::{FRAME_BYTES_MAX, FRAME_TIMEOUT};

/// Length of the header of a frame, in bytes.
pub const FRAME_HEAD_BYTES: usize = 4;
const READ_BYTES: usize = 64 * 1024;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended in the middle of a frame.
    #[error("stream ended inside a frame")]
    Cut,
    /// The peer announced a frame over the limit of the stream.
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// The announced length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer did not finish a frame in time.
    #[error("frame was begun and not finished within {} s", FRAME_TIMEOUT.as_secs())]
    Slow,
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads frames from a stream.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `limit` bytes from `stream`.
    pub fn new(stream: R, limit: usize) -> Self {
        debug_assert!(limit <= FRAME_BYTES_MAX);
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// The next frame, if it is complete in the buffer.
    ///
    /// # Errors
    /// If the frame is over the limit.
    pub fn try_next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        if self.buffer.len() < FRAME_HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Waits for the next frame. `None` if the peer ended the stream after a complete frame.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(Some(frame));
            }
            let read = if self.buffer.is_empty() {
                self.fill().await?
            } else {
                // A frame has begun, so the rest of it is due within the timeout.
                match tokio::time::timeout(FRAME_TIMEOUT, self.fill_frame()).await {
                    Ok(read) => read?,
                    Err(_) => return Err(FrameError::Slow),
                }
            };
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Cut) };
            }
        }
    }

    /// Waits for the next frame like [`next`](Self::next), but reserves memory for it once its
    /// header has been read: `room` is called with the length, and its result is returned with the
    /// frame. Until it completes, nothing more is read, which slows the sender down; it has as long
    /// as the rest of a frame has.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next_with_room<R2, F>(
        &mut self,
        room: impl FnOnce(usize) -> F,
    ) -> Result<Option<(Bytes, R2)>, FrameError>
    where
        F: Future<Output = R2>,
    {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        let head = async {
            loop {
                if let Some(length) = self.announced()? {
                    return Ok(length);
                }
                if self.fill().await? == 0 {
                    return Err(FrameError::Cut);
                }
            }
        };
        let length = tokio::time::timeout(FRAME_TIMEOUT, head).await;
        let room = room(length.unwrap_or(Err(FrameError::Slow))?);
        let room = tokio::time::timeout(FRAME_TIMEOUT, room).await;
        let room = room.map_err(|_| FrameError::Slow)?;
        match self.next().await? {
            Some(frame) => Ok(Some((frame, room))),
            None => Err(FrameError::Cut),
        }
    }

    /// Sets the longest frame to accept from now on, in bytes.
    pub fn set_limit(&mut self, limit: usize) {
        debug_assert!(limit <= FRAME_BYTES_MAX);
        self.limit = limit;
    }

    /// Returns the stream, with the bytes that were read and not handed out.
    pub fn into_inner(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }

    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*head) as usize;
        if bytes > self.limit {
            return Err(FrameError::TooLong { bytes, limit: self.limit });
        }
        Ok(Some(bytes))
    }

    async fn fill_frame(&mut self) -> Result<usize, FrameError> {
        loop {
            let read = self.fill().await?;
            let complete = match self.announced()? {
                Some(length) => self.buffer.len() >= FRAME_HEAD_BYTES + length,
                None => false,
            };
            if read == 0 || complete {
                return Ok(read);
            }
        }
    }

    /// Reads the bytes that have arrived. The buffer grows by what arrives, never by what is
    /// announced.
    async fn fill(&mut self) -> Result<usize, FrameError> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await?)
    }
}

/// Collects frames and writes them to a stream together.
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Adds a message to the next [`flush`](Self::flush).
    pub fn push<T: Serialize>(&mut self, message: &T) {
        put_frame(&mut self.buffer, message);
    }

    /// Adds a frame with encoded content to the next [`flush`](Self::flush).
    pub fn push_bytes(&mut self, content: &[u8]) {
        debug_assert!(content.len() <= FRAME_BYTES_MAX);
        self.buffer.put_u32_le(content.len() as u32);
        self.buffer.extend_from_slice(content);
    }

    /// Number of bytes that wait to be flushed.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Writes all frames that were added.
    ///
    /// # Errors
    /// The error of the stream.
    pub async fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        // A large value must not leave a large buffer behind for the life of the stream.
        self.buffer.shrink_to(READ_BYTES);
        self.stream.flush().await
    }

    /// Adds one message and flushes.
    ///
    /// # Errors
    /// The error of the stream.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> std::io::Result<()> {
        self.push(message);
        self.flush().await
    }

    /// Returns the stream. Frames that were not flushed are dropped.
    pub fn into_inner(self) -> W {
        self.stream
    }
}

impl FrameWriter<quinn::SendStream> {
    /// Writes all frames that were added, and one more that consists of `parts`, which are not
    /// copied.
    ///
    /// # Errors
    /// The error of the stream.
    pub async fn send_parts(&mut self, mut parts: Vec<Bytes>) -> std::io::Result<()> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        self.buffer.put_u32_le(length as u32);
        if let [only] = &parts[..] {
            self.buffer.extend_from_slice(only);
            return self.flush().await;
        }
        self.flush().await?;
        Ok(self.stream.write_all_chunks(&mut parts).await?)
    }
}

/// Appends `message` to `buffer` as one frame.
pub fn put_frame<T: Serialize>(buffer: &mut Vec<u8>, message: &T) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    let mut filled = crate::codec::encode_into(message, std::mem::take(buffer));
    let length = (filled.len() - start - FRAME_HEAD_BYTES) as u32;
    filled[start..start + FRAME_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    *buffer = filled;
}

#[cfg(test)]
mod tests;
