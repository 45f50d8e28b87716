//! The gate of a process that is connected to: who comes in, how many, and who is thrown out.
//!
//! It takes connections from an endpoint, bounds handshakes and connections, reads the peer's
//! identity, refuses whom the deny list names, and remembers every connection, made or taken, so
//! that a new entry of the deny list closes what is open already.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::id::HolderId;
use crate::identity::Identity;
use crate::limits;
use crate::quic::{Close, Endpoint, is_joining, peer_identity, widen};
use crate::supervise::caught;

/// Who is at the other end of a connection that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A joiner, proved by nothing yet.
    Joining,
    /// The holder of a valid certificate.
    Certified(Identity),
}

/// Lets connections in.
pub struct Gate {
    denied: RwLock<HashSet<HolderId>>,
    open: Mutex<BTreeMap<u64, (HolderId, quinn::Connection)>>,
    /// Connections so far: each is remembered under its number.
    numbered: AtomicU64,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            denied: RwLock::default(),
            open: Mutex::default(),
            numbered: AtomicU64::new(0),
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES_MAX)),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
        }
    }
}

impl Gate {
    /// Whether the deny list names this holder.
    pub fn is_denied(&self, holder: HolderId) -> bool {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).contains(&holder)
    }

    /// Connections with certified peers that are open, made or taken.
    pub fn open_count(&self) -> usize {
        self.connections().len()
    }

    /// Replaces the deny list and closes every open connection of those it names.
    pub fn set_denied(&self, denied: impl IntoIterator<Item = HolderId>) {
        let denied: HashSet<HolderId> = denied.into_iter().collect();
        let mut current = self.denied.write().unwrap_or_else(PoisonError::into_inner);
        if *current == denied {
            return;
        }
        *current = denied;
        for (holder, connection) in self.connections().values() {
            if current.contains(holder) {
                Close::Denied.close(connection, "removed from the network");
            }
        }
    }

    /// Remembers a connection until it closes, and closes it if its peer is or becomes denied.
    ///
    /// For connections that this process made; those that it took are remembered already.
    pub fn watch(self: &Arc<Self>, connection: &quinn::Connection) {
        let Some(identity) = peer_identity(connection) else { return };
        let key = self.numbered.fetch_add(1, Ordering::Relaxed);
        self.connections().insert(key, (identity.holder, connection.clone()));
        // Asked after the insertion: a list that changes in between sees the connection.
        if self.is_denied(identity.holder) {
            Close::Denied.close(connection, "removed from the network");
        }
        let (gate, connection) = (Arc::clone(self), connection.clone());
        tokio::spawn(async move {
            connection.closed().await;
            gate.connections().remove(&key);
        });
    }

    /// Takes connections until the endpoint closes and all of them have; each let in is handed to
    /// `handle` in a task of its own, which ends with this at the latest.
    pub async fn serve<F, Fut>(self: Arc<Self>, endpoint: Endpoint, handle: F)
    where
        F: Fn(quinn::Connection, Peer) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let mut tasks = JoinSet::new();
        while let Some(incoming) = endpoint.quinn().accept().await {
            // Those that have ended are let go of, so no more are kept than there were at once.
            while tasks.try_join_next().is_some() {}
            let Ok(handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            // First the sender shows that its address is its own. Else somebody else's could be named, and would
            // get more than three times what was sent: a server that has answered with less than that may
            // go on with a whole packet (RFC 9000, section 8.1). It also costs no work up to here.
            if !incoming.remote_address_validated() && incoming.may_retry() {
                let _ = incoming.retry();
                continue;
            }
            let (gate, handle) = (Arc::clone(&self), handle.clone());
            tasks.spawn(async move {
                let accepted = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, async {
                    incoming.accept()?.await
                });
                let connection = match accepted.await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => return debug!(%error, "handshake failed"),
                    Err(_) => return debug!("handshake was not finished in time"),
                };
                drop(handshake);
                let admitted = connection.clone();
                if let Err(panicked) = caught(gate.admit(connection, handle)).await {
                    // It ends this connection, and nothing else. Others still hold it, so it is not closed by
                    // being dropped.
                    error!("serving a connection {panicked}; it is closed; this is a fault in dkv");
                    Close::Protocol.close(&admitted, "internal error");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn admit<F, Fut>(self: Arc<Self>, connection: quinn::Connection, handle: F)
    where
        F: Fn(quinn::Connection, Peer) -> Fut,
        Fut: Future<Output = ()>,
    {
        let Ok(_permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            return Close::Busy.close(&connection, "too many connections");
        };
        let peer = match peer_identity(&connection) {
            None if is_joining(&connection) => Peer::Joining,
            None => return Close::Denied.close(&connection, "a certificate is needed"),
            // A joiner that shows a certificate is confused, but no less proved.
            Some(identity) => Peer::Certified(identity),
        };
        if let Peer::Certified(identity) = peer {
            self.watch(&connection);
            // Closed by now; but what the peer sent along could still be read and obeyed.
            if self.is_denied(identity.holder) {
                return debug!(%identity, "refused");
            }
            widen(&connection);
            debug!(%identity, address = %connection.remote_address(), "connected");
        }
        handle(connection, peer).await;
    }

    fn connections(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<u64, (HolderId, quinn::Connection)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
