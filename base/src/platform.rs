//! The platform seam: the services of the operating system that a simulation replaces, apart from
//! files and sockets. They are the wall clock, random numbers, and threads for blocking work.
//!
//! A simulation runs whole networks in one thread and must repeat a run exactly. It installs its
//! own [`Platform`] for the thread that calls [`simulate`]; every other thread pays one
//! thread-local read. Monotonic time needs no seam here: it is tokio's, whose clock a test can
//! drive.
//!
//! Deliberately missing: any way to make a release simulate. No message, file, variable or argument
//! leads here.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use uuid::{Builder, Uuid};

/// The operating system of a simulated machine.
pub trait Platform {
    /// The wall-clock time.
    fn wall_clock(&self) -> SystemTime;

    /// The next random number.
    fn random(&self) -> u64;

    /// Whether the power fails while a small file is being replaced, and how far the replacement
    /// had got by then.
    fn power_cut(&self) -> Option<PowerCut>;
}

/// How far the replacement of a small file had got when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing had reached the disk.
    Before,
    /// Part of the new file existed, beside the old one.
    Begun,
    /// The whole new file existed, beside the old one.
    Written,
    /// The new file had replaced the old one.
    Replaced,
}

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn Platform>>> = const { RefCell::new(None) };
}

/// Runs this thread on a simulated machine until the returned guard is dropped.
pub fn simulate(platform: Rc<dyn Platform>) -> Simulated {
    Simulated { before: SIMULATED.replace(Some(platform)) }
}

/// Guard of [`simulate`]: dropping it restores the platform that the thread had before.
#[must_use = "dropped, it ends the simulation"]
pub struct Simulated {
    before: Option<Rc<dyn Platform>>,
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

fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

fn simulated() -> Option<Rc<dyn Platform>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// Whether a simulated power failure interrupts the replacement of a small file. `None` on a real
/// machine, where the power fails without asking.
pub(crate) fn power_cut() -> Option<PowerCut> {
    simulated()?.power_cut()
}

/// The wall-clock time.
pub fn wall_clock() -> SystemTime {
    simulated().map_or_else(SystemTime::now, |platform| platform.wall_clock())
}

/// How long this machine was suspended since it was booted. A simulated machine never is.
pub fn slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    if is_simulated() {
        return Duration::ZERO;
    }
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // Read in this order, the difference is never too large.
    let boot_time = read(ClockId::Boottime);
    boot_time.saturating_sub(read(ClockId::Monotonic))
}

/// A random UUID (version 4).
pub fn random_uuid() -> Uuid {
    match simulated() {
        None => Uuid::new_v4(),
        Some(platform) => {
            let bits = u128::from(platform.random()) << 64 | u128::from(platform.random());
            Builder::from_random_bytes(bits.to_ne_bytes()).into_uuid()
        }
    }
}

/// A random number. Not for secrets: on a simulated machine it is predictable.
pub fn random_u64() -> u64 {
    match simulated() {
        None => Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1.rotate_left(32),
        Some(platform) => platform.random(),
    }
}

/// Runs blocking work, such as disk access, on tokio's blocking threads and waits for the result. A
/// simulated machine runs it at once, on the calling thread.
///
/// # Errors
/// If the work panicked or the runtime is shutting down.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Runs blocking work like [`run_blocking`] without waiting for it. Outside a runtime it runs at
/// once.
pub fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if !is_simulated() => drop(runtime.spawn_blocking(work)),
        _ => work(),
    }
}
