//! The report as tables for people.

use dkv_console::units::{bytes, duration_ms, number, timestamp};
use dkv_console::{Tone, paint};
use dkv_gateway::status::{
    Group, ListedServer, Move, Node, Replica, Report, Role, tolerated_failures,
};
use dkv_wire::message::MoveStep;
use dkv_wire::network::NodeState;

use super::table::{self, Cell, column};

/// Number of learners of a group to show by name.
const LEARNERS_SHOWN: usize = 3;

type Paint<'a> = &'a dyn Fn(Tone, &str) -> String;

/// Renders the whole report: heading, nodes and shards. Without a width, no column is omitted.
pub(crate) fn render(report: &Report, width: Option<usize>, colour: bool) -> String {
    let paint = painter(colour);
    let mut parts = vec![heading(report, width, &paint)];
    if !report.nodes.is_empty() {
        parts.push(nodes(report, width, &paint));
    }
    if !report.groups.is_empty() {
        parts.push(groups(report, width, &paint));
    }
    parts.join("\n")
}

/// Renders only the nodes.
pub(crate) fn render_nodes(report: &Report, width: Option<usize>, colour: bool) -> String {
    if report.nodes.is_empty() {
        return "no nodes have registered yet; start one with dkv node".into();
    }
    nodes(report, width, &painter(colour))
}

fn painter(colour: bool) -> impl Fn(Tone, &str) -> String {
    move |tone, text| paint(colour, tone, text)
}

fn heading(report: &Report, width: Option<usize>, paint: Paint<'_>) -> String {
    let mut text = String::new();
    let mut line = |label: &str, content: String| {
        let label = paint(Tone::Dim, &format!("{label:<12}"));
        text.push_str(&format!("{label}{content}\n"));
    };
    let network = report.network.as_deref().and_then(|id| id.get(..8)).unwrap_or("unknown");
    line("network", paint(Tone::Strong, network));
    line("server", server(report, paint));
    // The line above is about the only one.
    if report.servers.len() > 1 {
        report.servers.iter().for_each(|listed| line("", listed_server(listed, paint)));
    }
    line("coordinator", coordinator(report, paint));
    line("failures", failures(report, paint));
    if !report.moves.is_empty() {
        let moving: Vec<String> = report.moves.iter().map(moving).collect();
        line("moving", shorten(&moving));
    }
    for warning in &report.warnings {
        let mut label = "!";
        for part in wrap(warning, width.map(|width| width.saturating_sub(12).max(20))) {
            line(label, paint(Tone::Warning, &part));
            label = "";
        }
    }
    text
}

fn server(report: &Report, paint: Paint<'_>) -> String {
    let server = &report.server;
    if !server.reachable {
        return format!("{}  {}", server.address, paint(Tone::Bad, "not responding"));
    }
    let version = server.version.as_deref().unwrap_or("?");
    let uptime = server.uptime_ms.map_or_else(|| "?".into(), duration_ms);
    let mut text =
        format!("{}  {}  version {version}, up {uptime}", server.address, paint(Tone::Good, "up"));
    if let Some(age) = server.report_age_ms {
        text.push_str(&format!(", last report {} ago", duration_ms(age)));
    }
    text
}

fn listed_server(server: &ListedServer, paint: Paint<'_>) -> String {
    let id = server.id.get(..8).unwrap_or(&server.id);
    let state = match server.reachable {
        true => paint(Tone::Good, "up"),
        false => paint(Tone::Bad, "not responding"),
    };
    let mut text = format!("{id}  {}  {state}", server.address);
    if let Some(uptime_ms) = server.uptime_ms {
        text.push_str(&format!(" {}", duration_ms(uptime_ms)));
    }
    text
}

