//! Requests from clients, administrators and other nodes: from the connection they arrive on to the
//! replica that decides them.

pub(crate) mod connection;
pub(crate) mod request;
mod context;
mod needs;
mod permission;
mod acts;
mod limits;
mod rights;
mod data;
mod cluster;
mod admin;
mod expulsion;
mod books;
mod diagnosis;
pub(crate) mod forwarding;
pub(crate) mod history;
mod transactions;
pub(crate) mod eventual_reads;
pub(crate) mod eventual_writes;
pub(crate) mod level_all;
pub(crate) mod watches;

pub(crate) use transactions::resolver as transaction_resolver;
