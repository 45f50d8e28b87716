//! The server over real sockets, in this process and as a program.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod books;
mod command;
mod data_dir;
mod group;
mod hostile;
mod joining;
mod nodes;
mod roles;
mod support;
