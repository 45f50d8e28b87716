//! The client library of dkv.
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod address;
mod builder;
mod client;
mod connect;
mod error;
mod keep;
mod link;
mod options;
mod router;
mod server;
mod session;
mod shared;
mod status;

pub use builder::{ClientBuilder, DEFAULT_PORT};
pub use client::Client;
pub use error::{ConnectError, Error};
pub use options::{NetworkStatus, ReadOptions, Value, WriteOptions, Written};

pub use bytes::Bytes;
pub use dkv_wire::id::{GroupId, HolderId, NetworkId, NodeId, Revision, Term};
pub use dkv_wire::identity::{Identity, Role};
pub use dkv_wire::message::{Condition, Level, NodeStatus, Receipt, ServerStatus, TokenInfo};
pub use dkv_wire::network::{NetworkView, NodeInfo, NodeState, ShardInfo};
pub use uuid::Uuid;
