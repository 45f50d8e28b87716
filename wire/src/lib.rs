//! What two dkv processes say to each other.
//!
//! Everything that crosses a process boundary is defined here and nowhere else: messages,
//! frames, limits, identities and certificates, and the QUIC connections that carry them. The
//! other crates decide *when* to say *what*; this one knows *how*.
//!
//! Deliberately missing: any decision. No module here retries, elects, routes or stores.
#![forbid(unsafe_code)]

pub mod region;
pub mod name;
pub mod limits;
pub mod network;
pub mod run;
pub mod message;

pub mod codec;
pub mod frame;
pub mod call;

pub mod identity;
pub mod token;
pub mod certificate;
pub mod seal;
pub mod bearer;
pub mod net_platform;
pub mod tls;
mod delayed_socket;
pub mod quic;
pub mod gate;

pub mod join;
pub mod local;
