//! A connection that ends when nothing moves on it.
//!
//! It covers whoever connects and says nothing, and whoever asks and does not read the answer. That
//! a head or a body comes too slowly is for others to notice.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::metrics::Metrics;

/// A connection that is watched.
pub(crate) struct Watched<C> {
    connection: C,
    patience: Duration,
    alarm: Pin<Box<Sleep>>,
    metrics: Arc<Metrics>,
}

impl<C> Watched<C> {
    /// Watches a connection, which ends after so much time without a byte either way. What goes over
    /// it is counted.
    pub(crate) fn new(connection: C, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self { connection, patience, alarm: Box::pin(tokio::time::sleep(patience)), metrics }
    }

    fn sent(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.metrics.sent(*bytes);
        }
    }

    /// What `poll` is while nothing moved, and a note that something did.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            let next = Instant::now() + self.patience;
            self.alarm.as_mut().reset(next);
            return poll;
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection is idle")))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.metrics.received(buffer.filled().len() - before);
        self.watch(context, poll)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.sent(&poll);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.connection).poll_write_vectored(context, slices);
        self.sent(&poll);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silence_ends_it_and_bytes_do_not() {
        let (one, mut other) = tokio::io::duplex(4);
        let mut watched = Watched::new(one, Duration::from_millis(150), Arc::default());
        for _ in 0..4 {
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
            other.write_all(b"x").await.unwrap();
            watched.read_u8().await.unwrap();
        }
        let ended = watched.read_u8().await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        let (one, _unread) = tokio::io::duplex(4);
        let mut watched = Watched::new(one, Duration::from_millis(50), Arc::default());
        let ended = watched.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }
}
