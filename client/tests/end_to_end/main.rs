//! Whole networks of real processes on this machine's loopback.
//!
//! Each test has its own network: a server and nodes, started from the built `dkv`, in a temporary
//! directory with its own credentials. Tests do to them what happens to processes in production:
//! they kill, stop, pause and restart them, damage their directories and send them garbage.
//! Meanwhile clients continue, through the `dkv` command or the client library.
//!
//! No test sleeps and hopes: it waits for a condition, with a deadline. If it fails, it prints the
//! logs of its processes.
//!
//! Deliberately missing: faults of disks and of the network between processes, which `faults`
//! covers, and everything that the tests of a single crate can show.

#![allow(clippy::unwrap_used)]

mod harness;

mod commands;

mod documents;

mod contract;
mod outputs;

mod prompt;

mod joining;

mod servers;

mod package_index;
mod placement;

mod intruders;

mod audit;
mod rights;
mod thieves;
mod credentials;

mod options;

mod directories;

mod failover;

mod deposed;

mod levels;

mod eventual_writes;

mod retries;

mod transactions;

mod leases;

mod restarts;

mod bad_input;
mod bank;
mod drivers;
mod catching_up;

mod hostile;

mod drill;

mod gateway;

mod etcd;

mod scans;

mod backup;

mod history;

mod keyspaces;

mod watch;

mod recovery;

mod regions;

mod watches;

mod seeing;
