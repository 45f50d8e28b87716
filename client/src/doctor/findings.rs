//! What the answers of a network's processes say about what may fail next. Plain data.

use std::collections::BTreeMap;

use dkv_api::{ChangeReason, Diagnosis, KeyspaceUse, NetworkView, NodeState};
use dkv_console::units::{bytes, duration_ms, plural, timestamp};
use dkv_gateway::status::{Report, group_name};
use dkv_wire::limits::LEASES_MAX;

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const GIB: u64 = 1 << 30;

/// Difference of clocks from which on it is worth a warning, and from which on it is critical:
/// writes are refused from an hour on.
const APART_MS: (u64, u64) = (1000, 10 * 60 * 1000);
/// Time before the end of a certificate; nodes renew theirs days before.
const CERTIFICATE_MS: (u64, u64) = (7 * DAY_MS, 2 * DAY_MS);
/// Free percentage of a disk.
const FREE_PERCENT: (u64, u64) = (10, 3);
/// Free space below which a disk is nearly full whatever its size.
const FREE_BYTES: (u64, u64) = (GIB, GIB / 4);
/// Percentage of a bound that is nearly reached.
const NEARLY: u64 = 85;
/// Open files that a node should be allowed.
const FILES_MIN: u64 = 4096;
/// Entries by which a replica is behind.
const BEHIND_ENTRIES: u64 = 10_000;
/// Median time of an fsync that is slow, in microseconds.
const SLOW_FSYNC_US: u64 = 50_000;
/// Unexpected changes of one group's leader within an hour.
const CHANGES: usize = 4;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Keys cannot be read or written, or will not be soon.
    Critical,
    /// The next failure may do harm.
    Warning,
    /// It would be better otherwise.
    Hint,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }
}

/// One thing that may fail next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What it is about, for programs.
    pub(super) about: &'static str,
    pub(super) what: String,
    /// The command or the section of the documentation that helps.
    pub(super) help: String,
}

/// What a node said of itself.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    pub(super) name: String,
    /// Its circumstances, or why they are not known.
    pub(super) diagnosis: Result<Diagnosis, String>,
    /// How far its clock is ahead of this machine's, within half the time of the answer.
    pub(super) ahead_ms: Option<i64>,
    /// Time that the answer took.
    pub(super) trip_ms: u64,
}

/// Everything that was asked.
pub(super) struct Snapshot<'a> {
    pub(super) report: &'a Report,
    pub(super) view: Option<&'a NetworkView>,
    pub(super) nodes: &'a [Examined],
    /// The keyspaces and their use, or why they are not known.
    pub(super) keyspaces: Result<Vec<KeyspaceUse>, String>,
    /// Number of addresses of registration servers that were given.
    pub(super) servers: usize,
}

/// Returns all findings, the most serious first.
pub(super) fn all(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    groups(snapshot, &mut findings);
    members(snapshot, &mut findings);
    server(snapshot, &mut findings);
    clocks(snapshot, &mut findings);
    keyspaces(snapshot, &mut findings);
    for node in snapshot.nodes {
        match &node.diagnosis {
            Ok(diagnosis) => {
                machine(node, diagnosis, &mut findings);
                leaders(node, diagnosis, &mut findings);
            }
            Err(why) => {
                let name = &node.name;
                let what = format!(
                    "{name} did not tell its circumstances, so its disk, clock, files and \
                     certificate were not examined: {why}"
                );
                let help = "see why it does not answer, and run doctor again".to_owned();
                findings.add(Severity::Warning, "unexamined", what, help);
            }
        }
    }
    for warning in &snapshot.report.warnings {
        let is_serious = warning.contains(" differ after ");
        let is_covered = warning.contains("does not answer")
            || warning.contains("its disk is full")
            || warning.contains(" voters answer, ")
            || warning.contains("no leader answers")
            || warning.contains("hears no majority")
            || warning.contains("both are needed while they change");
        if is_serious || !is_covered {
            let severity = if is_serious { Severity::Critical } else { Severity::Warning };
            findings.add(severity, "status", warning.clone(), "dkv ADDRESS status".into());
        }
    }
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.severity);
    findings
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, about: &'static str, what: String, help: String) {
        self.0.push(Finding { severity, about, what, help });
    }
}

