//! The client library of dkv, a replicated key-value store.
//!
//! A dkv *network* is a group of nodes that keep every key on several machines. Keys and values are
//! bytes: keys of 1 to 4096, values of up to 2 MiB unless the network says otherwise. The keys are
//! divided among *shards*, each a Raft group of its own, so an acknowledged write is on the disks
//! of a majority of the shard's replicas. This library finds the node that can serve a request,
//! retries, follows failovers, and executes each write at most once.
//!
//! It needs a tokio runtime.
//!
//! # Quick start
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
//! // The address of the registration server is enough: `Client::connect("127.0.0.1:4400")`.
//! let client = Client::builder().server(server).home(home).connect().await?;
//!
//! let written = client.write("planet", "Mars").await?;
//! let read = client.read("planet").await?;
//! assert_eq!(read.value, "Mars");
//! assert_eq!(read.receipt.revision, written.receipt.revision);
//!
//! // Writes only if the key has not changed since.
//! let unchanged = Condition::Revision(read.receipt.revision);
//! client.write_with("planet", "Venus", unchanged.into()).await?;
//! match client.write_with("planet", "Pluto", unchanged.into()).await {
//!     Err(Error::Conflict { current, .. }) => println!("it is at {current:?} by now"),
//!     other => unreachable!("{other:?}"),
//! }
//!
//! // Concurrent requests share one connection.
//! let (one, two) = tokio::join!(client.read("planet"), client.read("moon"));
//! assert_eq!(one?.value, "Venus");
//! assert!(matches!(two, Err(Error::NotFound { .. })));
//!
//! // Reads what the nearest replica has; the receipt says how old that may be.
//! let near = client.read_with("planet", ReadOptions::eventual()).await?;
//! println!("at most {:?} ms old", near.receipt.staleness_ms);
//!
//! client.delete("planet").await?;
//! client.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Connecting
//!
//! [`Client::connect`] takes the address of the registration server, [`Client::builder`] everything
//! else: several servers, nodes, a token, a role, a region, a timeout. A client joins a network
//! once with a token (see [`ClientBuilder::token_file`]). From then on it uses the certificate in
//! its credential store (see [`ClientBuilder::home`]), which it renews before it expires. If it has
//! expired, the server issues a new one to the client that proves to have its key. A client that
//! was connected before also finds the nodes without the server, because it stores their addresses.
//! If the server at an address now belongs to another network, the client joins that one.
//!
//! A [`Client`] is a handle that is cheap to clone. One is enough for a program.
//!
//! # Reading and writing
//!
//! | method | effect |
//! |---|---|
//! | [`read`](Client::read), [`read_with`](Client::read_with) | returns a key's value |
//! | [`write`](Client::write), [`write_with`](Client::write_with) | sets it, if a [`Condition`] holds |
//! | [`delete`](Client::delete), [`delete_with`](Client::delete_with) | deletes it, if a [`Condition`] holds |
//! | [`scan`](Client::scan) | lists keys in order |
//! | [`range`](Client::range) | lists keys with their versions, or counts them, at one revision |
//! | [`read_at`](Client::read_at), [`history`](Client::history) | return earlier values |
//! | [`watch`](Client::watch) | streams changes as they happen |
//!
//! Every result carries a [`Receipt`]: the shard, the key's revision, the level served, the node
//! that served it and the age of the answer.
//!
//! # Consistency
//!
//! Each request chooses a [`Level`]:
//!
//! | level | a read returns | a write is acknowledged once |
//! |---|---|---|
//! | [`Strong`](Level::Strong), the default | the latest value (linearizable) | a majority has it on disk |
//! | [`Session`](Level::Session) | what a replica has, never older than what this client wrote or saw | as `Strong` |
//! | [`Eventual`](Level::Eventual) | what the nearest replica has, at once | one node has it on disk; it is ordered later |
//! | [`All`](Level::All) | the latest value, which every reachable replica then has | every replica has it on disk |
//!
//! [`ReadOptions::max_staleness`] and [`ReadOptions::at_least`] bound how far behind an eventual
//! read may be, and [`ReadOptions::nearest`] has the nearest replica serve a strong one.
//!
//! # Errors
//!
//! Errors are split by what the caller has to do:
//!
//! | error | effect | what to do |
//! |---|---|---|
//! | [`NotFound`](Error::NotFound) | none | an answer like any other: the key does not exist |
//! | [`Conflict`](Error::Conflict) | none | read again and decide anew |
//! | [`Unavailable`](Error::Unavailable) | none | repeat the same request, later |
//! | [`Limited`](Error::Limited) | none | repeat the same request after the told time |
//! | [`Unknown`](Error::Unknown) | perhaps | read the key to find out, or repeat the write if it may be executed twice |
//! | [`Incomplete`](Error::Incomplete) | done | nothing, or wait: the missing replicas catch up |
//! | [`NotEverywhere`](Error::NotEverywhere) | done | wait: the missing nodes follow once they can |
//! | [`Compacted`](Error::Compacted), [`NotYet`](Error::NotYet) | none | choose a revision that the shard keeps |
//! | [`NoLease`](Error::NoLease), [`TooManyLeases`](Error::TooManyLeases) | none | grant another lease, or end some |
//! | [`Invalid`](Error::Invalid), [`TtlOutOfBounds`](Error::TtlOutOfBounds), [`TooLarge`](Error::TooLarge), [`Unfit`](Error::Unfit), [`SeveralShards`](Error::SeveralShards) | none | fix the program |
//! | [`OverQuota`](Error::OverQuota) | none | delete something, or ask an administrator for a larger quota |
//! | [`NoKeyspace`](Error::NoKeyspace) | none that lasts | choose or create another keyspace |
//! | [`Denied`](Error::Denied) | none | ask an administrator for a role or a new token |
//!
//! [`Error::is_retryable`] and [`Error::may_have_had_effect`] answer the two usual questions.
//! [`ConnectError`] says why there is no client; after each the same call may be repeated.
//!
//! # Retries and exactly-once
//!
//! The library retries by itself until the request's timeout: on a redirect, a lost connection, a
//! silent node, a refusal that asks to come again, a failover. All attempts of a write carry the
//! same id, so the shard executes it **at most once** however often it arrives, and the call
//! returns the result of that one execution. The promise covers one call: a program that calls
//! again after [`Error::Unknown`] makes another write. Make such writes conditional
//! ([`Condition::Revision`], [`Condition::Absent`]), so that the second one finds out that the
//! first was executed.
//!
//! A failover costs time and nothing else.
//!
//! # Scans
//!
//! [`Client::scan`] lists keys in the order of their bytes, from all shards, page by page.
//! [`ScanOptions`] has prefix, start, limit and whether to fetch values. A scan is not a snapshot;
//! [`Client::scan`] says what it promises.
//!
//! # History and watches
//!
//! A shard keeps the versions of its keys back to a *floor*, which rises by policy or with
//! [`Client::compact`]. [`Client::read_at`] reads a key as it was at a revision, a scan
//! [at a revision](ScanOptions::at) lists all keys of that moment in a keyspace with one shard, and
//! [`Client::history`] returns the versions of a key.
//!
//! [`Client::watch`] streams the changes of a key or of a range of keys: each change exactly once,
//! in the order of revisions within a shard. A [`WatchToken`] names a position from which a watch
//! can go on later, in another process too. A watch moves to another replica by itself when a node
//! fails.
//!
//! # Transactions
//!
//! [`Client::transact`] executes a [`Transaction`]: it compares keys, and executes one of two lists
//! of operations, as a whole. [`Client::increment`] and [`Client::append`] are transactions of one
//! operation. [`Client::transaction`] runs a function that reads and writes keys as it goes, and
//! runs it again at a conflict. Transactions are strictly serializable and executed exactly once,
//! in one shard or in several. Ranges of keys need a network with one shard.
//!
//! # Leases and recipes
//!
//! A put with [`WriteOptions::ttl`] stores a key for some time, and one with
//! [`WriteOptions::lease`] for as long as a lease: [`Client::hold_lease`] grants one and keeps it
//! alive until its [`LeaseKeeper`] is dropped or says that it is lost. [`recipes`] has locks,
//! elections, registrations, queues and rate counters, with what each promises and what it does
//! not.
//!
//! # Keyspaces
//!
//! A keyspace is a named set of keys with its own shards, replication, history and quota. A client
//! begins with the keyspace `default`; [`Client::keyspace`] returns a handle for another one, on
//! which everything above works. Administrators [create](Client::create_keyspace),
//! [change](Client::set_keyspace) and [drop](Client::drop_keyspace) them at run time.
//!
//! # Many requests at once
//!
//! There is no batch call and none is needed: concurrent calls on one client are pipelined over one
//! connection to each node, and the nodes commit them in batches. Start many and await them
//! together, as with `futures::future::join_all` or `tokio::task::JoinSet`. Beyond 32,768 requests
//! or 128 MiB under way, calls wait.
//!
//! # Shutdown
//!
//! [`Client::close`] ends all requests and tells the nodes; dropping the last clone does the same
//! without waiting. A request's future may be dropped at any time.
//!
//! # Administration
//!
//! [`Client::status`], [`Client::view`] and [`Client::placement`] tell about the network. With
//! [`Role::Admin`] a client also creates and revokes tokens, revokes certificates, and drains and
//! removes nodes. [`Client::read_replicas`] shows what each replica has of a key.
//!
//! # Types of the protocol
//!
//! The types of ids, receipts, levels, views and status are those of the protocol and come from
//! `dkv-wire`; this crate re-exports all that its own interface needs, along with [`Bytes`] and
//! [`Uuid`]. Their versions change together with this crate's.
//!
//! # Not supported
//!
//! A blocking interface and a cache.
#![forbid(unsafe_code)]
#![deny(missing_docs, rustdoc::broken_intra_doc_links)]

