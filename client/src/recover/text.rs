//! What `recover` shows to people.

use std::path::Path;

use dkv_console::units::{bytes, timestamp};
use dkv_daemon::recovery::{GroupReport, ReplicaReport, Report};

/// Describes what was found, what will be done, and what may be lost.
pub(super) fn plan(report: &Report) -> String {
    let mut lines = vec![format!("network {}", report.network)];
    if report.undoes {
        lines.push("note    a recovery was cut off here; it is taken back first".to_owned());
    }
    for directory in &report.directories {
        lines.push(format!("left    {} in {}", directory.name, directory.path.display()));
    }
    for node in &report.missing {
        let at = node.addresses.join(", ");
        let sign = node.sign_of_life.as_deref().unwrap_or("nothing answers there");
        let heard = node.server_heard_ms.map(timestamp);
        let heard = heard.map_or_else(String::new, |at| format!("; the server heard it at {at}"));
        lines.push(format!("lost    {} at {at}: {sign}{heard}", node.name));
    }
    match &report.server {
        None => lines.push("server  not asked: no address was given".to_owned()),
        Some(server) => match &server.problem {
            Some(why) => lines.push(format!("server  {} does not tell: {why}", server.address)),
            None => lines.push(format!("server  {} was asked", server.address)),
        },
    }
    if report.groups.is_empty() {
        return lines.join("\n");
    }
    lines.push(String::new());
    lines.push(table(&report.groups));
    lines.push(String::new());
    for group in &report.groups {
        lines.push(fate(group));
    }
    lines.push(String::new());
    lines.push("may be lost:".to_owned());
    lines.extend(report.may_be_lost.iter().map(|what| format!("- {what}")));
    lines.join("\n")
}

/// Describes what was done, and what comes next.
pub(super) fn done(report: &Report, file: &Path) -> String {
    let what = match (report.groups.is_empty(), report.undoes) {
        (false, _) => "recovered",
        (true, true) => "the recovery was taken back",
        (true, false) => "the recovery was finished already, and all directories say so now",
    };
    let mut lines = vec![format!("{what}; the report is in {}", file.display())];
    lines.extend(report.next.iter().map(|what| format!("- {what}")));
    lines.join("\n")
}

fn name(group: &GroupReport) -> String {
    match &group.keyspace {
        None => "control group".to_owned(),
        Some(keyspace) => format!("shard {} ({keyspace})", group.group),
    }
}

fn fate(group: &GroupReport) -> String {
    let (name, voters) = (name(group), group.voters.join(", "));
    let keeper = group.keeper.as_deref().unwrap_or("nobody");
    match group.fate {
        "recovered" if group.lost_voters.is_empty() => {
            format!("{name}: goes on with {keeper} alone, and grows again (voters {voters})")
        }
        "recovered" => format!(
            "{name}: goes on with {keeper} alone (voters {voters}; lost {})",
            group.lost_voters.join(", ")
        ),
        "serves" => format!("{name}: a majority of {voters} is left, so nothing is lost"),
        "empty" => format!("{name}: NO REPLICA is left of {voters}; begins anew on {keeper}"),
        _ => format!("{name}: has never begun, so nothing is lost"),
    }
}

fn table(groups: &[GroupReport]) -> String {
    let heading = [
        "GROUP",
        "NODE",
        "TERM",
        "LAST",
        "COMMITTED",
        "REVISION",
        "KEYS",
        "DATA",
        "LAST WRITE",
        "",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for group in groups {
        for replica in &group.replicas {
            rows.push(row(group, replica));
        }
        if group.replicas.is_empty() {
            let mut row: [String; 10] = Default::default();
            (row[0], row[1]) = (group.group.to_string(), "none".to_owned());
            rows.push(row);
        }
    }
    let widths: Vec<usize> =
        (0..10).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(group: &GroupReport, replica: &ReplicaReport) -> [String; 10] {
    let is_keeper = group.keeper.as_ref() == Some(&replica.name);
    let remark = match (replica.whole, is_keeper, replica.votes) {
        (false, ..) => "incomplete",
        (true, true, true) => "goes on",
        (true, true, false) => "goes on (did not vote)",
        (true, false, _) => "",
    };
    let is_control = group.group == 0;
    let of_shard = |text: String| if is_control { "-".to_owned() } else { text };
    [
        if is_control { "control".to_owned() } else { group.group.to_string() },
        replica.name.clone(),
        replica.term.to_string(),
        format!("{}.{}", replica.last_term, replica.last_index),
        replica.committed_index.to_string(),
        replica.revision.to_string(),
        of_shard(replica.keys.to_string()),
        of_shard(bytes(replica.bytes)),
        of_shard(replica.last_write_ms.map_or_else(|| "never".to_owned(), timestamp)),
        remark.to_owned(),
    ]
}