fn section(name: &str) -> String {
    format!("docs/operations.md, \"{name}\"")
}

/// Returns names in one list that is not too long.
fn listed(names: &[String]) -> String {
    match names {
        [first, second, third, _, _, ..] => {
            format!("{first}, {second}, {third} and {} more", names.len() - 3)
        }
        few => few.join(", "),
    }
}

/// Groups without a majority, with no failure to spare, or with too few replicas.
fn groups(snapshot: &Snapshot<'_>, findings: &mut Findings) {
    let (mut lost, mut leaderless, mut bare, mut few) = (vec![], vec![], vec![], vec![]);
    for group in &snapshot.report.groups {
        let name = group_name(group.group);
        match group.spare {
            Some(spare) if spare < 0 => lost.push(name.clone()),
            _ if group.primary.is_none() => leaderless.push(name.clone()),
            Some(0) => bare.push(name.clone()),
            _ => {}
        }
        if wanted(snapshot, group.group).is_some_and(|wanted| group.voters.len() < wanted) {
            few.push(name);
        }
    }
    let help = section("A majority of a group is lost");
    if !lost.is_empty() {
        let what = format!("no majority of the voters answers: {}", listed(&lost));
        findings.add(Severity::Critical, "majority", what, help);
    }
    if !leaderless.is_empty() {
        let what = format!("nobody leads: {}", listed(&leaderless));
        let help = "dkv ADDRESS status, and again after some seconds".into();
        findings.add(Severity::Critical, "leader", what, help);
    }
    if !bare.is_empty() {
        let what = format!("the next failure of a node stops: {}", listed(&bare));
        let help = match snapshot.nodes.len() {
            0..=2 => "start more nodes (dkv node ADDRESS): three tolerate one failure".into(),
            _ => section("A machine is lost"),
        };
        findings.add(Severity::Warning, "failures", what, help);
    }
    if !few.is_empty() {
        let what = format!("fewer replicas than the keyspace asks for: {}", listed(&few));
        let help = "start more nodes, or dkv ADDRESS keyspace set NAME --replication N".into();
        findings.add(Severity::Warning, "replicas", what, help);
    }
}

/// Returns the number of voters that a shard should have.
fn wanted(snapshot: &Snapshot<'_>, group: u32) -> Option<usize> {
    let view = snapshot.view?;
    let shard = view.shards.iter().find(|shard| shard.group.0 == group)?;
    Some(view.keyspace(shard.keyspace)?.settings.replication as usize)
}

/// Nodes that are silent, behind, full, slow, or of another version.
fn members(snapshot: &Snapshot<'_>, findings: &mut Findings) {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in &snapshot.report.nodes {
        let name = &node.name;
        if let Some(version) = &node.version {
            versions.entry(version).or_default().push(name.clone());
        }
        if !node.reachable {
            let what = match (node.state, &node.error) {
                (NodeState::Left, _) => format!("{name} was stopped"),
                (_, Some(error)) => format!("{name} does not answer: {error}"),
                (_, None) => format!("{name} does not answer"),
            };
            findings.add(Severity::Warning, "node", what, section("A node is down for a while"));
        }
        if node.disk_full {
            let what = format!("{name} refuses writes: its disk is full");
            findings.add(Severity::Critical, "disk", what, section("The disk is full"));
        }
        if let Some(lag) = node.applied_lag.filter(|lag| *lag > BEHIND_ENTRIES) {
            let what = format!("{name} is {lag} entries behind");
            findings.add(Severity::Warning, "lag", what, "dkv ADDRESS status".into());
        }
        if let Some(us) = node.fsync_us.filter(|us| *us > SLOW_FSYNC_US) {
            let what = format!("an fsync on {name} takes {} ms", us / 1000);
            findings.add(Severity::Warning, "disk", what, section("Slow requests"));
        }
        if let Some(pending) = node.pending.filter(|pending| *pending > 0 && node.draining) {
            let what = format!("{name} is drained and still has {pending} undelivered writes");
            findings.add(Severity::Hint, "drain", what, "dkv ADDRESS status".into());
        }
    }
    if versions.len() > 1 {
        let each =
            versions.iter().map(|(version, names)| format!("{version} on {}", listed(names)));
        let each: Vec<String> = each.collect();
        let what = format!("nodes of several versions: {}", each.join("; "));
        findings.add(Severity::Hint, "versions", what, "bring all nodes to one version".into());
    }
}

