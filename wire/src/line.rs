//! The socket of an endpoint, and what is held back on it.
//!
//! As long as nobody asks for delays every call goes straight through. After that a datagram to an
//! address that has a way waits until its time has come, and so does one from there. QUIC above
//! sees a longer way and nothing else: handshakes, acknowledgements and round trips are as they
//! would be.
//!
//! Deliberately missing: loss. What waits is bounded, and what is beyond the bound is dropped as
//! any network does; nothing else is.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dkv_base::platform;
use dkv_base::supervise::again;
use dkv_base::sync;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::delays::{Wander, Way};
use crate::quic;

/// Bytes that may wait, each way.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that the kernel takes at once, to be sent as packets of one length: as many as one IPv4
/// datagram has.
const BURST_BYTES_MAX: usize = 65_507;
/// Packets that may be handed to the kernel at once.
///
/// Ten, as quinn would have it, are more than the kernel takes if the packets are long. All of them
/// would be lost without a word, quinn would conclude that the path does not carry long packets,
/// and send the shortest for a minute.
const SEGMENTS_MAX: usize = BURST_BYTES_MAX / quic::PACKET_BYTES_MAX as usize;

/// A socket that can hold back what goes through it.
pub(crate) struct Line {
    socket: Arc<dyn AsyncUdpSocket>,
    held: OnceLock<Arc<Held>>,
    /// Wakes the task that lets go of what was held.
    news: Arc<Notify>,
}

/// What waits, and how long it has to.
struct Held {
    socket: Arc<dyn AsyncUdpSocket>,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ways: BTreeMap<SocketAddr, Ways>,
    sending: Queue<Sending>,
    arrived: Queue<(RecvMeta, Vec<u8>)>,
    reader: Option<Waker>,
}

struct Ways {
    average: Way,
    to: Wander,
    from: Wander,
}

struct Sending {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
    segment_size: Option<usize>,
    src_ip: Option<std::net::IpAddr>,
}

/// Things by when they are due, and of one moment in the order in which they came.
struct Queue<T> {
    waiting: BTreeMap<(Instant, u64), T>,
    count: u64,
    bytes: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), count: 0, bytes: 0 }
    }
}

impl<T> Queue<T> {
    fn push(&mut self, due: Instant, bytes: usize, thing: T) {
        if self.bytes + bytes <= HELD_BYTES_MAX {
            self.waiting.insert((due, self.count), thing);
            self.count += 1;
            self.bytes += bytes;
        }
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// When the next thing is due of those that were not by then.
    fn due_after(&self, now: Instant) -> Option<Instant> {
        self.waiting.range((now, u64::MAX)..).next().map(|((due, _), _)| *due)
    }

    fn pop(&mut self, now: Instant, bytes: impl Fn(&T) -> usize) -> Option<T> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let thing = first.remove();
        self.bytes -= bytes(&thing);
        Some(thing)
    }
}

impl Line {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, held: OnceLock::new(), news: Arc::default() }
    }

    /// From now on, these are the ways. What waits already goes when it was to go.
    pub(crate) fn set_ways(&self, ways: Vec<(SocketAddr, Way)>, vary: bool) {
        if ways.is_empty() && self.held.get().is_none() {
            return;
        }
        let held = self.held.get_or_init(|| {
            let state = Mutex::default();
            let held =
                Arc::new(Held { socket: Arc::clone(&self.socket), began: Instant::now(), state });
            let (waiting, news) = (Arc::downgrade(&held), Arc::clone(&self.news));
            tokio::spawn(async move {
                let let_go = || let_go(Weak::clone(&waiting), Arc::clone(&news));
                again("the task that holds packets back", let_go).await;
            });
            held
        });
        held.state().set_ways(ways, vary);
    }

    /// Longest time for which a packet is held back.
    pub(crate) fn longest_way(&self) -> Duration {
        let Some(held) = self.held.get() else { return Duration::ZERO };
        let ways = &held.state().ways;
        // One that varies may take twice its average.
        ways.values().map(|ways| ways.average.to * 2).max().unwrap_or_default()
    }

    /// How long an answer from there takes, on average, for the delays alone.
    pub(crate) fn round_trip(&self, address: SocketAddr) -> Duration {
        let Some(held) = self.held.get() else { return Duration::ZERO };
        let way = held.state().ways.get(&plain(address)).map(|ways| ways.average);
        way.map_or(Duration::ZERO, |way| way.to + way.from)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.news.notify_one();
    }
}

impl State {
    fn set_ways(&mut self, ways: Vec<(SocketAddr, Way)>, vary: bool) {
        let mut before = std::mem::take(&mut self.ways);
        for (address, average) in ways {
            let address = plain(address);
            let known = before.remove(&address).filter(|known| known.average == average);
            self.ways.insert(address, known.unwrap_or_else(|| Ways::new(average, vary)));
        }
    }
}

