//! Calls nodes back at the address that they say others reach them at.
//!
//! A node that names a wrong address gets on with everybody whom it calls, and nobody gets on with
//! it. The server is the first that such a node meets, so it calls the node back, once for each
//! address and again now and then as long as it fails. The node notices whether it was called, and
//! says so if it was not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use dkv_base::id::NodeId;
use dkv_base::supervise::caught;
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::tls::Expect;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::limits::{CALL_AGAIN, CALLED_MAX, CALLS_MAX};

/// Calls nodes back.
pub(crate) struct CallBack {
    endpoint: Endpoint,
    calls: Arc<Semaphore>,
    called: Arc<Mutex<HashMap<NodeId, Called>>>,
}

/// How a node was called last.
#[derive(Clone, Copy)]
struct Called {
    address: SocketAddr,
    at: Instant,
    answered: bool,
}

impl CallBack {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, calls: Arc::new(Semaphore::new(CALLS_MAX)), called: Arc::default() }
    }

    /// Calls a node that says it is at that address, unless it was called there already. Waits for
    /// nothing.
    pub(crate) fn call(&self, node: NodeId, address: SocketAddr) {
        let Ok(place) = Arc::clone(&self.calls).try_acquire_owned() else { return };
        if !self.begin(node, address, Instant::now()) {
            return;
        }
        let (endpoint, called) = (self.endpoint.clone(), Arc::clone(&self.called));
        tokio::spawn(async move {
            let answer = caught(endpoint.connect(address, Expect::Node(node))).await;
            drop(place);
            match answer {
                Ok(Ok(connection)) => {
                    Close::Done.close(&connection, "called back");
                    if let Some(last) = lock(&called).get_mut(&node) {
                        last.answered |= last.address == address;
                    }
                    debug!(?node, %address, "reached the node at its address");
                }
                Ok(Err(error)) => {
                    info!(?node, "cannot reach the node at the address that it names: {error}");
                }
                Err(panicked) => debug!("calling back {panicked}"),
            }
        });
    }

    /// Notes that a node is called now; or says that it need not be.
    fn begin(&self, node: NodeId, address: SocketAddr, now: Instant) -> bool {
        let mut called = lock(&self.called);
        if let Some(last) = called.get(&node)
            && (now.duration_since(last.at) < CALL_AGAIN
                || (last.answered && last.address == address))
        {
            return false;
        }
        if called.len() >= CALLED_MAX {
            called.retain(|_, last| now.duration_since(last.at) < CALL_AGAIN);
        }
        called.insert(node, Called { address, at: now, answered: false });
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
