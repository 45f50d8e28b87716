//! A single question to another node, and its answer.

use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Refusal, Reply, Request, RequestBody};
use dkv_wire::rpc::{RpcError, call};

use crate::net::peers::{Lane, PeerError, Peers};

/// Reason why an exchange with another node broke off. The caller gives up the stream, and may
/// begin a new one; whether the other node acted on what it was sent is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// There is no connection to the node.
    #[error(transparent)]
    NoConnection(#[from] PeerError),
    /// The connection or the stream broke.
    #[error(transparent)]
    Broken(#[from] RpcError),
}

/// Asks one node. A refusal is passed on unchanged. If no answer comes, the result is
/// [`Refusal::Unavailable`], and the request may or may not have had an effect.
pub(crate) async fn ask(
    peers: &Peers,
    peer: NodeId,
    lane: Lane,
    body: RequestBody,
    patience: Duration,
) -> Result<Answer, Refusal> {
    let unavailable = |why: String| Refusal::Unavailable(why);
    let asked = async {
        let connection = peers.connection(peer, lane).await;
        let connection = connection.map_err(|error| unavailable(error.to_string()))?;
        let deadline_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let request = Request { id: 1, deadline_ms, forward: false, user: None, body };
        let answered: Result<Reply, RpcError> =
            call(&connection, Some(&Opening::Requests), &request, FRAME_BYTES_MAX, patience).await;
        match answered {
            Ok(reply) => reply.result,
            // The regular users of the connection decide when to give it up: a slow answer here may
            // be due to the question itself.
            Err(error) => Err(unavailable(error.to_string())),
        }
    };
    // Connecting takes time too, so the timeout includes it.
    let asked = tokio::time::timeout(patience, asked).await;
    asked.unwrap_or_else(|_| Err(unavailable(format!("no answer in {} ms", patience.as_millis()))))
}

/// Sends one node a request whose answer is [`Answer::Done`].
pub(crate) async fn tell(
    peers: &Peers,
    peer: NodeId,
    body: RequestBody,
    patience: Duration,
) -> Result<(), Refusal> {
    match ask(peers, peer, Lane::Urgent, body, patience).await? {
        Answer::Done => Ok(()),
        _ => Err(Refusal::Unavailable("unexpected answer".into())),
    }
}
