//! The `dkv` command: client, server, node and local networks in one binary.
//!
//! Reading order:
//! - `cli` defines the command line, `grammar` the commands that read and write keys as plain data,
//!   and `steps` turns both into steps, wherever they are typed.
//! - `store` is the target of commands; `run` and `subcommands` carry them out; `json_results`
//!   prints their results for programs, and `api_problems` explains failures.
//! - `dispatch` starts at the arguments of the process, and `exit` ends at its exit status. `pipe`
//!   and `prompt` are the other ways to give commands.
//! - Larger commands have modules of their own: `status`, `load`, `admin`, `holders`, `placement`,
//!   `inspect`, `local`, `recover`, `drill`, `rehearse` and `gateway`.
//!
//! Output, exit statuses and units are the crate `dkv-console`, local networks `dkv-local`, and
//! drills `dkv-drill`.
//!
//! Deliberately missing: anything that talks to a network by itself. That is the job of the client
//! library.
#![forbid(unsafe_code)]

mod cli;

mod grammar;

mod steps;
mod stop;
mod input;
mod help;

mod store;

mod run;
mod subcommands;
mod inspect;
mod holders;
mod history;
mod watch;
mod transaction;
mod lease;
mod lock;

mod json_results;
mod keyspace;
mod listing;
mod api_problems;
mod confirm;

mod pipe;
mod placement;

mod prompt;

mod status;

mod load;
mod import;
mod backup;

mod admin;
mod policy;
mod log;
mod explain;
mod doctor;
mod bundle;

mod local;

mod drill;
mod recover;
mod rehearse;

mod etcd;
mod gateway;

mod completions;
mod manual;
mod csv;
mod dispatch;
mod exit;

pub mod untrusted;

pub use dispatch::main;

/// The examples of the project's documents, compiled as tests.
#[cfg(doctest)]
mod examples {
    #[doc = include_str!("../../docs/library.md")]
    mod library {}
    #[doc = include_str!("../../docs/consistency.md")]
    mod consistency {}
}
