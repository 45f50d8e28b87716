//! The service KV.
//!
//! `plan` and `order` decide and are plain data; `pages` asks the network.

mod compares;
pub(crate) mod pages;
pub(crate) mod plan;
mod order;
mod range;
mod txn;
mod write;

pub(crate) use self::txn::check_txn;
