//! The etcd v3 face: etcd's interface, over gRPC and JSON, in front of a dkv network.
//!
//! The face is a client of the network like any other. It keeps nothing that a restart would lose:
//! several of them serve the same keyspace at the same time. A keyspace with one shard stands
//! behind it, because etcd promises one order of revisions over all keys. etcd's revision is the
//! shard's plus one, because an empty etcd is at revision 1.
//!
//! [`Etcd`] has a method for each method of etcd's services, in terms of etcd's messages
//! ([`proto`]) and errors ([`EtcdError`]). [`method`] is the table of them. The shells around it,
//! [`grpc`] and [`json`], translate nothing but the transport, and [`Listener`] has both on one
//! port.
//!
//! Where a service does what dkv does differently, `docs/etcd.md` says so.
#![forbid(unsafe_code)]

pub mod proto;

pub mod error;
pub mod method;
mod limits;
mod budget;
mod context;
mod identity;
mod access;
mod http;
mod hub;
mod etcd;

pub mod kv;
mod lease;
mod watch;
mod auth;
mod shared;
mod recipes;
mod lock;
mod election;
mod cluster;
mod maintenance;
mod snapshot;

mod metrics;
mod answer;
pub mod grpc;
pub mod json;
mod monitoring;
mod args;
mod server;

pub use access::tokens::{JwtKeys, TokenKind, TokenKindError};
pub use args::{AddressError, Args, KeyspaceError, ProgressError};
pub use context::Context;
pub use error::{Code, EtcdError};
pub use etcd::{Answers, Etcd, Options, Requests, keyspace_settings};
pub use server::{ListenError, Listener};
pub use shared::SETTINGS_SUFFIX;
