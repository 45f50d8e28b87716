//! Keyspaces: named sets of keys with shards and settings of their own, and the bounds of each
//! setting.

use dkv_base::id::KeyspaceId;
use serde::{Deserialize, Serialize};

use super::settings::{Settings, SettingsError};
use crate::limits;

/// Name of the keyspace that every network has from its founding.
pub const DEFAULT_KEYSPACE: &str = "default";

/// A keyspace, as the directory describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceInfo {
    /// Its id, which no other keyspace gets.
    pub id: KeyspaceId,
    /// Its name, unique among the keyspaces that are not dropped.
    pub name: String,
    /// Its settings.
    pub settings: KeyspaceSettings,
}

/// The settings of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceSettings {
    /// Number of shards, fixed when the keyspace is created.
    pub shards: u32,
    /// Number of voters that each shard should have.
    pub replication: u32,
    /// Age at which a version in the history is forgotten, in milliseconds.
    pub history_age_ms: u64,
    /// Size at which the oldest versions in the history are forgotten, in bytes. The shards have
    /// equal shares of it.
    pub history_bytes: u64,
    /// Total size of keys and values above which writes that add data are refused, in bytes; `None`
    /// for no limit. The shards have equal shares of it.
    pub quota_bytes: Option<u64>,
}

impl Default for KeyspaceSettings {
    fn default() -> Self {
        let Settings { shards, replication, .. } = Settings::default();
        Self {
            shards,
            replication,
            history_age_ms: limits::HISTORY_AGE_MAX.as_millis() as u64,
            history_bytes: limits::HISTORY_BYTES_MAX,
            quota_bytes: None,
        }
    }
}

/// A change of a keyspace's settings; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceChange {
    /// Number of voters that each shard should have.
    pub replication: Option<u32>,
    /// Age at which a version in the history is forgotten, in milliseconds.
    pub history_age_ms: Option<u64>,
    /// Size at which the oldest versions in the history are forgotten, in bytes.
    pub history_bytes: Option<u64>,
    /// The quota in bytes; `Some(None)` to lift it.
    pub quota_bytes: Option<Option<u64>>,
}

impl KeyspaceChange {
    /// Returns these settings with the change.
    pub fn applied_to(&self, settings: &KeyspaceSettings) -> KeyspaceSettings {
        KeyspaceSettings {
            shards: settings.shards,
            replication: self.replication.unwrap_or(settings.replication),
            history_age_ms: self.history_age_ms.unwrap_or(settings.history_age_ms),
            history_bytes: self.history_bytes.unwrap_or(settings.history_bytes),
            quota_bytes: self.quota_bytes.unwrap_or(settings.quota_bytes),
        }
    }
}

impl KeyspaceSettings {
    /// Checks each setting.
    ///
    /// # Errors
    /// The first setting that is not allowed.
    pub fn check(&self) -> Result<(), SettingsError> {
        let within = |setting, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let problem = format!("must be from {least} to {most}");
            Err(SettingsError { setting, problem })
        };
        within("shards", self.shards.into(), 1, limits::SHARDS_MAX.into())?;
        within("replication", self.replication.into(), 1, limits::REPLICATION_MAX.into())?;
        let (least, most) =
            (limits::KEYSPACE_HISTORY_AGE_MS_MIN, limits::KEYSPACE_HISTORY_AGE_MS_MAX);
        within("history_age_ms", self.history_age_ms, least, most)?;
        let (least, most) = (limits::SHARD_HISTORY_BYTES_MIN, limits::KEYSPACE_HISTORY_BYTES_MAX);
        within("history_bytes", self.history_bytes, least, most)?;
        let (least, most) = (limits::QUOTA_BYTES_MIN, limits::QUOTA_BYTES_MAX);
        self.quota_bytes.map_or(Ok(()), |quota| within("quota_bytes", quota, least, most))
    }

    /// Share of the quota that one shard has, in bytes; `None` without a quota.
    pub fn shard_quota(&self) -> Option<u64> {
        self.quota_bytes.map(|quota| quota.div_ceil(self.shards.max(1).into()))
    }

    /// Share of the history that one shard has, in bytes.
    pub fn shard_history_bytes(&self) -> u64 {
        let share = self.history_bytes / u64::from(self.shards.max(1));
        share.max(limits::SHARD_HISTORY_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_within_their_bounds() {
        let good = KeyspaceSettings::default();
        assert_eq!(good.check(), Ok(()));
        for (setting, wrong) in [
            ("shards", KeyspaceSettings { shards: 0, ..good.clone() }),
            ("shards", KeyspaceSettings { shards: limits::SHARDS_MAX + 1, ..good.clone() }),
            ("replication", KeyspaceSettings { replication: 0, ..good.clone() }),
            ("replication", KeyspaceSettings { replication: 10, ..good.clone() }),
            ("history_age_ms", KeyspaceSettings { history_age_ms: 0, ..good.clone() }),
            ("history_age_ms", KeyspaceSettings { history_age_ms: u64::MAX, ..good.clone() }),
            ("history_bytes", KeyspaceSettings { history_bytes: 0, ..good.clone() }),
            ("history_bytes", KeyspaceSettings { history_bytes: u64::MAX, ..good.clone() }),
            ("quota_bytes", KeyspaceSettings { quota_bytes: Some(0), ..good.clone() }),
            ("quota_bytes", KeyspaceSettings { quota_bytes: Some(u64::MAX), ..good.clone() }),
        ] {
            assert_eq!(wrong.check().unwrap_err().setting, setting);
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = KeyspaceSettings { quota_bytes: Some(1 << 20), ..KeyspaceSettings::default() };
        assert_eq!(KeyspaceChange::default().applied_to(&before), before);
        let lifts = KeyspaceChange { quota_bytes: Some(None), ..KeyspaceChange::default() };
        assert_eq!(lifts.applied_to(&before), KeyspaceSettings::default());
    }

    #[test]
    fn shards_have_equal_shares() {
        let settings = KeyspaceSettings {
            shards: 3,
            quota_bytes: Some(10_000),
            history_bytes: 64 << 20,
            ..KeyspaceSettings::default()
        };
        assert_eq!(settings.shard_quota(), Some(3334));
        assert_eq!(settings.shard_history_bytes(), (64 << 20) / 3);
        let tiny = KeyspaceSettings { history_bytes: 1 << 20, ..settings };
        assert_eq!(tiny.shard_history_bytes(), limits::SHARD_HISTORY_BYTES_MIN);
    }
}
