#![forbid(unsafe_code)]

pub mod disk;
pub mod wal;
