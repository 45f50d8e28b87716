//! The UDP socket of an endpoint, with emulated delays.
//!
//! Until a delay is set, every call goes straight to the inner socket. From then on a datagram to
//! or from an address with a delay waits until it is due. QUIC sees a longer path and nothing else:
//! handshakes, acknowledgements and round trips take as long as they would on that path.
//!
//! Deliberately missing: emulated loss. The queues are bounded, and a datagram beyond the bound is
//! dropped, as any network does; no other is.

mod wander;

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

use wander::Wander;

use crate::limits::PACKET_BYTES_MAX;
use crate::network::LinkDelay;

/// Bytes that may wait, in each direction.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that the kernel takes in one call to send as packets of one length: as many as one IPv4
/// datagram holds.
const BURST_BYTES_MAX: usize = 65_507;
/// Packets that may be handed to the kernel in one call.
///
/// Quinn would send ten, which is more than the kernel takes if the packets are long. The kernel
/// would drop all of them silently, and quinn would conclude that the path does not carry long
/// packets and send the shortest ones for a minute.
const SEGMENTS_MAX: usize = BURST_BYTES_MAX / PACKET_BYTES_MAX as usize;

/// A UDP socket that can delay the datagrams that pass through it.
pub(crate) struct DelayedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Empty until the first delay is set.
    delayed: OnceLock<Arc<Delayed>>,
    /// Wakes the task that releases datagrams.
    news: Arc<Notify>,
}

/// The datagrams that wait, and the delay of each link.
struct Delayed {
    socket: Arc<dyn AsyncUdpSocket>,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<SocketAddr, Link>,
    sending: Queue<Sending>,
    arrived: Queue<(RecvMeta, Vec<u8>)>,
    reader: Option<Waker>,
}

/// The current delays of the two directions of a link.
struct Link {
    average: LinkDelay,
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

/// Datagrams by the time at which they are due, and in order of arrival among those due together.
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
        if self.bytes + bytes <= QUEUE_BYTES_MAX {
            self.waiting.insert((due, self.count), thing);
            self.count += 1;
            self.bytes += bytes;
        }
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// The earliest time after `now` at which something is due.
    fn due_after(&self, now: Instant) -> Option<Instant> {
        self.waiting.range((now, u64::MAX)..).next().map(|((due, _), _)| *due)
    }

    fn pop(&mut self, now: Instant, bytes: impl Fn(&T) -> usize) -> Option<T> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let thing = first.remove();
        debug_assert!(self.bytes >= bytes(&thing), "more bytes leave the queue than were in it");
        self.bytes -= bytes(&thing);
        Some(thing)
    }
}

impl DelayedSocket {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, delayed: OnceLock::new(), news: Arc::default() }
    }

    /// Replaces the delays of all links. Datagrams that wait already keep their time.
    pub(crate) fn set_links(&self, links: Vec<(SocketAddr, LinkDelay)>, vary: bool) {
        if links.is_empty() && self.delayed.get().is_none() {
            return;
        }
        let delayed = self.delayed.get_or_init(|| {
            let (socket, state) = (Arc::clone(&self.socket), Mutex::default());
            let delayed = Arc::new(Delayed { socket, began: Instant::now(), state });
            let (waiting, news) = (Arc::downgrade(&delayed), Arc::clone(&self.news));
            tokio::spawn(async move {
                let release = || release(Weak::clone(&waiting), Arc::clone(&news));
                again("the task that delays packets", release).await;
            });
            delayed
        });
        delayed.state().set_links(links, vary);
    }

    /// The longest time for which a packet is delayed on its way out.
    pub(crate) fn longest_delay(&self) -> Duration {
        let Some(delayed) = self.delayed.get() else { return Duration::ZERO };
        let links = &delayed.state().links;
        // A delay that varies reaches twice its average.
        links.values().map(|link| link.average.to * 2).max().unwrap_or_default()
    }

    /// The average time that the delays add to a round trip to `address`.
    pub(crate) fn added_round_trip(&self, address: SocketAddr) -> Duration {
        let Some(delayed) = self.delayed.get() else { return Duration::ZERO };
        let average = delayed.state().links.get(&plain(address)).map(|link| link.average);
        average.map_or(Duration::ZERO, |average| average.to + average.from)
    }
}

