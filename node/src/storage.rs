//! A node's storage: its data directory, the log and the checkpoints in it, and a check that the
//! disk is fast enough for them.

pub(crate) mod data_dir;
pub(crate) mod stores;
pub(crate) mod disk_check;
