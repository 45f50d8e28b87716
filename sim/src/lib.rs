//! Deterministic simulation of whole dkv networks in one process, from a seed.
//!
//! A run has a registration server, three to seven nodes and some clients. All of them run the
//! product's own code, from the frames to the state, including QUIC and TLS. Only the machines are
//! simulated:
//!
//! | seam | real | here |
//! |---|---|---|
//! | datagrams | a UDP socket | [`network`]: late, lost, doubled, out of order, cut |
//! | the log's disk | a directory | [`disk`]: syncs that fail or stall, writes torn by a loss of power |
//! | checkpoints | fjall | tables in memory, which die in the middle of a call |
//! | clocks | the kernel's | [`machine`]: fast, slow, standing still, jumping |
//! | random numbers | the kernel's | [`random`]: from the seed |
//! | threads | the kernel's | none: one machine after the other, a millisecond at a time |
//!
//! The seed decides what goes wrong ([`faults`]) and what the clients do ([`workload`]). At the end
//! everything heals. Then the network must serve within a bound, all replicas must be equal, and
//! the history of the clients must be one that the promises allow ([`run`]).
//!
//! The same seed gives the same run, down to the last datagram ([`trace`]).
//!
//! The small files of the server and the nodes (certificates, books) are real ones, in a directory
//! in memory; the power fails before, within or after the replacement of one.
#![forbid(unsafe_code)]

pub mod run;
pub mod explore;

pub mod cluster;
pub mod faults;
pub mod workload;
pub mod observer;
mod compaction;
mod replication_check;
mod backups;

pub mod machine;
pub mod network;
pub mod disk;
mod cryptography;

pub mod log;
pub mod random;
pub mod trace;
