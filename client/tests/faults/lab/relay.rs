//! A relay that delays, duplicates, drops and reorders datagrams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Faults of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketFaults {
    /// Range of random delays. A datagram with a shorter delay overtakes others.
    pub(crate) late: Range<Duration>,
    /// Share of datagrams that are sent twice, each time with its own delay.
    pub(crate) twice: f64,
    /// Share of datagrams that are dropped. If that is all, so are those that are on their way.
    pub(crate) lost: f64,
}

impl PacketFaults {
    /// Nothing arrives.
    pub(crate) fn cut() -> Self {
        Self { lost: 1.0, ..Self::default() }
    }

    /// Everything is late by the same time.
    pub(crate) fn late(by: Duration) -> Self {
        Self { late: by..by, ..Self::default() }
    }
}

/// Faults of both directions.
#[derive(Clone, Debug, Default)]
struct LinkFaults {
    /// The faults of what is sent to the address behind the relay.
    there: PacketFaults,
    /// The faults of what it answers.
    back: PacketFaults,
}

/// Faults by sender.
#[derive(Debug, Default)]
struct Faults {
    all: LinkFaults,
    senders: HashMap<IpAddr, LinkFaults>,
}

impl Faults {
    fn of(&self, sender: SocketAddr) -> &LinkFaults {
        self.senders.get(&sender.ip()).unwrap_or(&self.all)
    }
}

/// Returns the faults of a direction at this moment.
type Look = Arc<dyn Fn() -> PacketFaults + Send + Sync>;

/// A relay in front of one address.
pub(crate) struct FaultyRelay {
    /// Its address.
    pub(crate) address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    task: JoinHandle<()>,
}

impl FaultyRelay {
    /// Starts a relay between an address and its senders.
    pub(crate) async fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let faults = Arc::<Mutex<Faults>>::default();
        let task = tokio::spawn(forward(socket, target, Arc::clone(&faults)));
        Self { address, faults, task }
    }

    /// Sets the faults of all senders and both directions from now on.
    pub(crate) fn set(&self, faults: PacketFaults) {
        let all = LinkFaults { there: faults.clone(), back: faults };
        *self.faults.lock().unwrap() = Faults { all, senders: HashMap::new() };
    }

    /// Sets the faults of one sender from now on: of what it sends, and of what it is answered.
    pub(crate) fn set_for(&self, sender: IpAddr, there: PacketFaults, back: PacketFaults) {
        self.faults.lock().unwrap().senders.insert(sender, LinkFaults { there, back });
    }
}

impl Drop for FaultyRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(socket: Arc<UdpSocket>, target: SocketAddr, faults: Arc<Mutex<Faults>>) {
    let mut senders: HashMap<SocketAddr, (Arc<UdpSocket>, Look)> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error means that a port is closed at the moment; the relay goes on.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let (onward, look) = match senders.entry(sender) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let onward = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).await.unwrap();
                let onward = Arc::new(onward);
                let (there, back_faults) = (Arc::clone(&faults), Arc::clone(&faults));
                let look: Look =
                    Arc::new(move || back_faults.lock().unwrap().of(sender).back.clone());
                tokio::spawn(back(Arc::clone(&socket), Arc::clone(&onward), sender, look));
                let look: Look = Arc::new(move || there.lock().unwrap().of(sender).there.clone());
                new.insert((onward, look))
            }
        };
        send(onward, buffer[..length].to_vec(), target, look);
    }
}

async fn back(socket: Arc<UdpSocket>, onward: Arc<UdpSocket>, sender: SocketAddr, look: Look) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = onward.recv(&mut buffer).await else { continue };
        send(&socket, buffer[..length].to_vec(), sender, &look);
    }
}

/// Sends a datagram with random faults.
fn send(socket: &Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr, look: &Look) {
    let PacketFaults { late, twice, lost } = look();
    let mut chance = rand::rng();
    if chance.random_bool(lost) {
        return;
    }
    for _ in 0..1 + u8::from(chance.random_bool(twice)) {
        let wait = if late.is_empty() { late.start } else { chance.random_range(late.clone()) };
        let (socket, datagram, look) = (Arc::clone(socket), datagram.clone(), Arc::clone(look));
        if wait.is_zero() {
            // A datagram that the kernel cannot queue is lost, as on any network.
            let _ = socket.try_send_to(&datagram, to);
            continue;
        }
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if look().lost < 1.0 {
                let _ = socket.try_send_to(&datagram, to);
            }
        });
    }
}
