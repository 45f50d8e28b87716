//! What the tests need: a network of processes, load on it, and a way to talk to it without the
//! client library.

pub(crate) mod direct;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod relay;

pub(crate) use dkv_test_support::{PATIENCE, Process, eventually, for_a_while};
pub(crate) use load::Load;
pub(crate) use network::Network;
