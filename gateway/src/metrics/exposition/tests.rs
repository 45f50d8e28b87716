//! The text format of Prometheus.

use std::time::Duration;

use dkv_base::histogram::Histogram;

use super::*;

#[test]
fn the_text_has_the_format_of_prometheus() {
    let mut text = Exposition::default();
    text.counter("a_total", "Things.").put(&[("kind", "x\"y\\\n")], 3_u64).put(&[], 4_u64);
    text.gauge("b_ratio", "A share.").put(&[("a", "1"), ("b", "2")], 0.25);
    let histogram = Histogram::default();
    histogram.add(Duration::from_micros(70));
    histogram.add(Duration::from_secs(60));
    text.histogram("c_seconds", "Times.").times(&[("a", "1")], &histogram.times());
    let text = text.finish();
    assert!(text.starts_with(
        "# HELP a_total Things.\n# TYPE a_total counter\na_total{kind=\"x\\\"y\\\\\\n\"} 3\n\
         a_total 4\n# HELP b_ratio A share.\n# TYPE b_ratio gauge\nb_ratio{a=\"1\",b=\"2\"} 0.25\n"
    ));
    assert!(text.contains("c_seconds_bucket{a=\"1\",le=\"0.00005\"} 0\n"), "{text}");
    assert!(text.contains("c_seconds_bucket{a=\"1\",le=\"0.0001\"} 1\n"), "{text}");
    assert!(text.contains("c_seconds_bucket{a=\"1\",le=\"10\"} 1\n"), "{text}");
    assert!(text.ends_with(
        "c_seconds_bucket{a=\"1\",le=\"+Inf\"} 2\nc_seconds_sum{a=\"1\"} 60.00007\n\
         c_seconds_count{a=\"1\"} 2\n"
    ));
}
