//! The service KV.

pub mod range;
mod txn;
mod write;
