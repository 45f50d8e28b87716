//! The platform seam: the services of the operating system that a simulation replaces, apart from
//! files and sockets. They are the wall clock, random numbers, and threads for blocking work.
//!
//! A simulation runs whole networks in one thread and must repeat a run exactly. It installs its own
//! [`Platform`] for the thread that calls [`simulate`]; every other thread pays one thread-local
//! read. Monotonic time needs no seam here: it is tokio's, whose clock a test can drive.
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
    /// What the clock on the wall shows.
    fn wall_clock(&self) -> SystemTime;

    /// The next random number.
    fn random(&self) -> u64;

    /// Whether the power fails while a small file is replaced, and if so, how much of that had
    /// happened: nothing, the new file was begun, it was whole, it was in the old one's place.
    fn power_cut(&self) -> Option<PowerCut>;
}

/// How far the replacement of a small file had come when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing had reached the disk.
    Before,
    /// A part of the new file, beside the old one.
    Begun,
    /// The new file, beside the old one.
    Written,
    /// The new file, in the place of the old one.
    Replaced,
}

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn Platform>>> = const { RefCell::new(None) };
}

/// Has this thread run on a simulated machine until what is returned is dropped.
pub fn simulate(platform: Rc<dyn Platform>) -> Simulated {
    Simulated { before: SIMULATED.replace(Some(platform)) }
}

/// This thread runs on a simulated machine. Dropped, it runs on what it ran on before.
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

/// Whether the power fails while a small file is replaced; never on a real machine, where it does
/// so unasked.
pub(crate) fn power_cut() -> Option<PowerCut> {
    simulated()?.power_cut()
}

/// What the clock on the wall shows.
pub fn wall_clock() -> SystemTime {
    simulated().map_or_else(SystemTime::now, |platform| platform.wall_clock())
}

/// How long this machine was suspended since it was started: a simulated one never is.
pub fn slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    if is_simulated() {
        return Duration::ZERO;
    }
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order the difference is never too large.
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

/// A random number. Not for secrets: it may come from a generator that can be foreseen.
pub fn random_u64() -> u64 {
    match simulated() {
        None => Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1.rotate_left(32),
        Some(platform) => platform.random(),
    }
}

/// Runs what may wait for the disk where that holds nobody up: on a thread of its own. On a
/// simulated machine it runs at once, and waits for nothing.
///
/// # Errors
/// If it panicked, or the runtime is shutting down.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// As [`run_blocking`], for whoever does not wait for it. Outside of a runtime it runs at once.
pub fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if !is_simulated() => drop(runtime.spawn_blocking(work)),
        _ => work(),
    }
}
