//! Settings that a configuration cannot change.

use super::*;

#[test]
fn changed_settings_are_named_one_by_one() {
    let kept = Settings { shards: 16, replication: 3, ..Settings::default() };
    assert!(differing_settings(&kept, &kept).is_empty());
    let other = Settings { shards: 4, replication: 5, ..kept.clone() };
    let text = differing_settings(&kept, &other);
    assert_eq!(text, ["replication is 3, not 5", "shards is 16, not 4"]);
}
