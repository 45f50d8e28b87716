//! Ties the life of a child process to its parent's.
//!
//! A process of a local network must not outlive the program that started it, even if that program
//! is killed without a chance to clean up. The child finds its parent's id in the environment
//! variable [`PARENT`]. On Linux the kernel kills the child with its parent. On every system the
//! child also holds the reading end of a pipe as its stdin; only the parent has the other end, and
//! the child exits when the pipe ends.

use std::io::Read;

/// The environment variable that holds the id of the process to die with.
pub const PARENT: &str = "DKV_LOCAL_PARENT";

/// Makes this process die with its parent, if [`PARENT`] names one. Call it before any other thread
/// is started.
pub fn die_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|id| id.parse::<i32>().ok()) else {
        return;
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        dkv_base::complain!("cannot tie this process to its parent: {error}");
    }
    // The parent may have died before the kernel was asked.
    if nix::unistd::getppid().as_raw() != parent {
        std::process::exit(1);
    }
    std::thread::spawn(|| {
        let mut byte = [0];
        // The parent never writes, so any result means that it is gone.
        let _ = std::io::stdin().read(&mut byte);
        std::process::exit(1);
    });
}
