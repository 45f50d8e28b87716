//! `dkv server` and `dkv node`: the processes of a network, in this binary.
//!
//! A process that `dkv local` started must not outlive it, even if `dkv local` is killed without a
//! chance to clean up. It is told its parent's id in [`PARENT`]. On Linux the kernel then kills it
//! with its parent. Everywhere, it also holds the reading end of a pipe whose other end only its
//! parent has, as its stdin, and exits when that pipe ends.

use std::io::Read;
use std::process::ExitCode;

/// The environment variable that holds the id of the process to die with.
pub(crate) const PARENT: &str = "DKV_LOCAL_PARENT";

/// Runs a registration server until it is told to stop.
pub(crate) async fn server(args: dkv_server::Args) -> ExitCode {
    ended(dkv_server::run(args).await)
}

/// Runs a node until it is told to stop, on a runtime of its own.
pub(crate) fn node(args: dkv_daemon::Args) -> ExitCode {
    dkv_daemon::main(args)
}

fn ended(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dkv_base::complain!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this process die with its parent, if `dkv local` is that parent. Called before any other
/// thread is started.
pub(crate) fn die_with_parent() {
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
        // The parent never writes; whatever comes, it is the end.
        let _ = std::io::stdin().read(&mut byte);
        std::process::exit(1);
    });
}
