//! The `dkv` command: client, server, node and local networks in one binary.
//!
//! Reading order: `cli` (what may be written), `grammar` (commands as plain data), `script` (both
//! as steps, wherever they are typed), `store` (what they are run on), `run` and `words` (what each
//! does), `documents` (results for programs), `problem` (what goes wrong, and exit statuses),
//! `screen` (where all that goes). On these stand the ways to give commands: arguments, `pipe`,
//! `prompt`; and what is more than a command: `status`, `load`, `admin`, `local` (a network of
//! child processes on this machine), `drill` (breaks one on purpose), `gateway` (HTTP in front of a
//! network) and `roles` (the server and the nodes themselves).
//!
//! Deliberately missing: anything that speaks to the network by itself. That is the client
//! library's.
#![forbid(unsafe_code)]

mod cli;

mod grammar;

mod script;
mod input;
mod help;

mod store;

mod run;
mod words;
mod held;
mod holders;

mod descriptors;
mod documents;
mod problem;
mod screen;

mod pipe;
mod places;

mod prompt;

mod status;

mod load;

mod admin;

mod local;

mod drill;
mod rehearse;

mod gateway;

mod roles;

mod completions;
mod csv;
mod dispatch;
mod human;
mod signals;

pub mod untrusted;

pub use dispatch::main;

/// The examples of the project's documents, compiled as tests.
#[cfg(doctest)]
mod examples {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/consistency.md")]
    mod consistency {}
}