/// The section about one of several servers.
const ONE_SERVER_LOST: &str = "A server is lost, and another one runs";

fn server(snapshot: &Snapshot<'_>, findings: &mut Findings) {
    let server = &snapshot.report.server;
    match &server.error {
        Some(error) => {
            let what = format!("the registration server does not answer: {error}");
            let is_only = !snapshot.report.servers.iter().any(|listed| listed.reachable);
            let help = if is_only { "The only server is lost" } else { ONE_SERVER_LOST };
            findings.add(Severity::Warning, "server", what, section(help));
        }
        None if snapshot.servers == 1 => {
            let what = "one registration server is named: if its directory is lost, nodes cannot \
                join or renew their certificates";
            findings.add(Severity::Hint, "server", what.into(), section("Backup"));
        }
        None => {}
    }
    // With none that answers, those that are listed say nothing more.
    for listed in snapshot.report.servers.iter().filter(|_| server.error.is_none()) {
        let Some(error) = &listed.error else { continue };
        let (id, address) = (listed.id.get(..8).unwrap_or(&listed.id), &listed.address);
        let what = format!(
            "the registration server {id} at {address} does not answer ({error}); if another one \
             is lost too, nodes cannot join or renew their certificates"
        );
        findings.add(Severity::Warning, "server", what, section(ONE_SERVER_LOST));
    }
}

/// Clocks that are apart: of two nodes, or of a node and this machine.
fn clocks(snapshot: &Snapshot<'_>, findings: &mut Findings) {
    let known = snapshot.nodes.iter().filter_map(|node| Some((node.ahead_ms?, node)));
    let known: Vec<(i64, &Examined)> = known.collect();
    let first = known.iter().min_by_key(|(ahead, _)| *ahead);
    let last = known.iter().max_by_key(|(ahead, _)| *ahead);
    let (Some((low, slow)), Some((high, fast))) = (first, last) else { return };
    // Nothing is known of what is shorter than the way of the answers.
    let unsure = slow.trip_ms / 2 + fast.trip_ms / 2;
    let apart = high.abs_diff(*low).saturating_sub(unsure);
    let severity = |apart: u64| match apart {
        apart if apart >= APART_MS.1 => Some(Severity::Critical),
        apart if apart >= APART_MS.0 => Some(Severity::Warning),
        _ => None,
    };
    let help = "synchronise the machines' clocks (chrony, systemd-timesyncd)";
    if let Some(severity) = severity(apart) {
        let what = format!(
            "the clock of {} is {} ahead of that of {}",
            fast.name,
            duration_ms(apart),
            slow.name
        );
        findings.add(severity, "clock", what, help.into());
    } else if let Some(severity) = severity(low.unsigned_abs().saturating_sub(unsure)) {
        let what =
            format!("this machine's clock is {} from the nodes'", duration_ms(low.unsigned_abs()));
        findings.add(severity.max(Severity::Warning), "clock", what, help.into());
    }
}

