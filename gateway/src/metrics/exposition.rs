//! The text format of Prometheus (exposition format 0.0.4).

use dkv_base::histogram::{BOUNDS_US, Times};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text of metrics, built family by family.
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

    /// Returns the text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A family of series that differ in their labels.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a series.
    pub fn put(&mut self, labels: &[(&str, &str)], value: impl Into<MetricValue>) -> &mut Self {
        let MetricValue(value) = value.into();
        self.line("", labels, &value);
        self
    }

    /// Adds the series of a histogram.
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

/// The value of a series, as text.
#[derive(Debug)]
pub struct MetricValue(String);

impl From<u64> for MetricValue {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

impl From<f64> for MetricValue {
    fn from(value: f64) -> Self {
        Self(value.to_string())
    }
}

impl From<bool> for MetricValue {
    fn from(value: bool) -> Self {
        Self(u8::from(value).to_string())
    }
}

/// Formats microseconds as seconds, without rounding.
fn seconds(time_us: u64) -> String {
    let text = format!("{}.{:06}", time_us / 1_000_000, time_us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
