//! The simplest conversation: one message out, one back, on a stream of its own.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{DecodeError, decode};
use crate::frame::{FrameError, FrameReader, FrameWriter};

/// Why a call has no answer. Whether it had an effect is not known.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection is lost.
    #[error("connection lost: {0}")]
    Lost(#[from] quinn::ConnectionError),
    /// The stream failed.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The stream could not be written to.
    #[error("stream failed: {0}")]
    Write(#[from] std::io::Error),
    /// The answer is not one.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The peer ended the stream without an answer.
    #[error("the other side ended the conversation without an answer")]
    NoAnswer,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Sends the messages of `requests`, in order, on one new stream and waits for one answer.
///
/// A stream to a node begins with an opening, so that its calls send two messages.
pub async fn call<A: Serialize, B: Serialize, T: DeserializeOwned>(
    connection: &quinn::Connection,
    opening: Option<&A>,
    request: &B,
    limit: usize,
    timeout: Duration,
) -> Result<T, CallError> {
    let conversation = async {
        let (send, receive) = connection.open_bi().await?;
        let mut writer = FrameWriter::new(send);
        if let Some(opening) = opening {
            writer.push(opening);
        }
        writer.send(request).await?;
        let answer = FrameReader::new(receive, limit).next().await?.ok_or(CallError::NoAnswer)?;
        // The other side has what it needs; that it may have stopped reading is no error.
        let _ = writer.into_inner().finish();
        Ok(decode(&answer)?)
    };
    tokio::time::timeout(timeout, conversation).await.map_err(|_| CallError::Timeout(timeout))?
}
