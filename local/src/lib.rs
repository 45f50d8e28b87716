//! A whole network on this machine, to try out, to test and to break: what `dkv local`, drills and
//! rehearsals run on.
//!
//! The server and the nodes are real processes of the program that starts them, on real sockets, so
//! a killed one dies as it would elsewhere. One directory holds everything:
//!
//! ```text
//! config.json      the server's configuration
//! server/          the server's data
//! n1/ n2/ n3/      the nodes' data
//! NAME.log         the output of each process
//! home/            tokens and credentials, in place of the user's own
//! ```
//!
//! [`LocalNetwork`] starts the processes and waits until the network is complete (`readiness`);
//! [`NetworkDir`] is its directory; [`child`] is one process. To make `dkv ADDRESS` work in another
//! terminal, `shared_tokens` copies the tokens to the user's own directory for as long as the
//! network runs, unless that directory already has tokens for the server's port.
//!
//! Nothing is left running: an orderly end stops the children, a killed parent takes its children
//! with it ([`tether`]), and a temporary directory is removed.
//!
//! Deliberately missing: networks of more than one machine, and of any address but loopback unless
//! the caller asks for one. Errors ([`error`]) are single lines for the user of `dkv local`; they
//! name its options.
#![forbid(unsafe_code)]

pub mod error;
pub mod network;

pub mod network_dir;
pub mod regions;
mod readiness;
mod shared_tokens;

pub mod child;
pub mod tether;

mod options;

pub use network::{LocalNetwork, SERVER};
pub use network_dir::{NetworkDir, node_name};
pub use options::Options;
