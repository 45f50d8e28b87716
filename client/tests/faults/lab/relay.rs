//! A relay that delays, duplicates, drops and reorders datagrams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Faults of the relay, in both directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketFaults {
    /// Range of random delays. A datagram with a shorter delay overtakes others.
    pub(crate) late: Range<Duration>,
    /// Share of datagrams that are sent twice, each time with its own delay.
    pub(crate) twice: f64,
    /// Share of datagrams that are dropped.
    pub(crate) lost: f64,
}

/// A relay in front of one address.
pub(crate) struct FaultyRelay {
    /// Its address.
    pub(crate) address: SocketAddr,
    faults: Arc<Mutex<PacketFaults>>,
    task: JoinHandle<()>,
}

impl FaultyRelay {
    /// Starts a relay between an address and its senders.
    pub(crate) async fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let faults = Arc::<Mutex<PacketFaults>>::default();
        let task = tokio::spawn(forward(socket, target, Arc::clone(&faults)));
        Self { address, faults, task }
    }

    /// Sets the faults from now on.
    pub(crate) fn set(&self, faults: PacketFaults) {
        *self.faults.lock().unwrap() = faults;
    }
}

impl Drop for FaultyRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(socket: Arc<UdpSocket>, target: SocketAddr, faults: Arc<Mutex<PacketFaults>>) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error means that a port is closed at the moment; the relay goes on.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let onward = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let onward = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).await.unwrap();
                let onward = Arc::new(onward);
                let (socket, faults) = (Arc::clone(&socket), Arc::clone(&faults));
                tokio::spawn(back(socket, Arc::clone(&onward), sender, faults));
                Arc::clone(new.insert(onward))
            }
        };
        send(&onward, buffer[..length].to_vec(), target, &faults);
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    onward: Arc<UdpSocket>,
    sender: SocketAddr,
    faults: Arc<Mutex<PacketFaults>>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = onward.recv(&mut buffer).await else { continue };
        send(&socket, buffer[..length].to_vec(), sender, &faults);
    }
}

/// Sends a datagram with random faults.
fn send(socket: &Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr, faults: &Mutex<PacketFaults>) {
    let PacketFaults { late, twice, lost } = faults.lock().unwrap().clone();
    let mut chance = rand::rng();
    if chance.random_bool(lost) {
        return;
    }
    for _ in 0..1 + u8::from(chance.random_bool(twice)) {
        let wait = if late.is_empty() { late.start } else { chance.random_range(late.clone()) };
        let (socket, datagram) = (Arc::clone(socket), datagram.clone());
        if wait.is_zero() {
            // A datagram that the kernel cannot queue is lost, as on any network.
            let _ = socket.try_send_to(&datagram, to);
            continue;
        }
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = socket.try_send_to(&datagram, to);
        });
    }
}
