//! Admission control: which connections a process accepts, how many, and when it closes them.
//!
//! The [`Acceptor`] takes connections from an endpoint, bounds handshakes and connections, reads
//! the identity of the peer and refuses those on the deny list. It remembers every connection, made
//! or accepted, so that a new entry of the deny list closes the connections that are open already.
//!
//! No peer can keep the others out. Handshakes are shared out by address
//! ([`slots`](dkv_base::slots)), connections by certificate holder, and some connections are
//! reserved for nodes and for administrators, so that an order to revoke always gets through.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use dkv_base::audit::{self, What, Who};
use dkv_base::id::HolderId;
use dkv_base::slots::Slots;
use dkv_base::supervise::caught;
use dkv_base::sync;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::identity::{Identity, Role};
use crate::limits;
use crate::quic::{Close, Endpoint, is_joining, peer_identity, widen};

/// The peer of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A joiner, which has not authenticated itself.
    Joining,
    /// The holder of a valid certificate.
    Certified(Identity),
}

/// Accepts connections, and closes those of denied holders.
pub struct Acceptor {
    denied: RwLock<HashSet<HolderId>>,
    open: Mutex<BTreeMap<u64, (HolderId, quinn::Connection)>>,
    /// Number of connections so far; each is remembered under its number.
    numbered: AtomicU64,
    handshakes: Arc<Slots>,
    connections: Arc<Semaphore>,
    /// Connections reserved for nodes.
    node_reserve: Arc<Semaphore>,
    /// Connections reserved for administrators.
    admin_reserve: Arc<Semaphore>,
    /// Accepted connections of each holder.
    holders: Mutex<HashMap<HolderId, Count>>,
}

/// Accepted connections of one holder.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    /// Those among them that use a reserved permit.
    reserved: usize,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// There are too many connections.
    All,
    /// Its holder has too many connections.
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

/// The permit of an accepted connection. Dropping it frees the connection's place.
struct Admitted {
    acceptor: Arc<Acceptor>,
    /// The holder and whether its permit is a reserved one; `None` for a joiner.
    holder: Option<(HolderId, bool)>,
    /// Number of the holder's connections, this one included.
    count: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((holder, reserved)) = self.holder else { return };
        let mut holders = sync::lock(&self.acceptor.holders);
        if let Some(count) = holders.get_mut(&holder) {
            debug_assert!(count.all > 0 && count.reserved <= count.all, "{count:?}");
            count.all -= 1;
            count.reserved -= usize::from(reserved);
            if count.all == 0 {
                holders.remove(&holder);
            }
        }
    }
}

