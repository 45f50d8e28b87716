//! What every test needs: a network of processes, load on it, and ways to talk to it past the
//! client library.

pub(crate) mod direct;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod relay;
mod waiting;

pub(crate) use load::Load;
pub(crate) use network::Network;
pub(crate) use process::Process;
pub(crate) use waiting::{PATIENCE, eventually, for_a_while};
