//! The client over real sockets against a whole network in this process.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod contact;
mod fake;
mod leases;
mod requests;
