//! Connections to nodes that carry watches.
//!
//! A watch that its consumer does not read holds back bytes of its connection, so watches have
//! connections apart from those of requests, with small windows for each stream. A connection
//! carries a number of watches, and closes with the last of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use dkv_base::id::NodeId;
use dkv_base::sync::lock;
use dkv_wire::limits::CONNECTION_WATCHES_MAX;
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::tls::Expect;

/// Streams of a connection, well below what a node allows.
const STREAMS_MAX: usize = CONNECTION_WATCHES_MAX / 8;

/// The connections of a client that carry watches.
#[derive(Default)]
pub(crate) struct WatchConnections {
    nodes: Mutex<BTreeMap<NodeId, Arc<ToNode>>>,
}

/// The connections to one node. The lock is held while another is established, so that watches
/// which begin together share it.
type ToNode = tokio::sync::Mutex<Vec<Weak<Shared>>>;

struct Shared {
    connection: quinn::Connection,
    /// The address as it was given. That of the connection may be in mapped form.
    address: SocketAddr,
    streams: AtomicUsize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        Close::Done.close(&self.connection, "no watch needs it any more");
    }
}

/// A stream of a watch. Dropping it makes room for another one on its connection.
pub(crate) struct WatchStream {
    pub(crate) send: quinn::SendStream,
    pub(crate) receive: quinn::RecvStream,
    _place: Place,
}

/// A stream's place on a connection.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WatchConnections {
    /// Opens a stream to a node.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn open(
        &self,
        endpoint: &Endpoint,
        node: NodeId,
        address: SocketAddr,
    ) -> Result<WatchStream, String> {
        let to_node = Arc::clone(lock(&self.nodes).entry(node).or_default());
        let place = place(&mut *to_node.lock().await, endpoint, node, address).await?;
        let opened = place.0.connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| error.to_string())?;
        Ok(WatchStream { send, receive, _place: place })
    }
}

/// Returns a place on a connection to a node, which it establishes if none has room.
async fn place(
    known: &mut Vec<Weak<Shared>>,
    endpoint: &Endpoint,
    node: NodeId,
    address: SocketAddr,
) -> Result<Place, String> {
    known.retain(|shared| shared.strong_count() > 0);
    for shared in known.iter().filter_map(Weak::upgrade) {
        let is_usable = shared.connection.close_reason().is_none() && shared.address == address;
        if is_usable && shared.streams.load(Ordering::Relaxed) < STREAMS_MAX {
            shared.streams.fetch_add(1, Ordering::Relaxed);
            return Ok(Place(shared));
        }
    }
    let connection = endpoint.connect_to_watch(address, Expect::Node(node)).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared { connection, address, streams: AtomicUsize::new(1) });
    known.push(Arc::downgrade(&shared));
    Ok(Place(shared))
}
