//! A relay in front of a node that can drop replies.
//!
//! The node advertises the address of the relay. Datagrams to the node always pass. Replies can be
//! dropped, except those to other nodes, so that the network works but its clients get no answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Longest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A relay in front of one process.
pub(crate) struct Relay {
    /// Its address.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    socket: UdpSocket,
    target: SocketAddr,
    loses_replies: AtomicBool,
    spared: Mutex<Vec<SocketAddr>>,
}

impl Relay {
    /// Starts a relay to `target`, where nothing need listen yet.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket,
            target,
            loses_replies: AtomicBool::new(false),
            spared: Mutex::default(),
        });
        let task = tokio::spawn(forward(Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Sets whether replies are dropped.
    pub(crate) fn lose_replies(&self, lose: bool) {
        self.shared.loses_replies.store(lose, Ordering::SeqCst);
    }

    /// Always passes replies to these addresses.
    pub(crate) fn spare(&self, addresses: &[SocketAddr]) {
        *self.shared.spared.lock().unwrap() = addresses.to_vec();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(shared: Arc<Shared>) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error means that a port is closed at the moment; the relay goes on.
        let Ok((length, sender)) = shared.socket.recv_from(&mut buffer).await else { continue };
        let socket = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                tokio::spawn(back(Arc::clone(&shared), Arc::clone(&socket), sender));
                Arc::clone(new.insert(socket))
            }
        };
        let _ = socket.send_to(&buffer[..length], shared.target).await;
    }
}

async fn back(shared: Arc<Shared>, socket: Arc<UdpSocket>, sender: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else { continue };
        let lost = shared.loses_replies.load(Ordering::SeqCst)
            && !shared.spared.lock().unwrap().contains(&sender);
        if !lost {
            let _ = shared.socket.send_to(&buffer[..length], sender).await;
        }
    }
}
