//! A relay of datagrams that keeps them for a while, sends them twice, loses them, and lets later
//! ones overtake earlier ones.

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

/// What is done to datagrams, in both directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mischief {
    /// How late each is, by chance: those that draw less overtake those that draw more.
    pub(crate) late: Range<Duration>,
    /// Share of them that is sent twice, each time as late as it happens.
    pub(crate) twice: f64,
    /// Share of them that is lost.
    pub(crate) lost: f64,
}

/// A relay in front of one address.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    mischief: Arc<Mutex<Mischief>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays between an address and whoever sends to it.
    pub(crate) async fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let mischief = Arc::<Mutex<Mischief>>::default();
        let task = tokio::spawn(forward(socket, target, Arc::clone(&mischief)));
        Self { address, mischief, task }
    }

    /// What is done from now on.
    pub(crate) fn set(&self, mischief: Mischief) {
        *self.mischief.lock().unwrap() = mischief;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(socket: Arc<UdpSocket>, target: SocketAddr, mischief: Arc<Mutex<Mischief>>) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A port that is closed for a moment is told of here, and is no reason to stop.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let onward = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let onward = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).await.unwrap();
                let onward = Arc::new(onward);
                let (socket, mischief) = (Arc::clone(&socket), Arc::clone(&mischief));
                tokio::spawn(back(socket, Arc::clone(&onward), sender, mischief));
                Arc::clone(new.insert(onward))
            }
        };
        send(&onward, buffer[..length].to_vec(), target, &mischief);
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    onward: Arc<UdpSocket>,
    sender: SocketAddr,
    mischief: Arc<Mutex<Mischief>>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = onward.recv(&mut buffer).await else { continue };
        send(&socket, buffer[..length].to_vec(), sender, &mischief);
    }
}

/// Sends a datagram as often and as late as chance has it.
fn send(socket: &Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr, mischief: &Mutex<Mischief>) {
    let Mischief { late, twice, lost } = mischief.lock().unwrap().clone();
    let mut chance = rand::rng();
    if chance.random_bool(lost) {
        return;
    }
    for _ in 0..1 + u8::from(chance.random_bool(twice)) {
        let wait = if late.is_empty() { late.start } else { chance.random_range(late.clone()) };
        let (socket, datagram) = (Arc::clone(socket), datagram.clone());
        if wait.is_zero() {
            // What the kernel has no room for is lost, as it would be elsewhere.
            let _ = socket.try_send_to(&datagram, to);
            continue;
        }
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = socket.try_send_to(&datagram, to);
        });
    }
}
