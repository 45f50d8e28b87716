//! The text that Prometheus reads (exposition format 0.0.4).

use dkv_base::histogram::{BOUNDS_US, Times};

/// The type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Figures, as text.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family of counters, whose name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"));
        self.family(name, "counter", help)
    }

    /// Begins a family of values that go up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a family of histograms, whose name ends in `_seconds`.
    pub fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_seconds"));
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let text = &mut self.text;
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text, name }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A family of figures that differ in their labels.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// A figure.
    pub fn put(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) -> &mut Self {
        let Number(value) = value.into();
        self.line("", labels, &value);
        self
    }

    /// The figures of a histogram.
    pub fn times(&mut self, labels: &[(&str, &str)], times: &Times) -> &mut Self {
        let mut below = 0;
        for (bound_us, count) in BOUNDS_US.iter().zip(times.buckets) {
            below += count;
            let bound = seconds(*bound_us);
            self.line("_bucket", &[labels, &[("le", &bound)]].concat(), &below.to_string());
        }
        let count = times.count().to_string();
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), &count);
        self.line("_sum", labels, &seconds(times.sum_us));
        self.line("_count", labels, &count);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.text.push_str(&format!("{name}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push(' ');
        self.text.push_str(value);
        self.text.push('\n');
    }
}

/// A value as text.
#[derive(Debug)]
pub struct Number(String);

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value.to_string())
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self(u8::from(value).to_string())
    }
}

/// Microseconds as seconds, exactly.
fn seconds(time_us: u64) -> String {
    let text = format!("{}.{:06}", time_us / 1_000_000, time_us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dkv_base::histogram::Histogram;

    use super::*;

    #[test]
    fn figures_are_as_prometheus_wants_them() {
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
}
