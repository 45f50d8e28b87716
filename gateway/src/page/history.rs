//! The recent history of the network, within bounds.

use std::collections::VecDeque;

use dkv_api::Error;
use dkv_base::histogram::BOUNDS_US;
use serde::Serialize;

use super::events::{Event, Events};
use super::health::{Health, State, judge};
use crate::limits::{SAMPLES_MAX, SPANS_MAX, TIMELINES_MAX};
use crate::metrics::KeyTraffic;
use crate::status::{Report, Role};

/// An observation of the network.
pub(crate) struct Observation {
    /// Wall-clock time, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// The report, if a new one has arrived.
    pub(crate) report: Option<Report>,
    /// Duration of a strong read in microseconds, or why it failed.
    pub(crate) read: Option<Result<u64, Error>>,
    /// Requests over this gateway so far.
    pub(crate) traffic: KeyTraffic,
}

/// One point in time of the charts.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    at_ms: u64,
    state: State,
    /// Requests over this gateway per second.
    rate: f64,
    /// Failed requests per second.
    failed: f64,
    /// Median duration of requests.
    p50_us: Option<u64>,
    /// 99th percentile of the durations.
    p99_us: Option<u64>,
    /// Duration of a strong read.
    read_us: Option<u64>,
    /// Writes in the network per second.
    writes: Option<f64>,
}

/// A span of time in which a node had one state.
#[derive(Clone, Debug, Serialize)]
struct Span {
    /// `gone`, `leads` or `lives`.
    what: &'static str,
    from_ms: u64,
    until_ms: u64,
}

/// The states of a node over time.
#[derive(Clone, Debug, Serialize)]
struct Timeline {
    name: String,
    spans: VecDeque<Span>,
}

/// A message to pages. The first one to each page holds the whole history.
#[derive(Serialize)]
struct Update<'a> {
    at_ms: u64,
    health: &'a Health,
    report: Option<&'a Report>,
    report_at_ms: Option<u64>,
    lanes: &'a [Timeline],
    samples: Vec<&'a Sample>,
    events: Vec<&'a Event>,
}

/// The history of one network.
#[derive(Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    timelines: Vec<Timeline>,
    events: Events,
    health: Health,
    report: Option<Report>,
    report_at_ms: Option<u64>,
    read: Option<Result<u64, Error>>,
    /// The previous traffic, and when it was observed.
    traffic: Option<(u64, KeyTraffic)>,
    /// The previous sum of the shards' revisions, and when it was observed.
    revisions: Option<(u64, u64)>,
}

impl History {
    /// Adds an observation, and returns the message to pages about it.
    pub(crate) fn add(&mut self, observation: Observation) -> String {
        let Observation { at_ms, report, read, traffic } = observation;
        let is_new = report.is_some();
        if let Some(report) = report {
            self.report_at_ms = Some(at_ms);
            self.report = Some(report);
        }
        self.read = read.or(self.read.take());
        self.health = judge(self.report.as_ref(), self.read.as_ref());
        let writes = is_new.then(|| self.writes_per_second(at_ms)).flatten();
        let sample = self.sample(at_ms, &traffic, writes);
        self.events.record_wait(at_ms, traffic.slowest_write_us);
        if let Some(report) = self.report.as_ref().filter(|_| is_new) {
            self.events.compare_report(at_ms, report);
            extend_timelines(&mut self.timelines, at_ms, report);
        }
        self.events.record_reads(at_ms, self.health.read_error.as_deref());
        self.traffic = Some((at_ms, traffic));
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        let news = self.events.take_news();
        let events = self.events.all().filter(|event| news.contains(&event.id)).collect();
        self.message(self.samples.back().into_iter().collect(), events)
    }

    /// Returns the message with the whole history.
    pub(crate) fn whole(&self) -> String {
        self.message(self.samples.iter().collect(), self.events.all().collect())
    }

    fn message(&self, samples: Vec<&Sample>, events: Vec<&Event>) -> String {
        let update = Update {
            at_ms: self.samples.back().map_or(0, |sample| sample.at_ms),
            health: &self.health,
            report: self.report.as_ref(),
            report_at_ms: self.report_at_ms,
            lanes: &self.timelines,
            samples,
            events,
        };
        // Structs of strings and numbers always have a JSON form.
        serde_json::to_string(&update).unwrap_or_default()
    }

