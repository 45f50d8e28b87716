//! The figures of a node, as Prometheus wants them.

use dkv_gateway::metrics::Exposition;
use dkv_node::Figures;
use dkv_wire::message::{GroupRole, GroupStatus};

/// Puts the figures into a text.
pub(crate) fn expose(figures: &Figures, text: &mut Exposition) {
    node(figures, text);
    requests(figures, text);
    groups(figures, text);
}

fn node(figures: &Figures, text: &mut Exposition) {
    let status = &figures.status;
    let id = status.id.to_string();
    let labels = [("id", id.as_str()), ("name", &status.name), ("version", &status.version)];
    text.gauge("dkv_node_info", "Who this node is; always 1.").put(&labels, 1_u64);
    text.gauge("dkv_node_uptime_seconds", "Time since the node started.")
        .put(&[], status.uptime_ms as f64 / 1000.0);
    text.gauge("dkv_node_disk_full", "Whether writes are refused for want of room on the disk.")
        .put(&[], status.disk_full);
    text.gauge("dkv_node_connections", "QUIC connections that are open.")
        .put(&[], figures.connections as u64);
    text.histogram("dkv_wal_fsync_duration_seconds", "Time of a write of the log with its sync.")
        .times(&[], &figures.syncs);
    text.counter("dkv_wal_entries_total", "Entries that were written to the log.")
        .put(&[], figures.entries_written);
    text.gauge("dkv_wal_bytes", "Bytes of the log on disk.").put(&[], status.log_bytes);
    text.gauge("dkv_wal_staged_bytes", "Bytes that wait to be written to the log.")
        .put(&[], figures.staged_bytes as u64);
}

fn requests(figures: &Figures, text: &mut Exposition) {
    let counted = &figures.counted;
    let mut family = text
        .counter("dkv_node_requests_total", "Requests that were answered, by what came of them.");
    for kind in &counted.requests {
        for (result, count) in kind.results.iter().filter(|(_, count)| *count > 0) {
            family.put(&[("kind", kind.kind), ("result", result)], *count);
        }
    }
    let mut family = text.histogram(
        "dkv_node_request_duration_seconds",
        "Time from a request to its answer on the way out.",
    );
    for kind in counted.requests.iter().filter(|kind| kind.times.count() > 0) {
        family.times(&[("kind", kind.kind)], &kind.times);
    }
    text.counter("dkv_node_received_bytes_total", "Bytes of requests.")
        .put(&[], counted.received_bytes);
    text.counter("dkv_node_sent_bytes_total", "Bytes of answers.").put(&[], counted.sent_bytes);
}

fn groups(figures: &Figures, text: &mut Exposition) {
    type Of = fn(&GroupStatus) -> u64;
    let gauges: [(&'static str, &str, Of); 9] = [
        ("dkv_raft_term", "The group's term here.", |group| group.term.0),
        ("dkv_raft_is_leader", "Whether this node leads the group.", |group| {
            u64::from(group.role == GroupRole::Leader)
        }),
        ("dkv_raft_has_leader", "Whether this node knows who leads the group.", |group| {
            u64::from(group.leader.is_some())
        }),
        ("dkv_raft_last_index", "Last entry of the log here.", |group| group.last_index),
        ("dkv_raft_applied_index", "Last entry that the state here has.", |group| {
            group.applied_index
        }),
        ("dkv_raft_apply_lag_entries", "Entries of the log that the state lacks.", |group| {
            group.last_index.saturating_sub(group.applied_index)
        }),
        ("dkv_raft_checkpoint_index", "Last entry that the newest checkpoint has.", |group| {
            group.checkpoint_index
        }),
        ("dkv_shard_keys", "Keys of the state.", |group| group.keys),
        ("dkv_shard_bytes", "Bytes of keys and values of the state.", |group| group.bytes),
    ];
    for (name, help, of) in gauges {
        let mut family = text.gauge(name, help);
        for group in &figures.status.groups {
            family.put(&[("group", &group.group.to_string())], of(group));
        }
    }
    let mut family =
        text.gauge("dkv_raft_committed_index", "Last entry that is known here to be committed.");
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
    let mut family = text.counter(
        "dkv_raft_leader_changes_total",
        "Leaders, each of a term, that were seen after the first.",
    );
    for group in &figures.groups {
        family.put(&[("group", &group.group.to_string())], group.leader_changes);
    }
    let mut family =
        text.gauge("dkv_shard_queue_length", "Requests that wait for a batch or a round.");
    for group in figures.groups.iter().filter(|group| group.group.is_shard()) {
        let id = group.group.to_string();
        family.put(&[("group", &id), ("queue", "writes")], group.writes_waiting as u64);
        family.put(&[("group", &id), ("queue", "reads")], group.reads_waiting as u64);
    }
}
