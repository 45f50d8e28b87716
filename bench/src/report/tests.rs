use std::time::Duration;

use expect_test::expect;

use super::*;
use crate::generator::{Load, Tally};
use crate::systems::Answer;
use crate::workload::Work;

/// Returns a sample of one second with `requests` requests of `milliseconds` each.
fn sample(requests: u64, milliseconds: u64) -> Sample {
    let mut tally = Tally::default();
    for _ in 0..requests {
        tally.record(Duration::from_millis(milliseconds), Ok(Answer::Done));
    }
    Sample {
        seconds: 1.0,
        tally,
        system_cpu: Duration::from_millis(requests),
        generator_cpu: Duration::from_millis(requests / 2),
        peak_memory: 64 << 20,
    }
}

fn report() -> Report {
    let load = Load::Closed { clients: 64 };
    let put = Cell { work: Work::Put, value_bytes: 100, records: 1000, load };
    let scans = Cell { work: Work::YcsbE, ..put };
    let one = |kind, round, cell, requests, ms| Measured {
        kind,
        round,
        cell,
        sample: sample(requests, ms),
    };
    let mut failing = one(Kind::Etcd, 0, 1, 50, 8);
    failing.sample.tally.fail("no leader".into());
    let measured = [
        one(Kind::Dkv, 0, 0, 1000, 1),
        one(Kind::Etcd, 0, 0, 500, 2),
        // In this round everything was half as fast, which leaves the ratio unchanged.
        one(Kind::Dkv, 1, 0, 500, 2),
        one(Kind::Etcd, 1, 0, 250, 4),
        // Without a counterpart in its round it has no part in the ratio.
        one(Kind::Dkv, 2, 0, 2000, 1),
        failing,
    ];
    let cells = summaries(&[Kind::Dkv, Kind::Etcd, Kind::Nats], vec![put, scans], &measured);
    let machine = Machine {
        processor: "processor".into(),
        processors: 2,
        memory_bytes: 24 << 30,
        kernel: "6.1".into(),
    };
    Report { machine, versions: BTreeMap::from([("dkv", "dkv 1".into())]), cells, errors: vec![] }
}

#[test]
fn ratios_are_taken_within_a_round() {
    let report = report();
    let [ratio] = &report.cells[0].ratios[..] else { panic!("one pair of systems") };
    let same = |figure: f64| Summary { min: figure, median: figure, max: figure };
    assert_eq!((ratio.of, ratio.to), (Kind::Dkv, Kind::Etcd));
    assert_eq!(ratio.ops, same(2.0));
    assert_eq!(ratio.cpu, same(1.0));
    assert!((ratio.p50.median - 0.5).abs() < 0.001);
}

#[test]
fn the_table() {
    expect![[r#"
        2 processors (processor), 24 GiB, Linux 6.1
        dkv: dkv 1

        put, 100 B, 64 clients, 1000 keys
        system              ops/s  (min..max)             p50 ms   p99 ms p99.9 ms   max ms  cpu us/op  own us/op  peak MiB
        dkv                  1000  (500..2000)            1.000    1.000    1.000      2.0     1000.0      500.0        64
        etcd                  375  (250..500)             3.001    3.001    3.001      4.0     1000.0      500.0        64
        dkv : etcd   ops/s 2.00 (2.00..2.00)   p50 0.50 (0.50..0.50)   p99 0.50 (0.50..0.50)   cpu 1.00 (1.00..1.00)

        ycsb-e, 100 B, 64 clients, 1000 keys
        system              ops/s  (min..max)             p50 ms   p99 ms p99.9 ms   max ms  cpu us/op  own us/op  peak MiB
        etcd                   50  (50..50)               8.004    8.004    8.004      8.0     1000.0      500.0        64
          1 failed, the first: no leader
        nats          not offered
    "#]]
    .assert_eq(&table(&report()));
}

#[test]
fn the_chart_has_all_systems_and_both_figures() {
    let chart = chart::svg(chart::of_report(&report())).unwrap();
    for text in ["dkv", "etcd", "operations a second", "p99 latency, ms", "put, 100 B, 64 clients"]
    {
        assert!(chart.contains(text), "{text}");
    }
}

#[test]
fn json_says_what_was_measured() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["cells"][0]["cell"]["work"], "put");
    assert_eq!(json["cells"][0]["cell"]["load"]["closed"]["clients"], 64);
    assert_eq!(json["cells"][0]["systems"][1]["ops"]["median"], 375.0);
    assert_eq!(json["cells"][1]["not_offered"][0], "nats");
}
