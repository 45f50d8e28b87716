//! The wire protocol of dkv: everything that crosses between processes.
//!
//! This crate defines the messages, frames, limits, identities and certificates, and the QUIC
//! connections that carry them. The other crates decide *when* to send *what*; this one defines
//! *how*. What stays within one process is in `dkv-base`.
//!
//! Deliberately missing: any decision. No module here retries, elects, routes or stores.
#![forbid(unsafe_code)]

pub mod region;
pub mod name;
pub mod limits;
pub mod network;
pub mod incarnation;
pub mod message;

pub mod codec;
pub mod frame;
pub mod rpc;

pub mod user;
pub mod identity;
pub mod token;
pub mod certificate;
pub mod seal;
pub mod bearer;
pub mod net_platform;
pub mod tls;
mod delayed_socket;
pub mod quic;
pub mod server_address;
pub mod race;
pub mod acceptor;

pub mod join;
pub mod local;
