//! Events: the changes from one report to the next, in sentences.
//!
//! A failover is one event, which is rewritten as more is known: a node that led groups does not
//! answer; others lead them; writes waited for so long meanwhile. If a leader was replaced before
//! its loss was noticed, that is the same failover, provided that it stops answering within
//! [`ONE_FAILOVER_MS`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dkv_api::NodeId;
use serde::Serialize;

use crate::limits::EVENTS_MAX;
use crate::status::Report;

/// Time within which a new leader and the loss of the old one count as one failover.
const ONE_FAILOVER_MS: u64 = 15_000;
/// Time after a failover in which the writes that waited for it end.
const SETTLING_MS: u64 = 3_000;
/// Time before a loss is noticed in which it may have happened: a report may take that long.
const UNNOTICED_MS: u64 = 6_000;
/// Observations whose longest write is remembered.
const WAITS_MAX: usize = 64;

/// The severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Info,
    Bad,
    Failover,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// Stays the same when the event is rewritten.
    pub(crate) id: u64,
    pub(crate) at_ms: u64,
    pub(crate) kind: Severity,
    pub(crate) text: String,
    pub(crate) detail: Option<String>,
}

/// A failover in progress.
struct Failover {
    event: u64,
    lost: NodeId,
    name: String,
    /// The groups that the lost node led, and the present leader of each.
    led: BTreeMap<u32, Option<String>>,
    term: Option<u64>,
    begun_ms: u64,
    /// When all of them had leaders again.
    over_ms: Option<u64>,
}

/// The events of one network.
#[derive(Default)]
pub(crate) struct Events {
    /// The latest first.
    events: VecDeque<Event>,
    next_id: u64,
    /// Ids of new and rewritten events.
    news: BTreeSet<u64>,
    previous: Option<Snapshot>,
    failovers: Vec<Failover>,
    /// A coordinator that was replaced while it answered: its id, the event, and the time.
    replaced: Option<(NodeId, u64, u64)>,
    /// The longest write of each observation: time in milliseconds, duration in microseconds.
    waits: VecDeque<(u64, u64)>,
    reads_fail: bool,
}

/// The part of a report that is compared with the next one.
struct Snapshot {
    coordinator: Option<(NodeId, String, u64)>,
    /// By group.
    leaders: BTreeMap<u32, (NodeId, String)>,
    nodes: BTreeMap<NodeId, (String, bool)>,
    /// Whether a majority of each group answers.
    majority: bool,
    server: bool,
}