impl Ways {
    fn new(average: Way, vary: bool) -> Self {
        let wander = |average| Wander::new(average, vary);
        Self { average, to: wander(average.to), from: wander(average.from) }
    }
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Takes what is to be sent later; tells whether it has.
    fn keep(&self, transmit: &Transmit<'_>, news: &Notify) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let State { ways, sending, .. } = &mut *state;
        let ways = ways.get_mut(&plain(transmit.destination)).filter(|ways| !ways.to.is_zero());
        let Some(ways) = ways else { return false };
        let delay = ways.to.delay(now - self.began, platform::random_u64);
        let first = sending.due();
        let later = Sending {
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents: transmit.contents.to_vec(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        sending.push(now + delay, transmit.contents.len(), later);
        if sending.due() != first {
            news.notify_one();
        }
        true
    }

    /// Takes what has arrived and is to be read later; returns how many are left at the front.
    fn sort(
        &self,
        count: usize,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        news: &Notify,
    ) -> usize {
        let now = Instant::now();
        let mut state = self.state();
        let State { ways, arrived, .. } = &mut *state;
        let first = arrived.due();
        let mut left = 0;
        for index in 0..count {
            let meta = metas[index];
            let content = &buffers[index][..meta.len];
            let ways = ways.get_mut(&plain(meta.addr)).filter(|ways| !ways.from.is_zero());
            if let Some(ways) = ways {
                let delay = ways.from.delay(now - self.began, platform::random_u64);
                arrived.push(now + delay, meta.len, (meta, content.to_vec()));
                continue;
            }
            if left < index {
                let content = content.to_vec();
                buffers[left][..meta.len].copy_from_slice(&content);
                metas[left] = meta;
            }
            left += 1;
        }
        if arrived.due() != first {
            news.notify_one();
        }
        left
    }

    /// Reads what was held back for long enough.
    fn read(
        &self,
        context: &Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut state = self.state();
        // As of now that the state is ours: who lets go has not yet looked for a reader of what is
        // due later.
        let now = Instant::now();
        let mut count = 0;
        for (buffer, place) in buffers.iter_mut().zip(metas) {
            let Some((meta, content)) = state.arrived.pop(now, |(_, content)| content.len()) else {
                break;
            };
            let length = content.len().min(buffer.len());
            buffer[..length].copy_from_slice(&content[..length]);
            *place = RecvMeta { len: length, ..meta };
            count += 1;
        }
        if count == 0 {
            state.reader = Some(context.waker().clone());
        }
        count
    }

    async fn send(&self, sending: Sending) {
        let Sending { destination, ecn, contents, segment_size, src_ip } = sending;
        let transmit = Transmit { destination, ecn, contents: &contents, segment_size, src_ip };
        let mut poller = Arc::clone(&self.socket).create_io_poller();
        while let Err(error) = self.socket.try_send(&transmit) {
            // Anything else is what a network does to a datagram.
            if error.kind() != io::ErrorKind::WouldBlock
                || poll_fn(|context| poller.as_mut().poll_writable(context)).await.is_err()
            {
                return;
            }
        }
    }
}

/// Sends, and has read, what was held back for long enough; ends with the socket.
async fn let_go(held: Weak<Held>, news: Arc<Notify>) {
    loop {
        let Some(strong) = held.upgrade() else { return };
        let now = Instant::now();
        loop {
            let sending = strong.state().sending.pop(now, |sending| sending.contents.len());
            let Some(sending) = sending else { break };
            strong.send(sending).await;
        }
        let next = {
            let mut state = strong.state();
            if state.arrived.due().is_some_and(|due| due <= now)
                && let Some(reader) = state.reader.take()
            {
                reader.wake();
            }
            // What is due and not read yet is for the reader to come back to.
            state.sending.due().into_iter().chain(state.arrived.due_after(now)).min()
        };
        drop(strong);
        match next {
            Some(due) => drop(tokio::time::timeout_at(due, news.notified()).await),
            None => news.notified().await,
        }
    }
}

/// An IPv4 address that an IPv6 socket names in its own way.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&self.socket).finish()
    }
}

impl AsyncUdpSocket for Line {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.held.get() {
            Some(held) if held.keep(transmit, &self.news) => Ok(()),
            _ => self.socket.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Some(held) = self.held.get() else {
                return self.socket.poll_recv(context, buffers, metas);
            };
            let count = held.read(context, buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            match self.socket.poll_recv(context, buffers, metas) {
                Poll::Ready(Ok(count)) => {
                    let left = held.sort(count, buffers, metas, &self.news);
                    if left > 0 {
                        return Poll::Ready(Ok(left));
                    }
                }
                other => return other,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(SEGMENTS_MAX)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests;