fn keyspaces(snapshot: &Snapshot<'_>, findings: &mut Findings) {
    if let Err(why) = &snapshot.keyspaces {
        let what = format!("the keyspaces are not known, so their quotas were not examined: {why}");
        let help = "see that the control group has a majority, and run doctor again".to_owned();
        findings.add(Severity::Warning, "unexamined", what, help);
    }
    for KeyspaceUse { keyspace, bytes: used, .. } in snapshot.keyspaces.iter().flatten() {
        let Some(quota) = keyspace.settings.quota_bytes else { continue };
        let percent = percent(*used, quota);
        if percent >= NEARLY {
            let severity = if percent >= 100 { Severity::Critical } else { Severity::Warning };
            let what = format!(
                "keyspace {} uses {percent}% of its quota of {}",
                keyspace.name,
                bytes(quota)
            );
            let help = format!("dkv ADDRESS keyspace set {} --quota SIZE", keyspace.name);
            findings.add(severity, "quota", what, help);
        }
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// The machine and the process of a node.
fn machine(node: &Examined, diagnosis: &Diagnosis, findings: &mut Findings) {
    let name = &node.name;
    if let Some(disk) = diagnosis.disk {
        let left = percent(disk.free_bytes, disk.bytes);
        let below = |percent: u64, bytes: u64| left < percent || disk.free_bytes < bytes;
        let severity = match () {
            () if below(FREE_PERCENT.1, FREE_BYTES.1) => Some(Severity::Critical),
            () if below(FREE_PERCENT.0, FREE_BYTES.0) => Some(Severity::Warning),
            () => None,
        };
        if let Some(severity) = severity {
            let free = bytes(disk.free_bytes);
            let what = format!("the disk of {name} is nearly full: {free} ({left}%) are free");
            findings.add(severity, "disk", what, section("The disk is full"));
        }
        if disk.is_memory {
            let what = format!("the data directory of {name} is in memory: a restart loses it");
            let help = "move it to a disk (--data-dir); see docs/operations.md, \"A node moves\"";
            findings.add(Severity::Warning, "memory", what, help.into());
        }
    }
    if let Some(ends) = diagnosis.certificate_ends_ms {
        let left = ends.saturating_sub(diagnosis.clock_ms);
        if left < CERTIFICATE_MS.0 {
            let is_soon = left < CERTIFICATE_MS.1;
            let severity = if is_soon { Severity::Critical } else { Severity::Warning };
            let what = format!("the certificate of {name} ends at {}", timestamp(ends));
            let help = "see that the node reaches the registration server: it renews there";
            findings.add(severity, "certificate", what, help.into());
        }
    }
    if let Some((open, limit)) = diagnosis.files {
        if percent(open, limit) >= NEARLY {
            let what = format!("{name} has {open} of {limit} files open that it may have");
            findings.add(
                Severity::Critical,
                "files",
                what,
                "raise LimitNOFILE= of its unit".into(),
            );
        } else if limit < FILES_MIN {
            let what = format!("{name} may have only {limit} files open");
            findings.add(Severity::Hint, "files", what, "raise LimitNOFILE= of its unit".into());
        }
    }
    for (shard, leases) in &diagnosis.leases {
        if percent(*leases, LEASES_MAX as u64) >= NEARLY {
            let what = format!("shard {shard} has {leases} of {LEASES_MAX} leases (on {name})");
            let help = "dkv ADDRESS lease list; shorter times to live end them sooner";
            findings.add(Severity::Warning, "leases", what, help.into());
        }
    }
    let slow: u64 = diagnosis.slow_requests.iter().map(|(_, count)| count).sum();
    let most = diagnosis.slow_requests.iter().max_by_key(|(_, count)| *count);
    if let Some((stage, _)) = most {
        let requests = plural(slow, "request", "requests");
        let what = format!(
            "{name} has answered {slow} {requests} slowly since its start, mostly: {stage}"
        );
        findings.add(Severity::Hint, "slow", what, section("Slow requests"));
    }
}

/// Groups whose leader changes often and not on purpose, as their new leaders saw it.
fn leaders(node: &Examined, diagnosis: &Diagnosis, findings: &mut Findings) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for change in &diagnosis.leader_changes {
        let is_recent = diagnosis.clock_ms.saturating_sub(change.at_ms) < HOUR_MS;
        let is_unwanted = matches!(
            change.why,
            ChangeReason::Silent | ChangeReason::ProcessGone | ChangeReason::DiskStalled
        );
        if is_recent && is_unwanted {
            *counts.entry(change.group.0).or_default() += 1;
        }
    }
    for (group, count) in counts.into_iter().filter(|(_, count)| *count >= CHANGES) {
        let group = group_name(group);
        let what = format!("{} has seen {count} failovers of {group} within an hour", node.name);
        let help = "dkv ADDRESS explain KEY; see docs/operations.md, \"What to watch\"";
        findings.add(Severity::Warning, "failovers", what, help.into());
    }
}

#[cfg(test)]
mod tests;
