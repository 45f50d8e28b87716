//! Whole networks of real processes on this machine's loopback.
//!
//! Each test has a network of its own: a server and nodes, started from the built `dkv`, in a
//! temporary directory with credentials of its own. What a test does to them is what happens to
//! processes in the world: they are killed, stopped, paused, started again, given damaged
//! directories and fed with rubbish; and clients go on meanwhile, as the `dkv` command or through
//! the client library.
//!
//! Nothing here waits for luck: a test waits for a condition, with a deadline. When it fails, what
//! its processes logged is printed.
//!
//! Deliberately missing: faults of disks and of the network between processes, which `faults`
//! makes, and anything that one crate's own tests can show.

#![allow(clippy::unwrap_used)]

mod harness;

mod commands;

mod documents;

mod outputs;

mod prompt;

mod joining;

mod placement;

mod intruders;

mod thieves;
mod credentials;

mod options;

mod directories;

mod failover;

mod deposed;

mod levels;

mod eventual_writes;

mod retries;

mod restarts;

mod catching_up;

mod hostile;

mod drill;

mod gateway;

mod scans;

mod regions;
