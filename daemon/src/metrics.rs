//! The metrics of a node, for Prometheus.

use dkv_gateway::metrics::Exposition;
use dkv_node::Figures;
use dkv_wire::message::{GroupRole, GroupStatus};

#[cfg(test)]
mod tests;

/// Writes the metrics to a text.
pub(crate) fn expose(figures: &Figures, text: &mut Exposition) {
    node(figures, text);
    requests(figures, text);
    groups(figures, text);
}

fn node(figures: &Figures, text: &mut Exposition) {
    let status = &figures.status;
    let id = status.id.to_string();
    let labels = [("id", id.as_str()), ("name", &status.name), ("version", &status.version)];
    text.gauge("dkv_node_info", "The identity of this node; always 1.").put(&labels, 1_u64);
    text.gauge("dkv_node_uptime_seconds", "Time since the node started.")
        .put(&[], status.uptime_ms as f64 / 1000.0);
    text.gauge("dkv_node_disk_full", "Whether writes are refused because the disk is full.")
        .put(&[], status.disk_full);
    text.gauge("dkv_node_connections", "Open QUIC connections.")
        .put(&[], figures.connections as u64);
    text.histogram("dkv_wal_fsync_duration_seconds", "Time of a log write with its fsync.")
        .times(&[], &figures.syncs);
    text.counter("dkv_wal_entries_total", "Entries written to the log.")
        .put(&[], figures.entries_written);
    text.gauge("dkv_wal_bytes", "Bytes of the log on disk.").put(&[], status.log_bytes);
    text.gauge("dkv_wal_staged_bytes", "Bytes waiting to be written to the log.")
        .put(&[], figures.staged_bytes as u64);
}

fn requests(figures: &Figures, text: &mut Exposition) {
    let counted = &figures.counted;
    let mut family = text.counter("dkv_node_requests_total", "Answered requests, by result.");
    for kind in &counted.requests {
        for (result, count) in kind.results.iter().filter(|(_, count)| *count > 0) {
            family.put(&[("kind", kind.kind), ("result", result)], *count);
        }
    }
    let mut family = text.histogram(
        "dkv_node_request_duration_seconds",
        "Time from a request to sending its answer.",
    );
    for kind in counted.requests.iter().filter(|kind| kind.times.count() > 0) {
        family.times(&[("kind", kind.kind)], &kind.times);
    }
    let mut family = text.counter(
        "dkv_slow_requests_total",
        "Requests over the bound of slow ones, by the stage that took longest.",
    );
    for (stage, count) in &counted.slow_requests {
        family.put(&[("stage", stage)], *count);
    }
    text.counter("dkv_node_received_bytes_total", "Bytes of requests.")
        .put(&[], counted.received_bytes);
    text.counter("dkv_node_sent_bytes_total", "Bytes of answers.").put(&[], counted.sent_bytes);
}

fn groups(figures: &Figures, text: &mut Exposition) {
    type Value = fn(&GroupStatus) -> u64;
    let gauges: [(&'static str, &str, Value); 9] = [
        ("dkv_raft_term", "Term of the group on this node.", |group| group.term.0),
        ("dkv_raft_is_leader", "Whether this node leads the group.", |group| {
            u64::from(group.role == GroupRole::Leader)
        }),
        (
            "dkv_raft_has_leader",
            "Whether this node knows who leads the group with a majority.",
            |group| u64::from(group.has_leader()),
        ),
        ("dkv_raft_last_index", "Last entry of the log on this node.", |group| group.last_index),
        ("dkv_raft_applied_index", "Last entry applied to the state on this node.", |group| {
            group.applied_index
        }),
        ("dkv_raft_apply_lag_entries", "Entries of the log that are not applied yet.", |group| {
            group.last_index.saturating_sub(group.applied_index)
        }),
        ("dkv_raft_checkpoint_index", "Last entry in the newest checkpoint.", |group| {
            group.checkpoint_index
        }),
        ("dkv_shard_keys", "Keys in the state.", |group| group.keys),
        ("dkv_shard_bytes", "Bytes of keys and values in the state.", |group| group.bytes),
    ];
    for (name, help, value) in gauges {
        let mut family = text.gauge(name, help);
        for group in &figures.status.groups {
            family.put(&[("group", &group.group.to_string())], value(group));
        }
    }
    let mut family =
        text.gauge("dkv_raft_committed_index", "Last entry that this node knows to be committed.");
    for group in &figures.groups {
        family.put(&[("group", &group.group.to_string())], group.committed_index);
    }
    let mut family = text.gauge(
        "dkv_raft_replica_lag_entries",
        "Entries of a leader's log that a member has not acknowledged.",
    );
    for group in &figures.status.groups {
        for replica in &group.replicas {
            let (id, node) = (group.group.to_string(), replica.node.to_string());
            let lag = group.last_index.saturating_sub(replica.matched_index);
            family.put(&[("group", &id), ("node", &node)], lag);
        }
    }
    let mut family =
        text.counter("dkv_raft_leader_changes_total", "Changes of leader seen by this node.");
    for group in &figures.groups {
        family.put(&[("group", &group.group.to_string())], group.leader_changes);
    }
    let mut family =
        text.gauge("dkv_shard_queue_length", "Requests waiting for a batch or a quorum round.");
    for group in figures.groups.iter().filter(|group| group.group.is_shard()) {
        let id = group.group.to_string();
        family.put(&[("group", &id), ("queue", "writes")], group.writes_waiting as u64);
        family.put(&[("group", &id), ("queue", "reads")], group.reads_waiting as u64);
    }
}
