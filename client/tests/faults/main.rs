//! Whole networks of real processes on a real kernel, each process on a host of its own, and all
//! that can happen to machines and to what is between them.
//!
//! The hosts are network namespaces that a test makes itself, which takes root. Faults are made
//! with what a system has: iptables for partitions and loss, signals, strace for disks that fail,
//! stall or lose power in the midst of a sync, a small tmpfs for one that is full, libfaketime for
//! clocks. A test whose tools are not there says `SKIPPED` and why. For delay, reordering and
//! duplication there is a relay of our own.
//!
//! In every test clients read, write and delete meanwhile, all that they see is recorded, and at
//! the end the network must be whole again and the checkers must find nothing: no acknowledged
//! write is lost, no read is stale.
//!
//! What takes longer is ignored by default:
//! `cargo test -p dkv --test faults -- --ignored --nocapture`.
//!
//! Deliberately missing: power that fails for the whole machine, which is simulated elsewhere.

#![allow(clippy::unwrap_used)]

mod lab;

mod partitions;

mod packets;

mod processes;

mod disks;

mod clocks;

mod corruption;

mod copies;

mod membership;

mod capacity;

mod overload;
