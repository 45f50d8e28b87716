//! The history, and the messages to pages.

use serde_json::Value;

use super::super::fixtures::report;
use super::*;

const ALL: [&str; 3] = ["n1", "n2", "n3"];

fn observation(
    at_ms: u64,
    seen: Option<Report>,
    buckets: &[(usize, u64)],
    failed: u64,
) -> Observation {
    let mut traffic =
        KeyTraffic { buckets: vec![0; BOUNDS_US.len() + 1], failed, slowest_write_us: None };
    buckets.iter().for_each(|(index, count)| traffic.buckets[*index] = *count);
    Observation { at_ms, report: seen, read: Some(Ok(700)), traffic }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn rates_and_quantiles_cover_the_time_between_two_observations() {
    let mut history = History::default();
    let first = parse(&history.add(observation(1000, None, &[(3, 50)], 1)));
    assert_eq!(
        (&first["samples"][0]["rate"], &first["samples"][0]["p99_us"]),
        (&0.0.into(), &Value::Null)
    );
    let second = parse(&history.add(observation(3000, None, &[(3, 148), (16, 2)], 3)));
    let sample = &second["samples"][0];
    assert_eq!((&sample["rate"], &sample["failed"]), (&50.0.into(), &1.0.into()));
    // The bucket from 250 to 500 µs, and the one above 10 s.
    assert!((250..=500).contains(&sample["p50_us"].as_u64().unwrap()), "{sample}");
    assert!(sample["p99_us"].as_u64().unwrap() >= 10_000_000, "{sample}");
    let third = parse(&history.add(observation(4000, None, &[(3, 148), (16, 2)], 3)));
    assert_eq!(
        (&third["samples"][0]["rate"], &third["samples"][0]["p50_us"]),
        (&0.0.into(), &Value::Null)
    );
}

#[test]
fn the_whole_history_is_bounded() {
    let mut history = History::default();
    let shards = ["n1"; 3];
    for second in 0..3 * SAMPLES_MAX as u64 {
        let nodes = if second % 2 == 0 { ALL } else { ["n1", "n2", "-n3"] };
        history.add(observation(1000 * second, Some(report(&nodes, &shards, 1)), &[], 0));
    }
    let whole = parse(&history.whole());
    assert_eq!(whole["samples"].as_array().unwrap().len(), SAMPLES_MAX);
    assert!(whole["events"].as_array().unwrap().len() <= crate::limits::EVENTS_MAX);
    assert_eq!(whole["report"]["nodes"].as_array().unwrap().len(), 3);
    let lanes = whole["lanes"].as_array().unwrap();
    assert_eq!(lanes.iter().map(|lane| lane["name"].as_str().unwrap()).collect::<Vec<_>>(), ALL);
    assert!(lanes.iter().all(|lane| lane["spans"].as_array().unwrap().len() <= SPANS_MAX));
    assert_eq!(lanes[0]["spans"][0]["what"], "leads");
    // A node that has left is forgotten in time.
    let later = 1000 * 10 * SAMPLES_MAX as u64;
    history.add(observation(later, Some(report(&["n1", "n2"], &shards, 1)), &[], 0));
    assert_eq!(parse(&history.whole())["lanes"].as_array().unwrap().len(), 2);
    let many: Vec<String> = (0..2 * TIMELINES_MAX).map(|number| format!("m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    history.add(observation(later, Some(report(&many, &["m0"], 1)), &[], 0));
    assert!(parse(&history.whole())["lanes"].as_array().unwrap().len() <= TIMELINES_MAX);
}

#[test]
fn the_state_is_that_which_callers_meet() {
    let state = |nodes: &[&str], leaders: &[&str], read: Result<u64, Error>| {
        let seen = report(nodes, leaders, 1);
        let health = judge(Some(&seen), Some(&read));
        (health.state, health.reasons.first().cloned().unwrap_or_default())
    };
    let fine = || Ok(700);
    assert_eq!(state(&ALL, &["n1", "n1"], fine()), (State::Available, String::new()));
    // No further node may fail, though every key can be read and written.
    let (degraded, why) = state(&["n1", "n2", "-n3"], &["n1", "n1"], fine());
    assert_eq!((degraded, why.as_str()), (State::Degraded, "n3 does not answer"));
    let (alone, why) = state(&["n1"], &["n1", "n1"], fine());
    assert_eq!((alone, why.as_str()), (State::Degraded, "tolerates no further failures"));
    let (lost, why) = state(&["n1", "-n2", "-n3"], &["n1", "n1"], fine());
    assert_eq!((lost, why.as_str()), (State::Unavailable, "2 of 2 groups have no majority"));
    let (leaderless, why) = state(&ALL, &["n1", ""], fine());
    assert_eq!((leaderless, why.as_str()), (State::Unavailable, "1 group has no primary"));
    // Whatever the nodes report.
    let (read, why) = state(&ALL, &["n1", "n1"], Err(Error::Unavailable("nobody answers".into())));
    assert_eq!(
        (read, why.as_str()),
        (State::Unavailable, "strong reads fail: unavailable: nobody answers")
    );
    assert_eq!(judge(None, None).state, State::Unknown);
    assert_eq!(judge(None, Some(&Err(Error::Unavailable("x".into())))).state, State::Unavailable);
    let mut server = report(&ALL, &["n1", "n1"], 1);
    server.server.reachable = false;
    assert_eq!(judge(Some(&server), Some(&Ok(1))).state, State::Degraded);
}
