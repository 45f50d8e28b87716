//! Why a local network cannot be opened, started or controlled. Each type belongs to one stage, and
//! each message is a single line for the user.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use dkv_api::{ConnectError, RegionError};
use dkv_console::problem::{Abort, Problem};
use dkv_wire::network::SettingsError;
use nix::errno::Errno;

/// A mistake in `--regions`, `--delays` or `--delays-vary`. The user corrects the option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelaysError {
    /// An option only makes sense with regions.
    #[error("{0} needs --regions")]
    NeedsRegions(&'static str),
    /// A field of the matrix is not a number.
    #[error(
        "--delays: {0:?} is not a number of milliseconds; write a row for each region, separated \
         by /, as in 0,200/200,0"
    )]
    NotANumber(String),
}

/// Why there is no network to start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The delays are wrong; see [`DelaysError`].
    #[error(transparent)]
    Delays(#[from] DelaysError),
    /// The options describe a network that cannot be. The user corrects them.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The options differ from the network in the directory. The user omits them, or names another
    /// directory.
    #[error(
        "the network in {} was created with {made}, which cannot be changed; omit {omit}, or name \
         another directory",
        .path.display()
    )]
    Different {
        /// The directory.
        path: PathBuf,
        /// How its network was created.
        made: String,
        /// The options to omit.
        omit: &'static str,
    },
    /// Another process runs the network in the directory. The user stops that one first.
    #[error(
        "another dkv local is running in {}; stop it first, or name another directory",
        .0.display()
    )]
    Running(PathBuf),
    /// The directory holds other files, which stay as they are. The user names another.
    #[error(
        "{} contains something other than a local network; name an empty directory",
        .0.display()
    )]
    NotANetwork(PathBuf),
    /// The configuration in the directory is not valid JSON. The user mends or removes it.
    #[error("{}: {source}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: serde_json::Error,
    },
    /// The configuration in the directory has a malformed region. The user mends or removes it.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The address to listen on is not one of this machine. The user names another.
    #[error("{0} is not an address of this machine; name one with --listen")]
    NotOurAddress(IpAddr),
    /// All ports are taken. The user waits, or frees one.
    #[error("no port of {0} is free")]
    NoPort(IpAddr),
    /// The system refuses a file or directory. The user mends the system or names another place.
    #[error("cannot {action}: {source}")]
    System {
        /// The action, such as `read config.json`.
        action: String,
        /// The refusal.
        source: io::Error,
    },
}

impl OpenError {
    /// Returns a constructor of [`OpenError::System`], for `map_err`.
    pub(crate) fn system(action: String) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// Why a child did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// Its address was already handed out: the caller has it.
    #[error("it has already been waited for")]
    AlreadyAwaited,
    /// The process has ended. Its log tells why, and a new one can be started.
    #[error("{how} while starting; see {}", .log.display())]
    Ended {
        /// How it ended.
        how: String,
        /// Its log.
        log: PathBuf,
    },
    /// The process runs but needs longer. Its log tells what it waits for.
    #[error("not ready after {seconds} s; see {}", .log.display())]
    TooSlow {
        /// The time that it had.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
}

/// Why a child took no signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The process has ended; there is nothing to signal.
    #[error("it is not running")]
    NotRunning,
    /// The system refuses.
    #[error("{0}")]
    Refused(Errno),
}

/// Why a network or one of its processes did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot be started at all.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// The process.
        name: String,
        /// The refusal of the system.
        source: io::Error,
    },
    /// A process was started but did not become ready.
    #[error("{name}: {source}")]
    NotReady {
        /// The process.
        name: String,
        /// Why it is not ready.
        source: ReadyError,
    },
    /// The processes run, but the network admits no client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A process ended by itself while the network came up; says which, and where its log is.
    #[error("{0}")]
    Ended(String),
    /// All processes run, but the network is not complete in time.
    #[error(
        "the network did not come up in {seconds} s: {missing}; to keep its logs, start it with \
         --dir"
    )]
    Incomplete {
        /// The time that it had.
        seconds: u64,
        /// The part that is missing.
        missing: String,
    },
}

/// A mistake in the options: nothing was done.
impl From<DelaysError> for Problem {
    fn from(error: DelaysError) -> Self {
        Self::usage(error.to_string())
    }
}

/// A network that cannot be started.
impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        Self::failed(error.to_string())
    }
}

/// A network, or a process of it, that was not started.
impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        Self::failed(error.to_string())
    }
}

/// A command that cannot be done: the network has not changed.
impl From<StartError> for Abort {
    fn from(error: StartError) -> Self {
        Problem::from(error).into()
    }
}

/// A command that cannot be done: the process goes on as before.
impl From<SignalError> for Abort {
    fn from(error: SignalError) -> Self {
        Problem::failed(error.to_string()).into()
    }
}