fn coordinator(report: &Report, paint: Paint<'_>) -> String {
    let Some(coordinator) = &report.coordinator else {
        let why = if report.nodes.is_empty() { "no node has registered yet" } else { "none now" };
        return paint(Tone::Warning, why);
    };
    let mut text = format!("{}  term {}", paint(Tone::Strong, &coordinator.name), coordinator.term);
    if !coordinator.reachable {
        text.push_str(&paint(Tone::Bad, "  not responding"));
    }
    let server = &report.server;
    match (coordinator.confirmed_at_ms, &server.confirmed_coordinator, server.confirmed_term) {
        (Some(at), ..) if !coordinator.reachable => {
            text.push_str(&format!("; last confirmed {}", timestamp(at)));
        }
        (Some(at), ..) => {
            text.push_str(&format!("  confirmed by the server at {}", timestamp(at)));
        }
        (None, Some(name), Some(term)) => {
            let at = server
                .confirmed_at_ms
                .map_or_else(String::new, |at| format!(", at {}", timestamp(at)));
            text.push_str(&format!("  the server last confirmed {name} in term {term}{at}"));
        }
        // A warning already mentions that the server does not answer.
        (None, ..) if !server.reachable => {}
        (None, ..) => text.push_str(&paint(Tone::Warning, "  not confirmed by the server")),
    }
    text
}

fn failures(report: &Report, paint: Paint<'_>) -> String {
    match report.may_fail {
        None => paint(Tone::Warning, "not known: no group of nodes answers"),
        Some(_) if !report.available => {
            let lost = report.without_majority();
            let text = if lost.is_empty() {
                format!("none may fail now: no leader in {}", shorten(&report.without_leader()))
            } else {
                format!("too many have failed: no majority in {}", shorten(&lost))
            };
            paint(Tone::Bad, &text)
        }
        Some(count) => {
            let tone = if count == 0 { Tone::Warning } else { Tone::Good };
            paint(tone, &tolerated_failures(count))
        }
    }
}

/// Describes the move of a replica.
pub(crate) fn moving(it: &Move) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    let way = match (&it.from, &it.to) {
        (None, Some(to)) => format!("to {to}"),
        (from, None) => format!("from {}", name(from)),
        (from, to) => format!("{} to {}", name(from), name(to)),
    };
    let step = match it.step {
        MoveStep::Waiting => "waiting".to_owned(),
        MoveStep::Learning => {
            let percent = it.matched_index * 100 / it.last_index.max(1);
            format!("learning, {percent}% of {}", bytes(it.data_bytes))
        }
        MoveStep::Promoting => "promoting".to_owned(),
        MoveStep::Removing => "removing".to_owned(),
    };
    format!("shard {} {way} ({step})", it.group)
}

fn shorten(names: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    match names.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN_MAX].join(", ")),
    }
}

/// Index of the column for regions, if the network has any.
const REGION_AT: usize = 1;

fn nodes(report: &Report, width: Option<usize>, paint: Paint<'_>) -> String {
    // Networks without regions do not show the column.
    let regions = report.nodes.iter().any(|node| node.region.is_some());
    let mut columns = vec![
        column("NODE"),
        column("ROLE"),
        column("STATE"),
        column("ADDRESS"),
        column("PRIMARY OF"),
        column("LAG").right(),
        column("KEYS").right().expendable(1),
        column("DATA").right().expendable(5),
        column("LOG").right().expendable(3),
        column("FSYNC").right().expendable(2),
        column("UP").right().expendable(4),
    ];
    let mut rows: Vec<Vec<Cell>> = report.nodes.iter().map(node).collect();
    if regions {
        columns.insert(REGION_AT, column("REGION"));
        for (row, node) in rows.iter_mut().zip(&report.nodes) {
            row.insert(REGION_AT, or_dash(node.region.as_ref().map(ToString::to_string)));
        }
    }
    table::render(&columns, &rows, width, paint)
}

fn or_dash(text: Option<String>) -> Cell {
    Cell::new(text.unwrap_or_else(|| "-".into()))
}

