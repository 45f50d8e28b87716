//! The part of the platform seam that concerns the network: UDP sockets and the cryptography of
//! TLS.
//!
//! [`platform`] covers what needs no network: the wall clock, random numbers, blocking threads. A
//! simulated machine implements both traits, and [`simulate`] installs both for the calling thread.
//! On a real machine every function here falls through to the operating system at the cost of one
//! thread-local read.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use rustls::crypto::CryptoProvider;

use dkv_base::platform::{self, Platform};

/// The network of a simulated machine.
pub trait NetPlatform: Platform {
    /// Opens a UDP socket. Port 0 asks for any free port; an unspecified address means the
    /// machine's own.
    ///
    /// # Errors
    /// `AddrInUse`, or any failure that the simulation injects.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Whether the machine at `address` reports that no process listens there.
    fn refuses(&self, address: SocketAddr) -> bool;

    /// The cryptography of TLS. Its signatures must have [`SIGNATURE_BYTES`], and its random
    /// numbers must repeat, so that runs repeat exactly; the content of keys and signatures does
    /// not matter.
    fn cryptography(&self) -> Arc<CryptoProvider>;
}

/// Length of every ECDSA signature on a simulated machine, in DER. A real signature varies by a few
/// bytes, and then everything after it in a stream is cut into packets at other places.
pub const SIGNATURE_BYTES: usize = 71;

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn NetPlatform>>> = const { RefCell::new(None) };
}

/// Runs this thread on a simulated machine until the returned guard is dropped.
pub fn simulate(platform: Rc<dyn NetPlatform>) -> Simulated {
    let beside = platform::simulate(Rc::clone(&platform) as Rc<dyn Platform>);
    Simulated { before: SIMULATED.replace(Some(platform)), _beside: beside }
}

/// Guard of [`simulate`]: dropping it restores the platform that the thread had before.
#[must_use = "dropped, it ends the simulation"]
pub struct Simulated {
    before: Option<Rc<dyn NetPlatform>>,
    _beside: platform::Simulated,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        SIMULATED.set(self.before.take());
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

fn simulated() -> Option<Rc<dyn NetPlatform>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// Whether this thread runs on a simulated machine.
pub(crate) fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

/// Tries to bind a UDP socket to `address` and closes it at once. Always succeeds on a simulated
/// machine, where no other process could hold the address.
///
/// # Errors
/// The error of the operating system.
pub fn may_bind(address: SocketAddr) -> io::Result<()> {
    if simulated().is_some() { Ok(()) } else { std::net::UdpSocket::bind(address).map(drop) }
}

/// Whether the machine at `address` reports that no process listens there. `None` on a real
/// machine, where only the network can tell.
pub fn refuses(address: SocketAddr) -> Option<bool> {
    simulated().map(|platform| platform.refuses(address))
}

/// The cryptography of TLS.
pub(crate) fn cryptography() -> Arc<CryptoProvider> {
    match simulated() {
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        Some(platform) => platform.cryptography(),
    }
}

/// Whether this platform accepts a signature of that length.
pub(crate) fn accepts_signature(bytes: usize) -> bool {
    bytes == SIGNATURE_BYTES || simulated().is_none()
}

/// Opens a socket of the simulated machine. `None` on a real one.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Option<Arc<dyn AsyncUdpSocket>>> {
    simulated().map(|platform| platform.bind(address)).transpose()
}

/// Seed of an endpoint's random numbers on a simulated machine. `None` on a real one, where they
/// are secret.
pub(crate) fn endpoint_seed() -> Option<[u8; 32]> {
    let platform = simulated()?;
    let mut seed = [0; 32];
    for part in seed.chunks_exact_mut(8) {
        part.copy_from_slice(&platform.random().to_le_bytes());
    }
    Some(seed)
}
