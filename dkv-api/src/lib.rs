//! The client library of dkv, a replicated key-value store.
//!
//! ```
//! # mod fake {
//! #     #![allow(dead_code)]
//! #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/fake.rs"));
//! # }
//! use dkv_api::{Client, Condition, Error, ReadOptions};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let network = fake::Fake::start(3).await;
//! # let (server, home) = (network.address.to_string(), &network.home);
//! // The registration server's address is enough: `Client::connect("127.0.0.1:4400")`.
//! let client = Client::builder().server(server).home(home).connect().await?;
//!
//! let written = client.write("planet", "Mars").await?;
//! let read = client.read("planet").await?;
//! assert_eq!(read.value, "Mars");
//! assert_eq!(read.receipt.revision, written.receipt.revision);
//!
//! // Only if nobody has written it since.
//! let unchanged = Condition::Revision(read.receipt.revision);
//! client.write_with("planet", "Venus", unchanged.into()).await?;
//! match client.write_with("planet", "Pluto", unchanged.into()).await {
//!     Err(Error::Conflict { current, .. }) => println!("it is at {current:?} by now"),
//!     other => unreachable!("{other:?}"),
//! }
//!
//! // Many requests share one connection.
//! let (one, two) = tokio::join!(client.read("planet"), client.read("moon"));
//! assert_eq!(one?.value, "Venus");
//! assert!(matches!(two, Err(Error::NotFound { .. })));
//!
//! // Whatever the nearest replica has; the receipt says how old that may be.
//! let near = client.read_with("planet", ReadOptions::eventual()).await?;
//! println!("{:?} ms old", near.receipt.staleness_ms);
//!
//! client.delete("planet").await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What is promised
//!
//! - A write is executed **at most once**, however often the client had to send it, and what it
//!   came to the first time is what is returned. The promise reaches as far as the call: a program
//!   that calls again after [`Error::Unknown`] makes another write.
//! - [`Error`] tells whether there may have been an effect: after [`Error::Unknown`] there may have
//!   been one, after [`Error::Incomplete`] there was one, after every other error there was none. A
//!   request that was not answered in its time is [`Error::Unavailable`] only if no attempt can
//!   have had an effect.
//! - A change of the coordinator, or of a key's primary, costs time and nothing else.
//!
//! # Credentials
//!
//! To join a network takes a token once (see [`ClientBuilder::token_file`]); from then on the
//! certificate that is kept below [`ClientBuilder::home`] is enough, and it is renewed before it
//! ends, or afterwards by the server, to whom the client proves its key. A client that was here
//! before also finds the nodes without the server, because it keeps their addresses. If another
//! network has taken a server's address, the client joins that one.
//!
//! # How it is built
//!
//! [`Client`] puts a request into the router, which is plain data and decides who is asked and what
//! the answer means; a link for each node has the connection. `shared` holds both together.
//!
//! Deliberately missing: a blocking interface (the library needs a tokio runtime), a cache, and any
//! transaction over more than one key.
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod address;
mod builder;
mod client;
mod connect;
mod error;
mod first_view;
mod held;
mod keep;
mod link;
mod options;
mod router;
mod scan;
mod server;
mod session;
mod shared;
mod status;

pub use builder::{ClientBuilder, DEFAULT_PORT};
pub use client::Client;
pub use error::{ConnectError, Error};
pub use held::Held;
pub use options::{NetworkStatus, ReadOptions, Value, WriteOptions, Written};
pub use scan::{Scan, ScanOptions};

pub use bytes::Bytes;
pub use dkv_base::id::{GroupId, HolderId, NetworkId, NodeId, Number, Revision, Stamp, Term};
pub use dkv_wire::bearer::{Rights, Verifier};
pub use dkv_wire::identity::{Identity, Role};
pub use dkv_wire::message::{
    BearerLife, Condition, HolderInfo, HolderKind, Level, NodeStatus, Page, Pair, Reach, Receipt,
    RunChoice, RunReport, ServerStatus, TokenInfo,
};
pub use dkv_wire::message::{Move, MoveStep, NodePlaces, Placement, PlannedMove};
pub use dkv_wire::network::{NetworkView, NodeInfo, NodeState, ShardInfo};
pub use dkv_wire::region::{Region, RegionError};
pub use dkv_wire::run::Verdict;
pub use uuid::Uuid;

/// The examples of the documents, which are compiled as tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../docs/library.md")]
    mod library {}
    #[doc = include_str!("../../docs/consistency.md")]
    mod consistency {}
}
