//! The process of a node: its arguments, its start, and how it joins a network and stays in it.

pub(crate) mod args;
pub(crate) mod error;
pub(crate) mod start;
pub(crate) mod runtime;
mod enrolment;
mod node_registration;
mod other_servers;
mod renewal;
mod listen;
pub(crate) mod stores;
mod memory_limit;
