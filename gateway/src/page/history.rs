//! What has happened lately, within bounds.

use std::collections::VecDeque;

use dkv_base::histogram::BOUNDS_US;
use serde::Serialize;

use super::events::{Event, Events};
use super::health::{Health, State, judge};
use crate::limits::{LANES_MAX, SAMPLES_MAX, SPANS_MAX};
use crate::metrics::Traffic;
use crate::status::{Report, Role};

/// What was seen at one moment.
pub(crate) struct Look {
    /// By the clock of the wall, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// The report, if there is a new one.
    pub(crate) report: Option<Report>,
    /// How long a strong read took, or why it failed.
    pub(crate) read: Option<Result<u64, String>>,
    /// Requests so far.
    pub(crate) traffic: Traffic,
}

/// One moment of the charts.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    at_ms: u64,
    state: State,
    /// Requests over this gateway and those of them that failed, a second.
    rate: f64,
    failed: f64,
    /// Times of requests: half of them and 99 of 100 took no longer.
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    /// How long a strong read took.
    read_us: Option<u64>,
    /// Writes in the network a second.
    writes: Option<f64>,
}

/// What a node was over a span of time.
#[derive(Clone, Debug, Serialize)]
struct Span {
    what: &'static str,
    from_ms: u64,
    until_ms: u64,
}

/// The past of a node.
#[derive(Clone, Debug, Serialize)]
struct Lane {
    name: String,
    spans: VecDeque<Span>,
}

/// What a tab is told of a moment. The first that it is told has all of the past.
#[derive(Serialize)]
struct Told<'a> {
    at_ms: u64,
    health: &'a Health,
    report: Option<&'a Report>,
    report_at_ms: Option<u64>,
    lanes: &'a [Lane],
    samples: Vec<&'a Sample>,
    events: Vec<&'a Event>,
}

/// See above.
#[derive(Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    lanes: Vec<Lane>,
    events: Events,
    health: Health,
    report: Option<Report>,
    report_at_ms: Option<u64>,
    read: Option<Result<u64, String>>,
    traffic: Option<(u64, Traffic)>,
    revisions: Option<(u64, u64)>,
}

impl History {
    /// Takes in what was seen, and returns what tabs are told of it.
    pub(crate) fn take(&mut self, look: Look) -> String {
        let Look { at_ms, report, read, traffic } = look;
        let is_new = report.is_some();
        if let Some(report) = report {
            self.report_at_ms = Some(at_ms);
            self.report = Some(report);
        }
        self.read = read.or(self.read.take());
        self.health = judge(self.report.as_ref(), self.read.as_ref());
        let writes = is_new.then(|| self.writes_a_second(at_ms)).flatten();
        let sample = self.sample(at_ms, &traffic, writes);
        self.events.waited(at_ms, traffic.slowest_write_us);
        if let Some(report) = self.report.as_ref().filter(|_| is_new) {
            self.events.report(at_ms, report);
            lanes(&mut self.lanes, at_ms, report);
        }
        self.events.reads(at_ms, self.health.read_error.as_deref());
        self.traffic = Some((at_ms, traffic));
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        let news = self.events.news();
        let events = self.events.all().filter(|event| news.contains(&event.id)).collect();
        self.tell(self.samples.back().into_iter().collect(), events)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> String {
        self.tell(self.samples.iter().collect(), self.events.all().collect())
    }

    fn tell(&self, samples: Vec<&Sample>, events: Vec<&Event>) -> String {
        let told = Told {
            at_ms: self.samples.back().map_or(0, |sample| sample.at_ms),
            health: &self.health,
            report: self.report.as_ref(),
            report_at_ms: self.report_at_ms,
            lanes: &self.lanes,
            samples,
            events,
        };
        // Structs of strings and numbers always have a JSON form.
        serde_json::to_string(&told).unwrap_or_default()
    }

    fn sample(&self, at_ms: u64, traffic: &Traffic, writes: Option<f64>) -> Sample {
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

    /// By how much the revisions of the shards grew since the report before.
    fn writes_a_second(&mut self, at_ms: u64) -> Option<f64> {
        let groups = &self.report.as_ref()?.groups;
        let shards = groups.iter().filter(|group| group.group != 0);
        let revisions = shards.filter_map(|shard| shard.revision).sum();
        let (before_ms, before) = self.revisions.replace((at_ms, revisions))?;
        let seconds = at_ms.saturating_sub(before_ms).max(1) as f64 / 1000.0;
        // Of a shard that nobody answers for the revision is not known.
        Some(revisions.saturating_sub(before) as f64 / seconds)
    }
}

/// The time that so large a share of all took at most, between the bounds of its bucket.
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

/// Adds a moment to the past of every node.
fn lanes(lanes: &mut Vec<Lane>, at_ms: u64, report: &Report) {
    for node in &report.nodes {
        let what = match (node.reachable, node.role) {
            (false, _) => "gone",
            (true, Role::Coordinator) => "leads",
            (true, Role::Replicant) => "lives",
        };
        let known = lanes.iter().position(|lane| lane.name == node.name);
        if known.is_none() && lanes.len() >= LANES_MAX {
            continue;
        }
        let place = known.unwrap_or_else(|| {
            // In the order of their names, n10 after n9.
            let order = |name: &str| (name.len(), name.to_owned());
            let place = lanes.partition_point(|lane| order(&lane.name) < order(&node.name));
            lanes.insert(place, Lane { name: node.name.clone(), spans: VecDeque::new() });
            place
        });
        let lane = &mut lanes[place];
        let open = lane.spans.back_mut();
        if let Some(span) = open {
            span.until_ms = at_ms;
            if span.what == what {
                continue;
            }
        }
        lane.spans.push_back(Span { what, from_ms: at_ms, until_ms: at_ms });
        if lane.spans.len() > SPANS_MAX {
            lane.spans.pop_front();
        }
    }
    let is_there = |lane: &Lane| report.nodes.iter().any(|node| node.name == lane.name);
    let oldest_ms = at_ms.saturating_sub(1000 * SAMPLES_MAX as u64);
    lanes.retain(|lane| {
        is_there(lane) || lane.spans.back().is_some_and(|it| it.until_ms >= oldest_ms)
    });
    for lane in lanes {
        while lane.spans.len() > 1 && lane.spans.front().is_some_and(|it| it.until_ms < oldest_ms) {
            lane.spans.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
