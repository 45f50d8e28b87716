//! Whole networks of real processes on a real kernel, each process on its own host, with faults of
//! machines and of the network between them.
//!
//! The hosts are network namespaces that each test creates, which requires root. Faults are
//! injected with system tools: iptables for partitions and loss, signals, strace for disks that
//! fail, stall or lose power during a sync, a small tmpfs for a full disk, and libfaketime for
//! clocks. A relay of this project delays, reorders and duplicates datagrams. A test whose tools
//! are missing prints `SKIPPED` and the reason.
//!
//! In every test, clients read, write and delete meanwhile, and everything that they see is
//! recorded. At the end the network must have recovered, and the checkers must find nothing: no
//! acknowledged write is lost, no read is stale.
//!
//! Slow tests are ignored by default:
//! `cargo test -p dkv --test faults -- --ignored --nocapture`.
//!
//! Deliberately missing: power that fails for the whole machine, which is simulated elsewhere.

#![allow(clippy::unwrap_used)]

mod lab;

mod partitions;

mod courses;

mod packets;

mod processes;

mod disks;

mod clocks;

mod corruption;

mod copies;

mod membership;

mod capacity;

mod overload;