impl Drop for DelayedSocket {
    fn drop(&mut self) {
        self.news.notify_one();
    }
}

impl State {
    fn set_links(&mut self, links: Vec<(SocketAddr, LinkDelay)>, vary: bool) {
        let mut before = std::mem::take(&mut self.links);
        for (address, average) in links {
            let address = plain(address);
            let known = before.remove(&address).filter(|known| known.average == average);
            self.links.insert(address, known.unwrap_or_else(|| Link::new(average, vary)));
        }
    }
}

impl Link {
    fn new(average: LinkDelay, vary: bool) -> Self {
        let wander = |average| Wander::new(average, vary);
        Self { average, to: wander(average.to), from: wander(average.from) }
    }
}

impl Delayed {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Queues a datagram if its link has a delay. Returns whether it did.
    fn hold_outgoing(&self, transmit: &Transmit<'_>, news: &Notify) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let State { links, sending, .. } = &mut *state;
        let link = links.get_mut(&plain(transmit.destination)).filter(|link| !link.to.is_zero());
        let Some(link) = link else { return false };
        let delay = link.to.delay(now - self.began, platform::random_u64);
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

    /// Queues the datagrams that arrived over a link with a delay. Moves the others to the front of
    /// the buffers and returns their count.
    fn hold_arrived(
        &self,
        count: usize,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        news: &Notify,
    ) -> usize {
        let now = Instant::now();
        let mut state = self.state();
        let State { links, arrived, .. } = &mut *state;
        let first = arrived.due();
        let mut left = 0;
        for index in 0..count {
            let meta = metas[index];
            let content = &buffers[index][..meta.len];
            let link = links.get_mut(&plain(meta.addr)).filter(|link| !link.from.is_zero());
            if let Some(link) = link {
                let delay = link.from.delay(now - self.began, platform::random_u64);
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

    /// Moves the arrived datagrams that are due into the buffers and returns their count.
    fn read_due(
        &self,
        context: &Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut state = self.state();
        // The time is read under the lock: the releasing task has then not yet looked for a reader
        // of what is due later.
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
            // Any other error counts as the network losing the datagram.
            if error.kind() != io::ErrorKind::WouldBlock
                || poll_fn(|context| poller.as_mut().poll_writable(context)).await.is_err()
            {
                return;
            }
        }
    }
}

/// Sends the datagrams that are due and wakes the reader of those that arrived. Ends when the
/// socket is dropped.
async fn release(delayed: Weak<Delayed>, news: Arc<Notify>) {
    loop {
        let Some(strong) = delayed.upgrade() else { return };
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
            // The reader comes back by itself to what is due and not read yet.
            state.sending.due().into_iter().chain(state.arrived.due_after(now)).min()
        };
        drop(strong);
        match next {
            Some(due) => drop(tokio::time::timeout_at(due, news.notified()).await),
            None => news.notified().await,
        }
    }
}

/// The address in its canonical form: an IPv6 socket names IPv4 peers by mapped addresses.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl fmt::Debug for DelayedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DelayedSocket").field(&self.socket).finish()
    }
}

impl AsyncUdpSocket for DelayedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.delayed.get() {
            Some(delayed) if delayed.hold_outgoing(transmit, &self.news) => Ok(()),
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
            let Some(delayed) = self.delayed.get() else {
                return self.socket.poll_recv(context, buffers, metas);
            };
            let count = delayed.read_due(context, buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            match self.socket.poll_recv(context, buffers, metas) {
                Poll::Ready(Ok(count)) => {
                    let left = delayed.hold_arrived(count, buffers, metas, &self.news);
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
