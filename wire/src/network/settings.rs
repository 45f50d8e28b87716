//! The settings that all nodes of a network share, and the bounds of each.

mod delays;

use serde::{Deserialize, Serialize};

pub use delays::{Delays, LinkDelay, UnknownRegion};

use crate::limits;

/// The settings that all nodes of a network share. The first node gets them from the server's
/// configuration; from then on they are part of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Number of voters that each group should have.
    pub replication: u32,
    /// Number of shards, fixed when the network is created.
    pub shards: u32,
    /// Time between two heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest time without a heartbeat after which a voter stands for election, in milliseconds.
    pub election_min_ms: u64,
    /// Longest such time, in milliseconds.
    pub election_max_ms: u64,
    /// Longest value, in bytes.
    pub value_bytes_max: u64,
    /// Size of the log at which a node takes a checkpoint and purges, in bytes.
    pub log_bytes_max: u64,
    /// Time for which a voter may be down before a learner replaces it, in milliseconds.
    pub replace_after_ms: u64,
    /// Emulated delays between regions.
    pub delays: Delays,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replication: 3,
            shards: 1,
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 250,
            value_bytes_max: limits::VALUE_BYTES_DEFAULT as u64,
            log_bytes_max: 256 * 1024 * 1024,
            replace_after_ms: 300_000,
            delays: Delays::default(),
        }
    }
}

/// A setting that is not allowed, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct SettingsError {
    /// The name of the setting, as in config.json.
    pub setting: &'static str,
    /// The fault, and what would be right.
    pub problem: String,
}

impl Settings {
    /// Checks each setting, and the settings against each other.
    ///
    /// # Errors
    /// The first setting that is not allowed.
    pub fn check(&self) -> Result<(), SettingsError> {
        let fail = |setting, problem: String| Err(SettingsError { setting, problem });
        if self.replication == 0 || self.replication > limits::REPLICATION_MAX {
            return fail("replication", format!("must be from 1 to {}", limits::REPLICATION_MAX));
        }
        if self.shards == 0 || self.shards > limits::SHARDS_MAX {
            return fail("shards", format!("must be from 1 to {}", limits::SHARDS_MAX));
        }
        if !(10..=10_000).contains(&self.heartbeat_ms) {
            return fail("heartbeat_ms", "must be from 10 to 10000".into());
        }
        if self.election_min_ms < 3 * self.heartbeat_ms {
            return fail(
                "election_min_ms",
                format!(
                    "must be at least three heartbeats, that is {}, so that one lost heartbeat \
                     does not cause an election",
                    3 * self.heartbeat_ms
                ),
            );
        }
        let election_max_least_ms = self.election_min_ms.saturating_add(self.heartbeat_ms);
        if self.election_max_ms < election_max_least_ms {
            return fail(
                "election_max_ms",
                format!(
                    "must be at least election_min_ms and one heartbeat, that is \
                     {election_max_least_ms}, so that voters do not stand at the same moment"
                ),
            );
        }
        if self.election_max_ms > 60_000 {
            return fail("election_max_ms", "must be at most 60000".into());
        }
        if !(1024..=limits::VALUE_BYTES_MAX as u64).contains(&self.value_bytes_max) {
            return fail(
                "value_bytes_max",
                format!("must be from 1024 to {}", limits::VALUE_BYTES_MAX),
            );
        }
        if self.log_bytes_max < 16 * 1024 * 1024 {
            return fail("log_bytes_max", "must be at least 16777216 (16 MiB)".into());
        }
        if self.replace_after_ms < 10 * self.election_max_ms {
            return fail(
                "replace_after_ms",
                format!("must be at least ten elections, that is {}", 10 * self.election_max_ms),
            );
        }
        self.delays.check()
    }
}

#[cfg(test)]
mod tests;
