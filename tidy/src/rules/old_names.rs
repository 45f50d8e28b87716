//! Names of modules that were given up for the field's terms.
//!
//! The list keeps them from coming back, and says what each is called now.

use crate::Finding;
use crate::tree::Tree;

/// Folder below which the name was given up, the name, and what it is called now.
const OLD: &[(&str, &str, &str)] = &[
    ("", "lookout", "failure_detector"),
    ("", "hearing", "liveness"),
    ("", "pulse", "heartbeat coalescing"),
    ("", "rest", "quiescence"),
    ("", "pace", "timeout scaling"),
    ("", "sparing", "learner heartbeats"),
    ("", "metronome", "heartbeat ticker"),
    ("", "rhythm", "shared ticks"),
    ("node/", "drive", "adapter"),
    ("node/src/raft/", "service", "handlers"),
    ("node/src/raft/", "session", "append_stream"),
    ("node/src/raft/", "machine", "state_machine"),
    ("node/", "leadership", "read_index"),
    ("", "promises", "durability check"),
    ("", "freshness", "staleness"),
    ("", "graves", "tombstones of keys"),
    ("", "former", "tombstones of replicas"),
    ("", "departures", "replica removal"),
    ("", "stewards", "membership reconciler"),
    ("", "placing", "rebalancer"),
    ("", "measuring", "node reports"),
    ("", "turns", "in-flight window"),
    ("", "rounds", "quorum rounds"),
    ("node/", "book", "ledger"),
    ("", "keep", "credential store"),
    ("", "held", "inspect"),
    ("", "residence", "value cache"),
    ("node/", "ask", "rpc"),
    ("node/", "admission", "enrolment"),
    ("node/", "registration", "server link"),
    ("", "reign", "leader since"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let module = file.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let module = module.rsplit('/').next().unwrap_or(module);
        for (folder, old, new) in OLD {
            if module == *old && file.path.starts_with(folder) {
                let message = format!("`{old}` is an old name; the term is {new}");
                findings.push(Finding::new(&file.path, 1, message));
            }
        }
    }
    findings
}
