//! The simplest remote call: one message out, one back, on a stream of its own.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{DecodeError, decode};
use crate::frame::{FrameError, FrameReader, FrameWriter};

/// Why a call has no answer. The call may have had its effect all the same.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The connection was lost.
    #[error("connection lost: {0}")]
    Lost(#[from] quinn::ConnectionError),
    /// The stream could not be read, or not as frames.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The stream could not be written.
    #[error("stream failed: {0}")]
    Write(#[from] std::io::Error),
    /// The answer is not a message of the expected type.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The peer ended the stream without an answer.
    #[error("the other side ended the conversation without an answer")]
    NoAnswer,
    /// No answer arrived in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Sends `request` on a new stream, after `opening` if there is one, and waits for one answer of at
/// most `limit` bytes.
///
/// A stream to a node begins with an [`Opening`](crate::message::Opening); one to the registration
/// server does not.
///
/// # Errors
/// See [`RpcError`].
pub async fn call<A: Serialize, B: Serialize, T: DeserializeOwned>(
    connection: &quinn::Connection,
    opening: Option<&A>,
    request: &B,
    limit: usize,
    timeout: Duration,
) -> Result<T, RpcError> {
    let exchange = async {
        let (send, receive) = connection.open_bi().await?;
        let mut writer = FrameWriter::new(send);
        if let Some(opening) = opening {
            writer.push(opening);
        }
        writer.send(request).await?;
        let answer = FrameReader::new(receive, limit).next().await?.ok_or(RpcError::NoAnswer)?;
        // The peer has answered, so it does not matter if it has stopped reading.
        let _ = writer.into_inner().finish();
        Ok(decode(&answer)?)
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| RpcError::Timeout(timeout))?
}