// In reading order: the interface first, then what it stands on.
mod builder;
mod client;
mod options;
mod scan;
mod range;
mod attach;
mod time_bounds;
mod transaction;
mod lease;
mod history;
mod snapshot;
mod watch;
mod error;
mod status;
mod inspect;
pub mod recipes;

// The decisions, which are plain data: who is asked, and what an answer means.
mod router;

// The shell: tasks, connections, files.
mod driver;
mod node_connection;
mod watch_connections;
mod registration_server;
mod connect;
mod credential_store;
mod address;

pub use address::DEFAULT_PORT;
pub use attach::{Attach, Lifetime};
pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{ConnectError, Error};
pub use history::{Compacted, History, HistoryOptions, ValueAt};
pub use inspect::ReplicaValue;
pub use lease::{LeaseInfo, LeaseKeeper, LeaseKeys};
pub use options::{
    NetworkStatus, ReadOptions, StatusError, TokenOptions, Value, WriteOptions, Written,
};
pub use range::RangeRequest;
pub use scan::{Scan, ScanOptions};
pub use snapshot::{Snapshot, SnapshotCut, SnapshotToken, SnapshotTokenError};
pub use transaction::{
    Compare, NestedTransaction, OpenTransaction, PutAttach, Test, Transacted, Transaction,
    TransactionOperation,
};
pub use watch::{
    KeyChange, TokenFormError, Watch, WatchEvent, WatchOptions, WatchPage, WatchToken,
};

