//! An HTTP gateway to a dkv network, for every language and for `curl`.
//!
//! The gateway is a client of the network like any other: it joins as one, stores nothing, and has
//! no more rights than a client. It translates: a request becomes one call of the client library,
//! and the result becomes a status, header fields and a body:
//!
//! | request | call |
//! |---|---|
//! | `GET`, `HEAD /v1/kv/{key}` | a read, strong unless `?consistency=` says otherwise |
//! | `PUT /v1/kv/{key}` | a write of the body, likewise |
//! | `DELETE /v1/kv/{key}` | a delete, likewise |
//! | `GET /v1/kv` | a page of a scan, as JSON ([`bytes_json`]) |
//! | `/v1/leases`, `/v1/leases/{id}` | grants, lists, shows, keeps and ends leases |
//! | `GET /v1/history` | the versions of a key, as JSON |
//! | `GET /v1/watch` | a watch, as server-sent events |
//! | `POST /v1/batch` | many of these, each by itself |
//! | `POST /v1/txn` | a transaction ([`transaction_json`]) |
//! | `POST /v1/increment/{key}`, `POST /v1/append/{key}` | a transaction of one operation |
//! | `GET /v1/keyspaces` | the keyspaces, and how much they hold |
//! | `GET /v1/status` | the status of the network, as JSON |
//! | `GET /livez`, `GET /readyz` | whether the process serves; whether the network does |
//! | `GET /metrics` | metrics for Prometheus ([`metrics`]) |
//! | `GET /`, `GET /openapi.json` | a page for people; this interface for programs |
//!
//! Two older interfaces, `/kvs` and `/set`, `/fetch`, `/query`, follow their own specifications, in
//! `compat`. The rest of this text is about `/v1`.
//!
//! A key is the rest of the path, percent-decoded: any bytes, slashes included. The entity tag of a
//! value is its revision, so `If-Match` and `If-None-Match` make writes conditional
//! ([`preconditions`]). Every answer of the network carries its receipt in `Dkv-*` fields
//! ([`receipt`]); errors are problem documents of RFC 9457 ([`problem`]).
//!
//! | status | when |
//! |---|---|
//! | 200, 304 | read; not modified |
//! | 201, 204 | written, the key is new; overwritten or deleted |
//! | 202 | an eventual write was accepted: it is on the disk of one node, and not ordered yet |
//! | 400, 404, 405 | malformed; no such key or path; no such method |
//! | 401, 403, 421 | token missing; token insufficient, or page of another origin; unknown host name |
//! | 408 | the body took too long |
//! | 409, 412 | a condition does not hold, 412 if it was in the header; 409 if a value does not fit an operation |
//! | 410 | the history no longer goes back that far |
//! | 413, 414 | value or key over the limit |
//! | 415, 417, 501 | encoded body; unknown expectation; unknown transfer coding |
//! | 503 | not now; nothing has changed, so `Retry-After` |
//! | 504 | the outcome of a write is unknown; or it was done, but not everywhere |
//!
//! Reading order: plain data in, plain data out ([`percent`], [`query`], [`preconditions`],
//! [`receipt`], [`problem`]); then the handlers, over any [`Store`], behind access control
//! ([`Access`]); last the shell that listens ([`Listener`]).
//!
//! Deliberately missing: ranges, compression, cookies and CORS. No page of another origin is meant
//! to reach a store.
#![forbid(unsafe_code)]

mod limits;

pub mod percent;

pub mod bytes_json;
pub mod keyspace_json;

pub mod version_json;

pub mod transaction_json;

pub mod lease_json;

pub mod query;

pub mod preconditions;

pub mod receipt;

pub mod problem;

pub mod status;

pub mod metrics;

mod store;
mod state;
mod body;
mod args;
mod same_origin;
mod access;
mod denials;
mod request_headers;
mod response;
mod v1;
mod compat;
mod monitoring;
mod page;
mod app;
mod server;

#[cfg(test)]
mod memory_store;

pub use access::{Access, IsDenied, Tokens};
pub use app::{App, NoAuthority, Options, access, forwarder};
pub use args::Args;
pub use dkv_listener::host_name::{HostName, HostNameError};
pub use server::{ListenError, Listener};
pub use state::ExtraMetrics;
pub use store::{Store, WatchFeed};