    fn sample(&self, at_ms: u64, traffic: &KeyTraffic, writes: Option<f64>) -> Sample {
        let mut sample = Sample {
            at_ms,
            state: self.health.state,
            rate: 0.0,
            failed: 0.0,
            p50_us: None,
            p99_us: None,
            read_us: self.read.as_ref().and_then(|read| read.as_ref().ok().copied()),
            writes,
        };
        let Some((before_ms, before)) = &self.traffic else { return sample };
        let seconds = at_ms.saturating_sub(*before_ms).max(1) as f64 / 1000.0;
        let grown: Vec<u64> = traffic
            .buckets
            .iter()
            .zip(&before.buckets)
            .map(|(now, then)| now.saturating_sub(*then))
            .collect();
        sample.rate = grown.iter().sum::<u64>() as f64 / seconds;
        sample.failed = traffic.failed.saturating_sub(before.failed) as f64 / seconds;
        sample.p50_us = quantile(&grown, 0.5);
        sample.p99_us = quantile(&grown, 0.99);
        sample
    }

    /// Returns the growth of the shards' revisions since the previous report, per second.
    fn writes_per_second(&mut self, at_ms: u64) -> Option<f64> {
        let groups = &self.report.as_ref()?.groups;
        let shards = groups.iter().filter(|group| group.group != 0);
        let revisions = shards.filter_map(|shard| shard.revision).sum();
        let (before_ms, before) = self.revisions.replace((at_ms, revisions))?;
        let seconds = at_ms.saturating_sub(before_ms).max(1) as f64 / 1000.0;
        // Without answers from a shard, the sum may shrink.
        Some(revisions.saturating_sub(before) as f64 / seconds)
    }
}

/// Returns a quantile of durations, interpolated within its bucket.
fn quantile(buckets: &[u64], share: f64) -> Option<u64> {
    let total: u64 = buckets.iter().sum();
    let wanted = share * total as f64;
    let mut below = 0.0;
    for (index, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= wanted {
            let low = index.checked_sub(1).and_then(|it| BOUNDS_US.get(it)).copied().unwrap_or(0);
            let high = BOUNDS_US.get(index).copied().unwrap_or(low.saturating_mul(2));
            return Some(low + ((high - low) as f64 * (wanted - below) / count) as u64);
        }
        below += count;
    }
    None
}

/// Extends the timeline of every node by a report.
fn extend_timelines(timelines: &mut Vec<Timeline>, at_ms: u64, report: &Report) {
    for node in &report.nodes {
        let what = match (node.reachable, node.role) {
            (false, _) => "gone",
            (true, Role::Coordinator) => "leads",
            (true, Role::Replicant) => "lives",
        };
        let known = timelines.iter().position(|timeline| timeline.name == node.name);
        if known.is_none() && timelines.len() >= TIMELINES_MAX {
            continue;
        }
        let place = known.unwrap_or_else(|| {
            // Sorted by name, n10 after n9.
            let order = |name: &str| (name.len(), name.to_owned());
            let place =
                timelines.partition_point(|timeline| order(&timeline.name) < order(&node.name));
            timelines.insert(place, Timeline { name: node.name.clone(), spans: VecDeque::new() });
            place
        });
        let timeline = &mut timelines[place];
        let open = timeline.spans.back_mut();
        if let Some(span) = open {
            span.until_ms = at_ms;
            if span.what == what {
                continue;
            }
        }
        timeline.spans.push_back(Span { what, from_ms: at_ms, until_ms: at_ms });
        if timeline.spans.len() > SPANS_MAX {
            timeline.spans.pop_front();
        }
    }
    let is_there = |timeline: &Timeline| report.nodes.iter().any(|node| node.name == timeline.name);
    let oldest_ms = at_ms.saturating_sub(1000 * SAMPLES_MAX as u64);
    timelines.retain(|timeline| {
        is_there(timeline) || timeline.spans.back().is_some_and(|it| it.until_ms >= oldest_ms)
    });
    for timeline in timelines {
        while timeline.spans.len() > 1
            && timeline.spans.front().is_some_and(|it| it.until_ms < oldest_ms)
        {
            timeline.spans.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
