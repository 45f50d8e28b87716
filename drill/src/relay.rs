//! UDP relays between nodes, which can partition the network without any privilege.
//!
//! Each node advertises the address of its relay instead of its own. Nodes send from the port that
//! they listen on, so a relay knows the sender and drops datagrams from nodes that it isolates.
//! Replies pass the same relay, on a socket for each sender, and are dropped as well.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dkv_base::sync::lock;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const DATAGRAM_BYTES_MAX: usize = 65_535;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One relay for each node.
pub(crate) struct Relays {
    /// Addresses of each node and of its relay.
    addresses: HashMap<String, (SocketAddr, SocketAddr)>,
    partitions: Partitions,
    /// The tasks end when this is dropped.
    _tasks: JoinSet<()>,
}

/// Pairs of node addresses between which datagrams are dropped.
type Partitions = Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>;

impl Relays {
    /// Starts a relay for each of these nodes.
    pub(crate) async fn start(names: &[String]) -> io::Result<Self> {
        let partitions = Partitions::default();
        let (mut addresses, mut tasks) = (HashMap::new(), JoinSet::new());
        for name in names {
            // The port stays free until the node binds it.
            let node = UdpSocket::bind((LOCALHOST, 0)).await?.local_addr()?;
            let socket = Arc::new(UdpSocket::bind((LOCALHOST, 0)).await?);
            addresses.insert(name.clone(), (node, socket.local_addr()?));
            tasks.spawn(forward(socket, node, Arc::clone(&partitions)));
        }
        Ok(Self { addresses, partitions, _tasks: tasks })
    }

    /// Returns the addresses of every node and of its relay.
    pub(crate) fn addresses(&self) -> HashMap<String, (SocketAddr, SocketAddr)> {
        self.addresses.clone()
    }

    /// Cuts a node off from all other nodes.
    pub(crate) fn isolate(&self, name: &str) {
        let Some((one, _)) = self.addresses.get(name) else { return };
        for (other, _) in self.addresses.values().filter(|(other, _)| other != one) {
            lock(&self.partitions).extend([(*one, *other), (*other, *one)]);
        }
    }

    /// Ends all partitions.
    pub(crate) fn heal(&self) {
        lock(&self.partitions).clear();
    }
}

async fn forward(socket: Arc<UdpSocket>, node: SocketAddr, partitions: Partitions) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // The tasks end when this one does.
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error means that a port is closed at the moment; the relay goes on.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        if lock(&partitions).contains(&(sender, node)) {
            continue;
        }
        let onward = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let Ok(onward) = UdpSocket::bind((LOCALHOST, 0)).await else { continue };
                let onward = Arc::clone(new.insert(Arc::new(onward)));
                let (socket, partitions) = (Arc::clone(&socket), Arc::clone(&partitions));
                tasks.spawn(back(socket, Arc::clone(&onward), sender, node, partitions));
                onward
            }
        };
        // A datagram that the kernel cannot queue is lost, as on any network.
        let _ = onward.send_to(&buffer[..length], node).await;
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    onward: Arc<UdpSocket>,
    sender: SocketAddr,
    node: SocketAddr,
    partitions: Partitions,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = onward.recv(&mut buffer).await else { continue };
        if !lock(&partitions).contains(&(node, sender)) {
            let _ = socket.send_to(&buffer[..length], sender).await;
        }
    }
}