fn node(node: &Node) -> Vec<Cell> {
    let role = match node.role {
        Role::Coordinator => Cell::new("coordinator").tone(Tone::Strong),
        Role::Replicant => Cell::new("replicant"),
    };
    let state = match (node.reachable, node.state) {
        (false, NodeState::Live | NodeState::Joining | NodeState::Suspect) => {
            Cell::new("unreachable").tone(Tone::Bad)
        }
        (true, _) if node.retiring => Cell::new("leaving").tone(Tone::Warning),
        (true, _) if node.draining && node.may_stop == Some(true) => Cell::new("drained"),
        (true, _) if node.draining => Cell::new("draining").tone(Tone::Warning),
        (_, NodeState::Down) => Cell::new("down").tone(Tone::Bad),
        (_, NodeState::Live) => Cell::new("live").tone(Tone::Good),
        (_, state) => Cell::new(state.to_string()).tone(Tone::Warning),
    };
    vec![
        Cell::new(&node.name),
        role,
        state,
        Cell::new(node.address.to_string()),
        Cell::new(ranges(&node.primaries)),
        or_dash(lag(node.log_lag, node.applied_lag)),
        or_dash(node.keys.map(number)),
        or_dash(node.data_bytes.map(bytes)),
        or_dash(node.log_bytes.map(bytes)),
        or_dash(
            node.fsync_us
                .map(|us| dkv_console::units::duration(std::time::Duration::from_micros(us))),
        ),
        or_dash(node.uptime_ms.map(duration_ms)),
    ]
}

fn groups(report: &Report, width: Option<usize>, paint: Paint<'_>) -> String {
    let columns = [
        column("SHARD"),
        column("PRIMARY"),
        column("TERM").right(),
        column("REVISION").right(),
        column("KEYS").right(),
        column("DATA").right().expendable(1),
        column("VOTERS, LAG"),
    ];
    let rows: Vec<Vec<Cell>> = report.groups.iter().map(group).collect();
    let legend = "lag: entries behind the primary's log, of the replica's log/of its state";
    format!("{}{}\n", table::render(&columns, &rows, width, paint), paint(Tone::Dim, legend))
}

fn group(group: &Group) -> Vec<Cell> {
    let control = group.group == 0;
    let of_shard = |text: Option<String>| or_dash(text.filter(|_| !control));
    let mut members: Vec<String> = group.voters.iter().map(member).collect();
    // Every node follows the control group, so many learners are only counted.
    match group.learners.len() {
        0..=LEARNERS_SHOWN => {
            let learners = group.learners.iter();
            members.extend(learners.map(|learner| format!("{} (learner)", member(learner))));
        }
        many => members.push(format!("{many} learners")),
    }
    let tone = match group.spare {
        Some(spare) if spare < 0 => Tone::Bad,
        _ if group.voters.iter().any(|voter| !voter.reachable) => Tone::Warning,
        _ => Tone::Plain,
    };
    let name = if control { "control".into() } else { group.group.to_string() };
    let primary = match &group.primary {
        Some(name) => Cell::new(name),
        None => Cell::new("none").tone(Tone::Bad),
    };
    vec![
        Cell::new(name),
        primary,
        or_dash(group.term.map(|term| term.to_string())),
        of_shard(group.revision.map(number)),
        of_shard(group.keys.map(number)),
        of_shard(group.data_bytes.map(bytes)),
        Cell::new(members.join("  ")).tone(tone),
    ]
}

fn member(replica: &Replica) -> String {
    match lag(replica.log_lag, replica.applied_lag) {
        _ if !replica.reachable => format!("{} unreachable", replica.name),
        Some(lag) => format!("{} {lag}", replica.name),
        None => format!("{} ?", replica.name),
    }
}

/// Formats the lag of log and state; one number if both are equal.
fn lag(log: Option<u64>, applied: Option<u64>) -> Option<String> {
    match (log, applied) {
        (Some(log), Some(applied)) if log == applied => Some(log.to_string()),
        (Some(log), Some(applied)) => Some(format!("{log}/{applied}")),
        (Some(log), None) => Some(log.to_string()),
        (None, _) => None,
    }
}

/// Formats ascending numbers as ranges: `1-3,7`.
fn ranges(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    if runs.is_empty() {
        return "-".into();
    }
    let run = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

/// Wraps a text at blanks.
fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let length = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && width.is_some_and(|width| length > width) {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
