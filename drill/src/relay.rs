//! Relays between nodes, which is where they can be kept apart without any privilege.
//!
//! Each node tells everybody the address of its relay instead of its own. Nodes send from the port
//! that they listen on, so a relay knows who sends, and drops what comes from somebody whom it is
//! to keep away. What goes back passes the same relay, on a socket for each sender, and is dropped
//! too.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const DATAGRAM_BYTES_MAX: usize = 65_535;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One relay for each node.
pub(crate) struct Relays {
    /// Where each node listens, and where its relay does.
    addresses: HashMap<String, (SocketAddr, SocketAddr)>,
    apart: Apart,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

/// Pairs of addresses of nodes between which nothing passes.
type Apart = Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>;

impl Relays {
    /// Relays for nodes of these names.
    pub(crate) async fn start(names: &[String]) -> io::Result<Self> {
        let apart = Apart::default();
        let (mut addresses, mut tasks) = (HashMap::new(), JoinSet::new());
        for name in names {
            // It is free until the node takes it.
            let node = UdpSocket::bind((LOCALHOST, 0)).await?.local_addr()?;
            let socket = Arc::new(UdpSocket::bind((LOCALHOST, 0)).await?);
            addresses.insert(name.clone(), (node, socket.local_addr()?));
            tasks.spawn(forward(socket, node, Arc::clone(&apart)));
        }
        Ok(Self { addresses, apart, _tasks: tasks })
    }

    /// Where every node listens, and where its relay does.
    pub(crate) fn addresses(&self) -> HashMap<String, (SocketAddr, SocketAddr)> {
        self.addresses.clone()
    }

    /// Keeps a node and all the other nodes apart.
    pub(crate) fn isolate(&self, name: &str) {
        let Some((one, _)) = self.addresses.get(name) else { return };
        for (other, _) in self.addresses.values().filter(|(other, _)| other != one) {
            lock(&self.apart).extend([(*one, *other), (*other, *one)]);
        }
    }

    /// Lets everybody reach everybody.
    pub(crate) fn heal(&self) {
        lock(&self.apart).clear();
    }
}

fn lock(apart: &Apart) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
    apart.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(socket: Arc<UdpSocket>, node: SocketAddr, apart: Apart) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // They end with this task.
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A port that is closed for a moment is told of here, and is no reason to stop.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        if lock(&apart).contains(&(sender, node)) {
            continue;
        }
        let onward = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let Ok(onward) = UdpSocket::bind((LOCALHOST, 0)).await else { continue };
                let onward = Arc::clone(new.insert(Arc::new(onward)));
                let (socket, apart) = (Arc::clone(&socket), Arc::clone(&apart));
                tasks.spawn(back(socket, Arc::clone(&onward), sender, node, apart));
                onward
            }
        };
        // What the kernel has no room for is lost, as on any network.
        let _ = onward.send_to(&buffer[..length], node).await;
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    onward: Arc<UdpSocket>,
    sender: SocketAddr,
    node: SocketAddr,
    apart: Apart,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = onward.recv(&mut buffer).await else { continue };
        if !lock(&apart).contains(&(node, sender)) {
            let _ = socket.send_to(&buffer[..length], sender).await;
        }
    }
}
