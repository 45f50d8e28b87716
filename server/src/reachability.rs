//! Checks that nodes can be reached at the addresses they advertise.
//!
//! A node that advertises a wrong address can call every peer, but no peer can call it back. The
//! server is the first peer that such a node meets, so it dials each advertised address once, and
//! again at intervals while dialling fails. A node notices whether the server has dialled it, and
//! warns if it has not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dkv_base::id::NodeId;
use dkv_base::supervise::caught;
use dkv_base::sync::lock;
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::tls::Expect;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::limits::{PROBE_INTERVAL, PROBED_NODES_MAX, PROBES_MAX};

/// Dials nodes back at their advertised addresses.
pub(crate) struct ReachabilityProbe {
    endpoint: Endpoint,
    /// Limits the probes in flight.
    permits: Arc<Semaphore>,
    probed: Arc<Mutex<HashMap<NodeId, LastProbe>>>,
}

/// The latest probe of a node.
#[derive(Clone, Copy)]
struct LastProbe {
    address: SocketAddr,
    at: Instant,
    answered: bool,
}

impl ReachabilityProbe {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, permits: Arc::new(Semaphore::new(PROBES_MAX)), probed: Arc::default() }
    }

    /// Probes a node at the address it advertises, in the background, unless it answered there
    /// before or was probed a moment ago.
    pub(crate) fn probe(&self, node: NodeId, address: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
        if !self.begin(node, address, Instant::now()) {
            return;
        }
        let (endpoint, probed) = (self.endpoint.clone(), Arc::clone(&self.probed));
        tokio::spawn(async move {
            let answer = caught(endpoint.connect(address, Expect::Node(node))).await;
            drop(permit);
            match answer {
                Ok(Ok(connection)) => {
                    Close::Done.close(&connection, "reachability check");
                    if let Some(last) = lock(&probed).get_mut(&node) {
                        last.answered |= last.address == address;
                    }
                    debug!(?node, %address, "the node answers at its advertised address");
                }
                Ok(Err(error)) => {
                    info!(?node, "cannot reach the node at its advertised address: {error}");
                }
                Err(panicked) => debug!("the reachability check {panicked}"),
            }
        });
    }

    /// Records a probe that begins now. False if none is due.
    fn begin(&self, node: NodeId, address: SocketAddr, now: Instant) -> bool {
        let mut probed = lock(&self.probed);
        if let Some(last) = probed.get(&node)
            && (now.duration_since(last.at) < PROBE_INTERVAL
                || (last.answered && last.address == address))
        {
            return false;
        }
        if probed.len() >= PROBED_NODES_MAX {
            probed.retain(|_, last| now.duration_since(last.at) < PROBE_INTERVAL);
        }
        probed.insert(node, LastProbe { address, at: now, answered: false });
        true
    }
}