pub use bytes::Bytes;
pub use dkv_base::id::{
    GroupId, HolderId, KeyspaceId, LeaseId, NetworkId, NodeId, Number, Revision, Stamp, Term,
};
pub use dkv_wire::bearer::{Rights, Verifier};
pub use dkv_wire::certificate::CertificateError;
pub use dkv_wire::identity::{Identity, Role};
pub use dkv_wire::incarnation::Verdict;
pub use dkv_wire::join::{JoinError, TokenError};
pub use dkv_wire::message::{
    BearerLife, Condition, GroupRole, GroupStatus, HolderInfo, HolderKind, KeyRange, KeyspaceUse,
    Level, NodeStatus, OperationResult, Page, Pair, PartReceipt, RangeOptions, RangePage,
    RangePart, Reach, Receipt, Relation, RunChoice, RunReport, ServerStatus, TokenInfo, Unfit,
    Version, VersionExpiry,
};
pub use dkv_wire::message::{
    ChangeReason, Diagnosis, DiskFacts, LeaderChange, LogChange, LogFilter,
};
pub use dkv_wire::message::{
    InvalidRights, PolicyInfo, PolicyLimits, PolicyList, PolicyRule, Right, RightSet,
};
pub use dkv_wire::message::{Move, MoveStep, NodePlaces, Placement, PlannedMove};
pub use dkv_wire::network::UnknownRegion;
pub use dkv_wire::network::{DEFAULT_KEYSPACE, KeyspaceChange, KeyspaceInfo, KeyspaceSettings};
pub use dkv_wire::network::{NetworkView, NodeInfo, NodeState, ServerInfo, ShardInfo};
pub use dkv_wire::region::{Region, RegionError};
pub use dkv_wire::user::{InvalidUser, User};
pub use uuid::Uuid;

/// The example of the crate's README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
