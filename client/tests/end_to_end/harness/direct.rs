//! A peer that speaks the protocol without the client library, to send requests to any node and
//! requests that are not allowed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dkv_api::{GroupId, NodeId, Role};
use dkv_base::id::{HolderId, NetworkId};
use dkv_test_support::within;
use dkv_wire::certificate::{Authority, Credentials, generate_key};
use dkv_wire::identity::Identity;
use dkv_wire::join::{JoinError, join};
use dkv_wire::limits::{FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use dkv_wire::message::{
    Answer, Opening, ReadMode, Refusal, Reply, Request, RequestBody, ServerAnswer, ServerRequest,
};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::rpc::{RpcError, call};
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;

use super::Network;

/// Time limit of an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A peer.
pub(crate) struct Direct {
    /// Its identity.
    pub(crate) credentials: Credentials,
    /// Its endpoint.
    pub(crate) endpoint: Endpoint,
}

impl Direct {
    /// Joins a network under a fresh identity.
    pub(crate) async fn join(network: &Network, role: Role) -> Self {
        Self::try_to_join(network, role).await.unwrap()
    }

    /// Tries once to join a network under a fresh identity.
    pub(crate) async fn try_to_join(network: &Network, role: Role) -> Result<Self, JoinError> {
        let text = std::fs::read_to_string(network.token_file(role)).unwrap();
        let token: Token = text.parse().unwrap();
        let joiner = Endpoint::dial_only(None).unwrap();
        join(&joiner, network.address, &token).await.map(Self::with)
    }

    /// Signs an identity of any role with the authority's key in the directory of a server.
    pub(crate) fn forged(network: NetworkId, server: &Path, role: Role) -> Self {
        let read = |name| std::fs::read(server.join(name)).unwrap();
        let (certificate, key) = (read("authority.der"), read("authority-key.der"));
        let authority = Authority::from_der(network, &certificate, &key).unwrap();
        let (key, public_key) = generate_key().unwrap();
        let identity = Identity { network, role, holder: HolderId::random(), user: None };
        let certificate = authority.sign(identity, &public_key, SystemTime::now()).unwrap();
        Self::with(Credentials::new(&certificate, authority.certificate(), key).unwrap())
    }

    /// Uses an existing identity.
    pub(crate) fn with(credentials: Credentials) -> Self {
        let endpoint = Endpoint::dial_only(Some(credentials.clone())).unwrap();
        Self { credentials, endpoint }
    }

    /// Connects to a node.
    pub(crate) async fn to_node(
        &self,
        address: SocketAddr,
    ) -> Result<quinn::Connection, ConnectError> {
        self.endpoint.connect(address, Expect::AnyNode).await
    }

    /// Connects to the server.
    pub(crate) async fn to_server(
        &self,
        network: &Network,
    ) -> Result<quinn::Connection, ConnectError> {
        self.endpoint.connect(network.address, Expect::Server).await
    }
}

/// Sends a request to a node.
pub(crate) async fn ask(
    connection: &quinn::Connection,
    body: RequestBody,
) -> Result<Result<Answer, Refusal>, RpcError> {
    send(connection, body, false).await
}

/// Sends a request to a node that is to pass it on to the node that can answer it.
pub(crate) async fn ask_anywhere(
    connection: &quinn::Connection,
    body: RequestBody,
) -> Result<Answer, Refusal> {
    send(connection, body, true).await.unwrap()
}

async fn send(
    connection: &quinn::Connection,
    body: RequestBody,
    forward: bool,
) -> Result<Result<Answer, Refusal>, RpcError> {
    let deadline_ms = ANSWER.as_millis() as u32;
    let request = Request { id: 7, deadline_ms, forward, user: None, body };
    let opening = Some(&Opening::Requests);
    let reply: Reply = call(connection, opening, &request, FRAME_BYTES_MAX, ANSWER).await?;
    assert_eq!(reply.id, 7);
    Ok(reply.result)
}

/// Reads a key at a node.
pub(crate) async fn read(
    connection: &quinn::Connection,
    shard: GroupId,
    key: &str,
) -> Result<Option<String>, Refusal> {
    read_as(connection, shard, key, ReadMode::Primary).await
}

/// Reads a key at a node, in a mode.
pub(crate) async fn read_as(
    connection: &quinn::Connection,
    shard: GroupId,
    key: &str,
    mode: ReadMode,
) -> Result<Option<String>, Refusal> {
    let key = key.to_owned().into_bytes().into();
    match ask(connection, RequestBody::Read { shard, key, mode }).await.unwrap()? {
        Answer::Value(_, stored) => {
            Ok(stored.map(|stored| String::from_utf8(stored.value.to_vec()).unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

/// Sends a request to the server.
pub(crate) async fn ask_server(
    connection: &quinn::Connection,
    request: &ServerRequest,
) -> ServerAnswer {
    call(connection, None::<&()>, request, SERVER_FRAME_BYTES_MAX, ANSWER).await.unwrap()
}

/// Waits until the peer closes a connection, and checks that it denies access.
///
/// If the machine stalls for a tenth of a second, the peer may have forgotten the connection before
/// its reason arrives. It then resets the connection (RFC 9000, section 10.3), and quinn reports
/// only that.
pub(crate) async fn denied(connection: &quinn::Connection) {
    match within(ANSWER, "closing the connection", connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(why) => {
            assert_eq!(why.error_code, (Close::Denied as u32).into(), "{why}");
        }
        quinn::ConnectionError::Reset => {}
        other => panic!("{other}"),
    }
}

/// Returns the streams that only nodes may open, in the name of one.
pub(crate) fn raft_openings(group: GroupId, from: NodeId) -> [Opening; 3] {
    [
        Opening::RaftCalls { group, from },
        Opening::RaftAppend { group, from, acknowledged: None },
        Opening::RaftSnapshot { group, from },
    ]
}