impl Default for Acceptor {
    fn default() -> Self {
        Self {
            denied: RwLock::default(),
            open: Mutex::default(),
            numbered: AtomicU64::new(0),
            handshakes: Arc::new(Slots::new(
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

impl Acceptor {
    /// Whether the deny list names this holder.
    pub fn is_denied(&self, holder: HolderId) -> bool {
        sync::read(&self.denied).contains(&holder)
    }

    /// Number of open connections with certified peers, made or accepted.
    pub fn open_count(&self) -> usize {
        self.connections().len()
    }

    /// Replaces the deny list and closes every open connection of a holder on it.
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
    /// For connections that this process made. [`serve`](Self::serve) watches those it accepts.
    pub fn watch(self: &Arc<Self>, connection: &quinn::Connection) {
        let Some(identity) = peer_identity(connection) else { return };
        let key = self.numbered.fetch_add(1, Ordering::Relaxed);
        self.connections().insert(key, (identity.holder, connection.clone()));
        // After the insertion: a deny list that changes in between then sees the connection.
        if self.is_denied(identity.holder) {
            Close::Denied.close(connection, "removed from the network");
        }
        let (acceptor, connection) = (Arc::clone(self), connection.clone());
        tokio::spawn(async move {
            connection.closed().await;
            acceptor.connections().remove(&key);
        });
    }

    /// Accepts connections until the endpoint and all of them have closed. Runs `handle` for each
    /// in a separate task; dropping this future ends those tasks.
    pub async fn serve<F, Fut>(self: Arc<Self>, endpoint: Endpoint, handle: F)
    where
        F: Fn(quinn::Connection, Peer) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let mut tasks = JoinSet::new();
        while let Some(incoming) = endpoint.quinn().accept().await {
            // Reaps finished tasks, so that the set does not grow beyond the open connections.
            while tasks.try_join_next().is_some() {}
            let remote = incoming.remote_address();
            let address = remote.ip();
            // First the sender must prove its address with a Retry. With a forged address it could
            // direct more than three times the bytes it sent at a victim: a server that has sent
            // less than that may go on with a whole packet (RFC 9000, section 8.1). The Retry costs
            // nothing here, and no peer takes slots in the name of another.
            if !incoming.remote_address_validated() && incoming.may_retry() {
                let _ = incoming.retry();
                continue;
            }
            let Some(mut handshake) = self.handshakes.take(address) else {
                incoming.refuse();
                continue;
            };
            let (acceptor, handle) = (Arc::clone(&self), handle.clone());
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
                    Ok(Err(error)) => {
                        note_failed_handshake(remote, &error);
                        return debug!(%error, "handshake failed");
                    }
                    Err(_) => return debug!("handshake was not finished in time"),
                };
                drop(handshake);
                let admitted = connection.clone();
                if let Err(panicked) = caught(acceptor.admit(connection, handle)).await {
                    // The panic ends this connection and nothing else. Other clones of the
                    // connection keep it open, so it must be closed explicitly.
                    error!("serving a connection {panicked}; it is closed; this is a bug in dkv");
                    Close::Protocol.close(&admitted, "internal error");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Takes a permit for a connection, out of a reserve if all others are in use.
    fn place(self: &Arc<Self>, peer: Peer) -> Result<Admitted, Full> {
        let usual = Arc::clone(&self.connections).try_acquire_owned();
        let Peer::Certified(identity) = peer else {
            let permit = usual.map_err(|_| Full::All)?;
            return Ok(Admitted {
                acceptor: Arc::clone(self),
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
        Ok(Admitted { acceptor: Arc::clone(self), holder, count: count.all, _permit: permit })
    }

    async fn admit<F, Fut>(self: Arc<Self>, connection: quinn::Connection, handle: F)
    where
        F: Fn(quinn::Connection, Peer) -> Fut,
        Fut: Future<Output = ()>,
    {
        let peer = match peer_identity(&connection) {
            None if is_joining(&connection) => Peer::Joining,
            None => {
                let address = Some(connection.remote_address().into());
                let who = Who { address, ..Who::default() };
                audit::denied(who, What::new("connect", ""), "a certificate is needed");
                return Close::Denied.close(&connection, "a certificate is needed");
            }
            // A joiner that shows a certificate is confused, but authenticated all the same.
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
            // `watch` has closed it, but requests that the peer sent along could still be served.
            if self.is_denied(identity.holder) {
                let who = identity.audited(None, connection.remote_address());
                audit::denied(who, What::new("connect", ""), "removed from the network");
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

/// Tells of a handshake that failed because of the peer's certificate: one that has expired, or is
/// none of the network. The peer has not proved who it is.
fn note_failed_handshake(remote: SocketAddr, error: &quinn::ConnectionError) {
    let quinn::ConnectionError::TransportError(error) = error else { return };
    if !is_of_certificate(u64::from(error.code)) {
        return;
    }
    let who = Who { address: Some(remote.into()), ..Who::default() };
    audit::denied(who, What::new("connect", ""), &error.reason);
}

/// Whether an error of QUIC is an alert of TLS about a certificate (RFC 9001, section 4.8, and RFC
/// 8446, section 6).
fn is_of_certificate(code: u64) -> bool {
    let alert = code.checked_sub(0x100);
    // From bad_certificate to certificate_unknown, unknown_ca, and certificate_required.
    alert.is_some_and(|alert| matches!(alert, 42..=46 | 48 | 116))
}

#[cfg(test)]
mod tests;
