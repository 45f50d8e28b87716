use super::*;

/// The settings with one of them changed, and where the check must stop, if it must.
type Case = (fn(&mut Settings), Option<&'static str>);

/// Times that leave room for change on both sides; the defaults may be others.
fn settings() -> Settings {
    let (heartbeat_ms, election_min_ms, election_max_ms) = (30, 100, 150);
    Settings { heartbeat_ms, election_min_ms, election_max_ms, ..Settings::default() }
}

#[test]
fn the_defaults_are_possible() {
    Settings::default().check().unwrap();
}

#[test]
fn each_setting_has_its_bounds() {
    let cases: &[Case] = &[
        (|_| {}, None),
        (|s| s.replication = 0, Some("replication")),
        (|s| s.replication = 1, None),
        (|s| s.replication = limits::REPLICATION_MAX, None),
        (|s| s.replication = limits::REPLICATION_MAX + 1, Some("replication")),
        (|s| s.shards = 0, Some("shards")),
        (|s| s.shards = limits::SHARDS_MAX, None),
        (|s| s.shards = limits::SHARDS_MAX + 1, Some("shards")),
        (|s| s.heartbeat_ms = 0, Some("heartbeat_ms")),
        (|s| s.heartbeat_ms = 9, Some("heartbeat_ms")),
        (|s| s.heartbeat_ms = 10, None),
        (|s| s.heartbeat_ms = 10_001, Some("heartbeat_ms")),
        (|s| s.heartbeat_ms = u64::MAX, Some("heartbeat_ms")),
        (|s| s.election_min_ms = 0, Some("election_min_ms")),
        (|s| s.election_min_ms = 89, Some("election_min_ms")),
        (|s| s.election_min_ms = 90, None),
        (|s| s.election_min_ms = 120, None),
        (|s| s.election_min_ms = 121, Some("election_max_ms")),
        (|s| s.election_min_ms = u64::MAX, Some("election_max_ms")),
        (|s| s.election_max_ms = 129, Some("election_max_ms")),
        (|s| s.election_max_ms = 130, None),
        (|s| s.election_max_ms = 30_000, None),
        (|s| s.election_max_ms = 60_001, Some("election_max_ms")),
        (|s| s.election_max_ms = u64::MAX, Some("election_max_ms")),
        (|s| s.value_bytes_max = 1023, Some("value_bytes_max")),
        (|s| s.value_bytes_max = 1024, None),
        (|s| s.value_bytes_max = limits::VALUE_BYTES_MAX as u64, None),
        (|s| s.value_bytes_max = limits::VALUE_BYTES_MAX as u64 + 1, Some("value_bytes_max")),
        (|s| s.log_bytes_max = (16 << 20) - 1, Some("log_bytes_max")),
        (|s| s.log_bytes_max = 16 << 20, None),
        (|s| s.replace_after_ms = 1499, Some("replace_after_ms")),
        (|s| s.replace_after_ms = 1500, None),
        (|s| s.replace_after_ms = u64::MAX, None),
    ];
    for (number, (change, expected)) in cases.iter().enumerate() {
        let mut settings = settings();
        change(&mut settings);
        let stopped = settings.check().err().map(|error| error.setting);
        assert_eq!(stopped, *expected, "case {number}: {settings:?}");
    }
}

#[test]
fn an_impossible_setting_comes_with_what_would_be_right() {
    let text = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    };
    assert_eq!(text(|s| s.replication = 10), "replication: must be from 1 to 9");
    assert_eq!(text(|s| s.shards = 0), "shards: must be from 1 to 1024");
    assert_eq!(text(|s| s.heartbeat_ms = 1), "heartbeat_ms: must be from 10 to 10000");
    assert_eq!(
        text(|s| s.heartbeat_ms = 50),
        "election_min_ms: must be at least three heartbeats, that is 150, so that one lost \
         heartbeat does not cause an election"
    );
    assert_eq!(
        text(|s| s.election_min_ms = 150),
        "election_max_ms: must be at least election_min_ms and one heartbeat, that is 180, so \
         that voters do not stand at the same moment"
    );
    assert_eq!(text(|s| s.value_bytes_max = 0), "value_bytes_max: must be from 1024 to 16777216");
    assert_eq!(
        text(|s| s.replace_after_ms = 0),
        "replace_after_ms: must be at least ten elections, that is 1500"
    );
}
