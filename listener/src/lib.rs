//! TCP listeners of the faces: what every one of them needs before it speaks its protocol.
//!
//! [`bind`] takes an address, [`serve`] accepts its connections within bounds until it is to stop,
//! and [`tls`] makes acceptors from files. [`same_origin`] refuses requests of pages in browsers.
//! What else a connection says is not known here.
#![forbid(unsafe_code)]

pub mod host_name;
pub mod same_origin;
#[cfg(feature = "test-support")]
pub mod test_support;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::slots::{BusyFlag, Slot, Slots};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Open files that a process of a face may need.
pub const FILES_MAX: u64 = 65_536;
/// Time between two attempts to find a slot while all are busy.
const SLOT_RETRY: Duration = Duration::from_millis(20);
/// Pause after a failure to accept, which usually means that the process has too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections, of which one address may have three quarters. Further ones wait in the
    /// queue of the listener, or take the place of an idle one.
    pub connections_max: usize,
    /// Time that connections have to end once the listener is to stop.
    pub stop_timeout: Duration,
}

/// Binds an address, and returns it with the actual port. Raises the limit of open files.
///
/// # Errors
/// Those of the system.
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    raise_file_limit();
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Returns whether only this machine reaches an address.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Accepts connections until `stop` completes. Then it calls `stopping`, tells the connections by
/// their receivers, and waits until they have ended or their time is over. `what` names the
/// listener in the log.
pub async fn serve<Serving>(
    what: &str,
    listener: TcpListener,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
    stopping: impl FnOnce(),
    serve_stream: impl Fn(TcpStream, BusyFlag, watch::Receiver<()>) -> Serving,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let max = bounds.connections_max;
    let (stopped, _) = watch::channel(());
    let slots = Arc::new(Slots::new(max, max - max / 4));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepting = async {
            let (stream, peer) = listener.accept().await?;
            io::Result::Ok((stream, find_slot(&slots, max, peer).await))
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accepting => accepted,
        };
        let (stream, mut slot) = match accepted {
            Ok((stream, Some(slot))) => (stream, slot),
            Ok((_, None)) => continue,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // A failure only makes answers slower.
        let _ = stream.set_nodelay(true);
        let serving = serve_stream(stream, slot.busy_flag(), stopped.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = serving => {}
                () = slot.lost() => debug!("an idle connection made room for another"),
            }
            drop(slot);
        });
    }
    drop(listener);
    info!(connections = stopped.receiver_count(), "{what} stops");
    stopping();
    stopped.send_replace(());
    // Each connection holds a receiver until it ends.
    if tokio::time::timeout(bounds.stop_timeout, stopped.closed()).await.is_err() {
        info!("connections of {what} were still open");
    }
}

/// Finds a slot for a connection. `None` if its address has as many busy connections as it may. If
/// all slots are busy this waits, and further connections queue in the listener.
async fn find_slot(slots: &Arc<Slots>, max: usize, peer: SocketAddr) -> Option<Slot> {
    loop {
        if let Some(slot) = slots.take(peer.ip()) {
            return Some(slot);
        }
        if slots.taken() < max {
            debug!(%peer, "too many requests from one address are in progress");
            return None;
        }
        tokio::time::sleep(SLOT_RETRY).await;
    }
}

/// Raises the limit of open files. The usual one, 1024, protects programs that call `select`, and
/// would stop accepting long before the bounds of a listener do.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_MAX, |max| max.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            debug!(%error, "cannot raise the limit of open files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_may_be_used_with_many_files() {
        let (_listener, address) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_ne!(address.port(), 0);
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(FILES_MAX, |max| max.min(FILES_MAX));
        assert!(limit.current.is_none_or(|current| current >= wanted), "{limit:?}");
    }

    #[tokio::test]
    async fn connections_learn_that_the_listener_stops_and_are_waited_for() {
        let (listener, address) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let bounds = Bounds { connections_max: 8, stop_timeout: Duration::from_secs(60) };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (accepted, mut accepting) = tokio::sync::mpsc::unbounded_channel();
        let (ended, mut ending) = tokio::sync::mpsc::unbounded_channel();
        let stop_when = async move { _ = stopped.await };
        let serving = tokio::spawn(serve("a test", listener, bounds, stop_when, || {}, {
            move |_stream, _busy, mut stop| {
                let (accepted, ended) = (accepted.clone(), ended.clone());
                async move {
                    accepted.send(()).unwrap();
                    stop.changed().await.unwrap();
                    ended.send(()).unwrap();
                }
            }
        }));
        let _peer = TcpStream::connect(address).await.unwrap();
        accepting.recv().await.unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap();
        assert_eq!(ending.try_recv(), Ok(()), "it was waited for");
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
