//! The gate of a process that is connected to: who comes in, how many, and who is thrown out.
//!
//! It takes connections from an endpoint, bounds handshakes and connections, reads the peer's
//! identity, refuses whom the deny list names, and remembers every connection, made or taken, so
//! that a new entry of the deny list closes what is open already.
//!
//! Nobody keeps others out. Handshakes are shared out by address ([`places`](dkv_base::places)),
//! connections by holder, and some room is for nodes and some for administrators alone, so that an
//! order to revoke always gets through.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use dkv_base::id::HolderId;
use dkv_base::places::Places;
use dkv_base::supervise::caught;
use dkv_base::sync;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::identity::{Identity, Role};
use crate::limits;
use crate::quic::{Close, Endpoint, is_joining, peer_identity, widen};

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
    handshakes: Arc<Places>,
    connections: Arc<Semaphore>,
    /// Connections that only nodes may have, and only administrators.
    node_reserve: Arc<Semaphore>,
    admin_reserve: Arc<Semaphore>,
    /// Connections of each holder that were taken: all of them, and those out of a reserve.
    holders: Mutex<HashMap<HolderId, Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    reserved: usize,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// There are too many.
    All,
    /// Its holder has too many.
    Holder,
}

impl Full {
    fn why(self) -> &'static str {
        match self {
            Self::All => "too many connections",
            Self::Holder => "too many connections of one certificate",
        }
    }
}

/// A connection's place. It is free again once this is dropped.
struct Admitted {
    gate: Arc<Gate>,
    /// The holder, unless it is a joiner; and whether the place is out of a reserve.
    holder: Option<(HolderId, bool)>,
    /// Connections of the holder, this one included.
    count: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((holder, reserved)) = self.holder else { return };
        let mut holders = sync::lock(&self.gate.holders);
        if let Some(count) = holders.get_mut(&holder) {
            count.all -= 1;
            count.reserved -= usize::from(reserved);
            if count.all == 0 {
                holders.remove(&holder);
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            denied: RwLock::default(),
            open: Mutex::default(),
            numbered: AtomicU64::new(0),
            handshakes: Arc::new(Places::new(
                limits::HANDSHAKES_MAX,
                limits::ADDRESS_HANDSHAKES_MAX,
            )),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
            node_reserve: Arc::new(Semaphore::new(limits::NODE_CONNECTIONS_RESERVED)),
            admin_reserve: Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_RESERVED)),
            holders: Mutex::default(),
        }
    }
}

impl Gate {
    /// Whether the deny list names this holder.
    pub fn is_denied(&self, holder: HolderId) -> bool {
        sync::read(&self.denied).contains(&holder)
    }

    /// Connections with certified peers that are open, made or taken.
    pub fn open_count(&self) -> usize {
        self.connections().len()
    }

    /// Replaces the deny list and closes every open connection of those it names.
    pub fn set_denied(&self, denied: impl IntoIterator<Item = HolderId>) {
        let denied: HashSet<HolderId> = denied.into_iter().collect();
        let mut current = sync::write(&self.denied);
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
            let address = incoming.remote_address().ip();
            // First the sender shows that its address is its own. Else somebody else's could be
            // named, and would get more than three times what was sent: a server that has answered
            // with less than that may go on with a whole packet (RFC 9000, section 8.1). It costs
            // no work up to here, and nobody takes places in the name of another.
            if !incoming.remote_address_validated() && incoming.may_retry() {
                let _ = incoming.retry();
                continue;
            }
            let Some(mut handshake) = self.handshakes.take(address) else {
                incoming.refuse();
                continue;
            };
            let (gate, handle) = (Arc::clone(&self), handle.clone());
            tasks.spawn(async move {
                let accepting = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, async {
                    incoming.accept()?.await
                });
                let accepted = tokio::select! {
                    biased;
                    accepted = accepting => accepted,
                    () = handshake.lost() => {
                        return debug!(%address, "a slow handshake made room for another");
                    }
                };
                let connection = match accepted {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => return debug!(%error, "handshake failed"),
                    Err(_) => return debug!("handshake was not finished in time"),
                };
                drop(handshake);
                let admitted = connection.clone();
                if let Err(panicked) = caught(gate.admit(connection, handle)).await {
                    // It ends this connection, and nothing else. Others still hold it, so it is not
                    // closed by being dropped.
                    error!("serving a connection {panicked}; it is closed; this is a fault in dkv");
                    Close::Protocol.close(&admitted, "internal error");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Finds a place for a connection.
    fn place(self: &Arc<Self>, peer: Peer) -> Result<Admitted, Full> {
        let usual = Arc::clone(&self.connections).try_acquire_owned();
        let Peer::Certified(identity) = peer else {
            let permit = usual.map_err(|_| Full::All)?;
            return Ok(Admitted {
                gate: Arc::clone(self),
                holder: None,
                count: 1,
                _permit: permit,
            });
        };
        let mut holders = sync::lock(&self.holders);
        let mut count = holders.get(&identity.holder).copied().unwrap_or_default();
        if count.all >= limits::HOLDER_CONNECTIONS_MAX {
            return Err(Full::Holder);
        }
        let (permit, reserved) = match usual {
            Ok(permit) => (permit, false),
            Err(_) if count.reserved >= limits::HOLDER_CONNECTIONS_RESERVED => {
                return Err(Full::Holder);
            }
            Err(_) => {
                let reserve = match identity.role {
                    Role::Node | Role::Server => &self.node_reserve,
                    Role::Admin => &self.admin_reserve,
                    Role::Client | Role::Reader => return Err(Full::All),
                };
                (Arc::clone(reserve).try_acquire_owned().map_err(|_| Full::All)?, true)
            }
        };
        count.all += 1;
        count.reserved += usize::from(reserved);
        holders.insert(identity.holder, count);
        drop(holders);
        let holder = Some((identity.holder, reserved));
        Ok(Admitted { gate: Arc::clone(self), holder, count: count.all, _permit: permit })
    }

    async fn admit<F, Fut>(self: Arc<Self>, connection: quinn::Connection, handle: F)
    where
        F: Fn(quinn::Connection, Peer) -> Fut,
        Fut: Future<Output = ()>,
    {
        let peer = match peer_identity(&connection) {
            None if is_joining(&connection) => Peer::Joining,
            None => return Close::Denied.close(&connection, "a certificate is needed"),
            // A joiner that shows a certificate is confused, but no less proved.
            Some(identity) => Peer::Certified(identity),
        };
        let admitted = match self.place(peer) {
            Ok(admitted) => admitted,
            Err(full) => {
                let address = connection.remote_address();
                match peer {
                    Peer::Certified(identity) => debug!(%identity, %address, ?full, "turned away"),
                    Peer::Joining => debug!(%address, ?full, "turned a joiner away"),
                }
                return Close::Busy.close(&connection, full.why());
            }
        };
        if let Peer::Certified(identity) = peer {
            self.watch(&connection);
            // Closed by now; but what the peer sent along could still be read and obeyed.
            if self.is_denied(identity.holder) {
                return debug!(%identity, "refused");
            }
            widen(&connection, admitted.count);
            debug!(%identity, address = %connection.remote_address(), "connected");
        }
        handle(connection, peer).await;
        drop(admitted);
    }

    fn connections(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<u64, (HolderId, quinn::Connection)>> {
        sync::lock(&self.open)
    }
}

#[cfg(test)]
mod tests;