impl Events {
    /// Returns all events, the latest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// Returns the ids of the events that are new or rewritten since the previous call.
    pub(crate) fn take_news(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.news)
    }

    /// Records the longest write of an observation.
    pub(crate) fn record_wait(&mut self, at_ms: u64, slowest_us: Option<u64>) {
        let Some(slowest_us) = slowest_us else { return };
        self.waits.push_back((at_ms, slowest_us));
        if self.waits.len() > WAITS_MAX {
            self.waits.pop_front();
        }
    }

    /// Records whether strong reads fail, and why.
    pub(crate) fn record_reads(&mut self, at_ms: u64, error: Option<&str>) {
        if error.is_some() == self.reads_fail {
            return;
        }
        self.reads_fail = error.is_some();
        match error {
            Some(error) => self.add(at_ms, Severity::Bad, format!("strong reads fail: {error}")),
            None => self.add(at_ms, Severity::Info, "strong reads succeed again".to_owned()),
        };
    }

    /// Compares a report with the previous one.
    pub(crate) fn compare_report(&mut self, at_ms: u64, report: &Report) {
        let now = Snapshot::of(report);
        match self.previous.take() {
            None => {
                let leads = now.coordinator.as_ref().map_or("no node", |(_, name, _)| name);
                self.add(at_ms, Severity::Info, format!("watching; {leads} is the coordinator"));
            }
            Some(before) => self.compare(at_ms, &before, &now),
        }
        self.previous = Some(now);
    }

    fn compare(&mut self, at_ms: u64, before: &Snapshot, now: &Snapshot) {
        let lost: Vec<NodeId> = now
            .nodes
            .iter()
            .filter(|(id, (_, reachable))| {
                !reachable && before.nodes.get(id).is_some_and(|(_, was)| *was)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &lost {
            self.record_loss(at_ms, *id, before, now);
        }
        self.compare_coordinators(at_ms, before, now);
        self.update_failovers(at_ms, now);
        self.compare_majority(at_ms, before, now);
        for (id, (name, reachable)) in &now.nodes {
            match before.nodes.get(id) {
                None => drop(self.add(at_ms, Severity::Info, format!("{name} has joined"))),
                Some((_, false)) if *reachable => {
                    self.add(at_ms, Severity::Info, format!("{name} answers again"));
                }
                Some(_) => {}
            }
        }
        for (id, (name, _)) in &before.nodes {
            if !now.nodes.contains_key(id) {
                self.add(at_ms, Severity::Info, format!("{name} was removed"));
            }
        }
        self.record_moved_primaries(at_ms, &lost, before, now);
    }

    /// Records that a node no longer answers.
    fn record_loss(&mut self, at_ms: u64, id: NodeId, before: &Snapshot, now: &Snapshot) {
        let name = before.nodes.get(&id).map_or_else(String::new, |(name, _)| name.clone());
        let is_replaced = |(node, _, when): &(NodeId, u64, u64)| {
            *node == id && at_ms.saturating_sub(*when) <= ONE_FAILOVER_MS
        };
        let replaced = self.replaced.take_if(|it| is_replaced(it));
        let mut led: BTreeMap<u32, Option<String>> = BTreeMap::new();
        led.extend(
            before.leaders.iter().filter(|(_, (node, _))| *node == id).map(|(it, _)| (*it, None)),
        );
        if replaced.is_some() {
            led.insert(0, None);
        }
        if led.is_empty() {
            self.add(at_ms, Severity::Bad, format!("{name} does not answer"));
            return;
        }
        let (event, begun_ms) = match replaced {
            Some((_, event, when)) => (event, when),
            None => (self.add(at_ms, Severity::Failover, String::new()), at_ms),
        };
        let term = now.coordinator.as_ref().map(|(_, _, term)| *term);
        self.failovers.push(Failover { event, lost: id, name, led, term, begun_ms, over_ms: None });
    }

    /// Records another coordinator, unless a failover covers the change.
    fn compare_coordinators(&mut self, at_ms: u64, before: &Snapshot, now: &Snapshot) {
        if self.failovers.iter().any(|it| it.led.contains_key(&0)) {
            return;
        }
        match (&before.coordinator, &now.coordinator) {
            (old, Some((id, name, term))) => {
                if old.as_ref().is_some_and(|(old, _, was)| (old, was) == (id, term)) {
                    return;
                }
                let event = self.add(at_ms, Severity::Info, elected(name, *term));
                let old = old.as_ref().filter(|(old, ..)| old != id);
                self.replaced = old.map(|(old, ..)| (*old, event, at_ms));
            }
            (Some(_), None) => {
                self.add(at_ms, Severity::Bad, "no coordinator answers".into());
            }
            (None, None) => {}
        }
    }

    /// Rewrites the events of failovers by what is known now.
    fn update_failovers(&mut self, at_ms: u64, now: &Snapshot) {
        let mut failovers = std::mem::take(&mut self.failovers);
        for failover in &mut failovers {
            for (group, leads) in &mut failover.led {
                if let Some((node, name)) = now.leaders.get(group)
                    && *node != failover.lost
                {
                    *leads = Some(name.clone());
                }
            }
            if let Some((_, _, term)) = &now.coordinator {
                failover.term = Some(*term);
            }
            let is_over = failover.led.values().all(Option::is_some);
            failover.over_ms = failover.over_ms.or(is_over.then_some(at_ms));
            let (text, detail) = match failover.over_ms {
                None if is_back(failover, now) => {
                    let silent_ms = at_ms.saturating_sub(failover.begun_ms);
                    let silent = duration(silent_ms.saturating_mul(1000));
                    (format!("{} did not answer for {silent} and still leads", failover.name), None)
                }
                _ => self.describe(failover),
            };
            if let Some(event) = self.events.iter_mut().find(|event| event.id == failover.event)
                && (event.text != text || event.detail != detail)
            {
                (event.text, event.detail, event.kind) = (text, detail, Severity::Failover);
                self.news.insert(event.id);
            }
        }
        failovers.retain(|it| match it.over_ms {
            Some(over_ms) => at_ms.saturating_sub(over_ms) < SETTLING_MS,
            None => !is_back(it, now),
        });
        self.failovers = failovers;
    }

    fn describe(&self, failover: &Failover) -> (String, Option<String>) {
        let Failover { name, led, term, begun_ms, over_ms, .. } = failover;
        let leaders: BTreeSet<&String> = led.values().flatten().collect();
        let leaders: Vec<&str> = leaders.into_iter().map(String::as_str).collect();
        let mut text = format!("{name} lost");
        text += &match leaders.as_slice() {
            [] => ", its groups have no leader yet".to_owned(),
            [one] => format!(", {one} leads"),
            [first, second] => format!(", {first} and {second} lead"),
            [first, others @ ..] => format!(", {first} and {} others lead", others.len()),
        };
        let waiting = led.values().filter(|leader| leader.is_none()).count();
        if over_ms.is_none() && !leaders.is_empty() {
            text += &format!(", {waiting} of {} groups without a leader", led.len());
        }
        let since_ms = begun_ms.saturating_sub(UNNOTICED_MS);
        let slowest =
            self.waits.iter().filter(|(at_ms, _)| *at_ms >= since_ms).map(|(_, us)| *us).max();
        if let Some(slowest_us) = slowest.filter(|_| over_ms.is_some()) {
            text += &format!(", writes waited {}", duration(slowest_us));
        }
        let mut detail = vec![format!("{name} does not answer")];
        if let (Some(Some(leader)), Some(term)) = (led.get(&0), term) {
            detail.push(elected(leader, *term));
        }
        let shards = led.keys().filter(|group| **group != 0).count();
        match shards {
            0 => {}
            1 => detail.push("1 shard has another primary".to_owned()),
            shards => detail.push(format!("{shards} shards have other primaries")),
        }
        (text, Some(detail.join("; ")))
    }

    fn compare_majority(&mut self, at_ms: u64, before: &Snapshot, now: &Snapshot) {
        match (before.majority, now.majority) {
            (true, false) => drop(self.add(at_ms, Severity::Bad, "a group has no majority".into())),
            (false, true) => {
                self.add(at_ms, Severity::Info, "every group has a majority again".into());
            }
            _ => {}
        }
        match (before.server, now.server) {
            (true, false) => {
                self.add(at_ms, Severity::Bad, "the server does not answer".into());
            }
            (false, true) => {
                self.add(at_ms, Severity::Info, "the server answers again".into());
            }
            _ => {}
        }
    }

    /// Records shards that have another primary although the old one still answers.
    fn record_moved_primaries(
        &mut self,
        at_ms: u64,
        lost: &[NodeId],
        before: &Snapshot,
        now: &Snapshot,
    ) {
        let is_covered = |group: &u32, node: &NodeId| {
            lost.contains(node) || self.failovers.iter().any(|it| it.led.contains_key(group))
        };
        let moved: Vec<(u32, String)> = now
            .leaders
            .iter()
            .filter(|(group, (node, _))| {
                let old = before.leaders.get(group).filter(|(old, _)| old != node);
                **group != 0 && old.is_some_and(|(old, _)| !is_covered(group, old))
            })
            .map(|(group, (_, name))| (*group, name.clone()))
            .collect();
        match moved.as_slice() {
            many if many.len() > 3 => {
                self.add(
                    at_ms,
                    Severity::Info,
                    format!("{} shards have other primaries", many.len()),
                );
            }
            few => {
                for (group, name) in few {
                    self.add(
                        at_ms,
                        Severity::Info,
                        format!("{name} is the primary of shard {group}"),
                    );
                }
            }
        }
    }

    fn add(&mut self, at_ms: u64, kind: Severity, text: String) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.events.push_front(Event { id, at_ms, kind, text, detail: None });
        self.events.truncate(EVENTS_MAX);
        self.news.insert(id);
        id
    }
}

impl Snapshot {
    fn of(report: &Report) -> Self {
        let leader = |group: &crate::status::Group| {
            let leader = group.voters.iter().find(|voter| voter.leader && voter.reachable)?;
            Some((group.group, (leader.id, leader.name.clone())))
        };
        Self {
            coordinator: report
                .coordinator
                .as_ref()
                .filter(|it| it.reachable)
                .map(|it| (it.id, it.name.clone(), it.term)),
            leaders: report.groups.iter().filter_map(leader).collect(),
            nodes: report
                .nodes
                .iter()
                .map(|node| (node.id, (node.name.clone(), node.reachable)))
                .collect(),
            majority: report.groups.iter().all(|group| group.spare.is_none_or(|spare| spare >= 0)),
            server: report.server.reachable,
        }
    }
}

/// Whether the lost node of a failover answers again, or was removed.
fn is_back(failover: &Failover, now: &Snapshot) -> bool {
    now.nodes.get(&failover.lost).is_none_or(|(_, reachable)| *reachable)
}

fn elected(name: &str, term: u64) -> String {
    format!("{name} was elected coordinator in term {term}")
}

fn duration(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{} ms", us.div_ceil(1000)),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
