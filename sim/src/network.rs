//! The network between the machines. Datagrams are late, lost, doubled and out of order; links are
//! cut in one direction or both, slow, or narrow.
//!
//! QUIC runs over it unchanged: quinn sends and receives through [`Socket`]. Time is counted in
//! ticks of a millisecond. A datagram arrives in a later tick than it was sent in, so the order in
//! which machines run within a tick does not matter.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use dkv_base::sync::lock;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::random::Random;
use crate::trace::Trace;

/// Most datagrams that wait at a socket; more are dropped, as a kernel does.
const INBOX_MAX: usize = 8192;
/// First port for sockets that ask for any.
const EPHEMERAL: u16 = 40_000;

/// How the network treats datagrams, on all links alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Least time on the way, in ticks.
    pub delay_min: u64,
    /// Most time on the way, in ticks, except for datagrams that are held up.
    pub delay_max: u64,
    /// How many of a thousand are held up, and for how many ticks at most.
    pub held_up: (u64, u64),
    /// How many of a thousand are lost.
    pub lost: u64,
    /// How many of a thousand arrive twice.
    pub doubled: u64,
    /// Longest datagram that gets through, in bytes.
    pub mtu: usize,
}

impl Weather {
    /// A good local network.
    pub const CALM: Self =
        Self { delay_min: 1, delay_max: 1, held_up: (0, 0), lost: 0, doubled: 0, mtu: 9000 };
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

struct State {
    now: u64,
    random: Random,
    weather: Weather,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// By how many ticks datagrams on a link are late.
    late: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Narrow links: bytes that they carry in a tick, and the tick until which they are busy.
    narrow: BTreeMap<(IpAddr, IpAddr), (usize, u64)>,
    /// Machines without power, whose kernels do not answer either.
    dark: BTreeSet<IpAddr>,
    under_way: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
    sockets: BTreeMap<SocketAddr, Inbox>,
    next_socket: u64,
    trace: Trace,
    /// The fates of datagrams so far.
    pub counts: Counts,
}

/// How many datagrams met each fate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Sent in all.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Sent into a link that was cut.
    pub cut: u64,
    /// Arrived twice.
    pub doubled: u64,
    /// Held up.
    pub held_up: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    at: u64,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Inbox {
    id: u64,
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

impl Network {
    /// Creates a calm network without machines.
    pub fn new(random: Random, trace: Trace) -> Self {
        let state = State {
            now: 0,
            random,
            weather: Weather::CALM,
            cut: BTreeSet::new(),
            late: BTreeMap::new(),
            narrow: BTreeMap::new(),
            dark: BTreeSet::new(),
            under_way: BinaryHeap::new(),
            sent: 0,
            sockets: BTreeMap::new(),
            next_socket: 0,
            trace,
            counts: Counts::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Cuts a link in one direction.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().cut.insert((from, to));
    }

    /// Delays all later datagrams on a link by so many ticks, in order.
    pub fn set_late(&self, from: IpAddr, to: IpAddr, ticks: u64) {
        self.lock().late.insert((from, to), ticks);
    }

    /// Limits a link to so many bytes in a tick from now on.
    pub fn set_narrow(&self, from: IpAddr, to: IpAddr, bytes: usize) {
        self.lock().narrow.insert((from, to), (bytes, 0));
    }

    /// Mends all links. Datagrams under way arrive when they would have.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.late.clear();
        state.narrow.clear();
    }

    /// Returns whether datagrams between two machines are neither cut nor late in either direction.
    pub fn is_clear(&self, one: IpAddr, other: IpAddr) -> bool {
        let state = self.lock();
        let is_disturbed = |link: &(IpAddr, IpAddr)| {
            state.cut.contains(link)
                || state.late.contains_key(link)
                || state.narrow.contains_key(link)
        };
        let links = [(one, other), (other, one)];
        state.weather == Weather::CALM && !links.iter().any(is_disturbed)
    }

    /// Sets whether a machine has no power.
    pub fn set_dark(&self, machine: IpAddr, dark: bool) {
        let mut state = self.lock();
        if dark {
            state.dark.insert(machine)
        } else {
            state.dark.remove(&machine)
        };
    }

    /// Closes all sockets of a machine, even those that are still held.
    pub fn close_all(&self, machine: IpAddr) {
        self.lock().sockets.retain(|address, _| address.ip() != machine);
    }

    /// Returns the fates of datagrams so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Begins a tick, and delivers the datagrams that arrive in it.
    pub fn tick(&self, now: u64) {
        let mut state = self.lock();
        state.now = now;
        let mut wake = Vec::new();
        while state.under_way.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(datagram)) = state.under_way.pop() else { break };
            let Some(inbox) = state.sockets.get_mut(&datagram.to) else { continue };
            if inbox.waiting.len() < INBOX_MAX {
                inbox.waiting.push_back((datagram.from, datagram.bytes));
                wake.extend(inbox.waker.take());
            }
        }
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Opens a socket of a machine.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn bind(&self, machine: IpAddr, address: SocketAddr) -> io::Result<Arc<Socket>> {
        let mut state = self.lock();
        let port = match address.port() {
            0 => (EPHEMERAL..)
                .find(|port| !state.sockets.contains_key(&SocketAddr::new(machine, *port)))
                .ok_or(io::ErrorKind::AddrInUse)?,
            port => port,
        };
        let address = SocketAddr::new(machine, port);
        if state.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = state.next_socket;
        state.next_socket += 1;
        state.sockets.insert(address, Inbox { id, waiting: VecDeque::new(), waker: None });
        drop(state);
        Ok(Arc::new(Socket { network: self.clone(), id, address }))
    }

    /// Returns whether the kernel at an address tells a machine that the port is closed.
    pub fn refuses(&self, from: IpAddr, to: SocketAddr) -> bool {
        let state = self.lock();
        !state.sockets.contains_key(&to)
            && !state.dark.contains(&to.ip())
            && !state.cut.contains(&(from, to.ip()))
            && !state.cut.contains(&(to.ip(), from))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.counts.sent += 1;
        let weather = self.weather;
        // All numbers are drawn in any case, so that a cut link does not change the others.
        let delay = self.random.between(weather.delay_min, weather.delay_max);
        let held_up = self.random.per_mille(weather.held_up.0);
        let hold = if held_up { self.random.below(weather.held_up.1 + 1) } else { 0 };
        let lost = self.random.per_mille(weather.lost);
        let doubled = self.random.per_mille(weather.doubled);
        self.trace.datagram(self.now, from, to, bytes.len());
        if self.cut.contains(&(from.ip(), to.ip())) {
            self.counts.cut += 1;
            return;
        }
        if bytes.len() > weather.mtu {
            return;
        }
        if lost {
            self.counts.lost += 1;
            return;
        }
        self.counts.held_up += u64::from(held_up);
        self.counts.doubled += u64::from(doubled);
        let late = self.late.get(&(from.ip(), to.ip())).copied().unwrap_or_default();
        let waits = self.narrow.get_mut(&(from.ip(), to.ip())).map_or(0, |(room, busy_until)| {
            *busy_until = self.now.max(*busy_until) + (bytes.len() / *room) as u64;
            *busy_until - self.now
        });
        for copy in 0..=u64::from(doubled) {
            let at = self.now + (delay + hold + late + waits + copy * 3).max(1);
            let number = self.sent;
            self.sent += 1;
            let datagram = Datagram { at, number, from, to, bytes: bytes.to_vec() };
            self.under_way.push(Reverse(datagram));
        }
    }
}

/// A UDP socket of a simulated machine.
pub struct Socket {
    network: Network,
    id: u64,
    address: SocketAddr,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.address).finish()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        if state.sockets.get(&self.address).is_some_and(|inbox| inbox.id == self.id) {
            state.sockets.remove(&self.address);
        }
    }
}

/// Turns an IPv4 address that is mapped into IPv6 back.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.lock().send(self.address, plain(transmit.destination), transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.lock();
        let Some(inbox) = state.sockets.get_mut(&self.address).filter(|inbox| inbox.id == self.id)
        else {
            // The machine has no power any more, so no process waits for this.
            return Poll::Pending;
        };
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((from, bytes)) = inbox.waiting.pop_front() else { break };
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns the address of a machine, by its number.
pub fn address(machine: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, machine))
}
