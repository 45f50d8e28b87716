//! HTTP in front of a dkv network, for every language and for `curl`.
//!
//! The gateway is a client of the network like any other: it joins as one, keeps nothing, and has
//! no more rights than that. What it does is translate. A request becomes one call of the client
//! library; its answer becomes a status, header fields and a body:
//!
//! | request | call |
//! |---|---|
//! | `GET`, `HEAD /v1/kv/{key}` | a read, strong unless `?consistency=eventual` |
//! | `PUT /v1/kv/{key}` | a write of the body, strong unless it says something else |
//! | `DELETE /v1/kv/{key}` | a delete, likewise |
//! | `GET /v1/kv` | a page of a scan, as JSON ([`bytes_json`]) |
//! | `POST /v1/batch` | many of these, each by itself |
//! | `GET /v1/status` | the status of the network, as JSON |
//! | `GET /livez`, `GET /readyz` | whether the process serves; whether the network does |
//! | `GET /metrics` | figures, for Prometheus ([`metrics`]) |
//! | `GET /`, `GET /openapi.json` | a page for people; this interface for programs |
//!
//! Two older ways to ask, `/kvs` and `/set`, `/fetch`, `/query`, have modules of their own, with
//! the words of the documents that they are from. The rest of this is about `/v1`.
//!
//! A key is the rest of the path, percent-decoded: any bytes, slashes too. The entity tag of a
//! value is its revision, so `If-Match` and `If-None-Match` make writes conditional
//! ([`preconditions`]). Every answer of the network has its receipt in `Dkv-*` fields ([`receipt`]);
//! what goes wrong is a problem document of RFC 9457 ([`problem`]).
//!
//! | status | when |
//! |---|---|
//! | 200, 304 | read; not modified |
//! | 201, 204 | written, the key is new; written over, or deleted |
//! | 202 | an eventual write was taken: it is on the disk of one node, and not ordered yet |
//! | 400, 404, 405 | not understood; no such key or path; no such method |
//! | 408 | the body took too long |
//! | 409, 412 | a condition does not hold; 412 if it was in the header |
//! | 401, 403, 421 | a token is missing; it is not for this, or a page of another site asks; the name is not ours |
//! | 415, 417, 501 | the body is encoded; an expectation, or a transfer coding, that is not known |
//! | 413, 414 | value or key over the limit |
//! | 503 | not now; nothing was changed, so `Retry-After` |
//! | 504 | the outcome of a write is not known; or it was done, but not everywhere |
//!
//! Reading order: plain data in, plain data out ([`percent`], [`query`], [`preconditions`],
//! [`receipt`], [`problem`]); then the handlers, over any [`Store`], behind the rules of who may
//! ask ([`Access`]); last the shell that listens ([`Listener`]).
//!
//! Deliberately missing: ranges, compression, cookies and CORS: no page of another origin is meant
//! to reach a store.
#![forbid(unsafe_code)]

mod limits;

pub mod percent;

pub mod bytes_json;

pub mod query;

pub mod preconditions;

pub mod receipt;

pub mod problem;

pub mod status;

pub mod metrics;

mod store;
mod body;
mod same_origin;
mod access;
mod request_headers;
mod v1;
mod compat;
mod monitoring;
mod page;
mod app;
mod args;

#[cfg(test)]
mod memory_store;

mod server;

pub use access::{Access, IsDenied, Tokens};
pub use app::{App, Figures, Options, access};
pub use args::Args;
pub use compat::kvs::forwarder;
pub use same_origin::Name;
pub use server::{ListenError, Listener};
pub use store::Store;
