//! The registration server: the front desk of a network.
//!
//! The first start creates a network: its id, its certificate authority and its join tokens. From
//! then on the server admits nodes and clients, tells the first node to bootstrap, tracks all
//! nodes, confirms the coordinator, and tells clients where to go.
//!
//! The server is a directory that may lag behind. It orders coordinators by term and never goes
//! back. It is *never* on the path of a read or a write: while it is down, the network serves and
//! fails over as before, and only joining and a client's very first look-up wait for it.
//!
//! Reading order: [`config`] (what an operator writes), [`registry`] (what the server decides, as
//! plain data), [`registry_file`] (the registry on disk), then the shells: `data_dir` (everything
//! else on disk), `registry_store` (applies updates one at a time and writes them before they are
//! answered), `books` (has the control group decide on tokens and holders), `service` (the
//! conversations) and [`Server`] (all of it together).
//!
//! Deliberately missing: any part in elections, and any knowledge of keys and values.
#![forbid(unsafe_code)]

pub mod config;

pub mod registry;

pub mod registry_file;

mod address;
mod books;
mod coordinator_link;
mod reachability;
mod clock;
mod command;
mod data_dir;
mod enlistment;
mod registry_store;
mod local_tokens;
mod limits;
mod server;
mod service;

pub use command::{Args, run};
pub use config::{Config, ConfigError};
pub use data_dir::DataDirError;
pub use enlistment::EnlistError;
pub use server::{Server, StartError};
