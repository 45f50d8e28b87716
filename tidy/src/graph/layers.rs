//! Layers: what may import what.
//!
//! The layers of the crates are written down here, and a crate may depend on crates of lower layers
//! only. Those of modules follow from their imports: a module stands one layer above the highest
//! that it imports.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::manifest::Manifest;

/// A layer: its name, and the crates in it.
pub type Layer = (&'static str, &'static [&'static str]);

/// The layers of the crates, from the top to the bottom.
pub const CRATES: &[Layer] = &[
    ("developer tools", &["dkv-bench", "sim", "dkv-inputs", "dkv-test-support", "tidy"]),
    ("command line", &["dkv"]),
    ("drills", &["dkv-drill"]),
    ("local networks", &["dkv-local"]),
    ("processes", &["dkv-daemon"]),
    ("roles", &["dkv-server", "dkv-node", "dkv-gateway", "dkv-etcd"]),
    ("backups", &["dkv-backup"]),
    ("client library", &["dkv-api"]),
    ("storage", &["dkv-wal", "dkv-state"]),
    ("messages", &["dkv-wire"]),
    ("listeners", &["dkv-listener"]),
    ("terminal", &["dkv-console"]),
    ("foundation", &["dkv-base", "dkv-bolt", "dkv-check"]),
];

/// Crates that are in no layer, each with its reason.
const OUTSIDE: &[(&str, &str)] = &[
    ("dkv-fuzz", "programs for a fuzzer, in a workspace of their own"),
    ("base2histogram", "takes the place of a dependency of openraft"),
];

/// Dependencies that would go downwards and are forbidden all the same.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("dkv-server", "dkv-api", "server and node know each other by messages only"),
    ("dkv-node", "dkv-api", "a node is no client of its own network"),
    ("dkv-gateway", "dkv-state", "a gateway is a client and knows no node"),
    ("dkv-gateway", "dkv-wal", "a gateway is a client and knows no node"),
    ("dkv-etcd", "dkv-state", "a face is a client and knows no node"),
    ("dkv-etcd", "dkv-wal", "a face is a client and knows no node"),
    ("dkv-backup", "dkv-state", "a backup is a client and knows no node"),
    ("dkv-wal", "dkv-wire", "the log knows no messages"),
    ("dkv-state", "quinn", "the state opens no connections"),
    ("dkv-state", "tokio", "the state has no tasks"),
    ("dkv-wal", "quinn", "the log opens no connections"),
];

/// Returns the layer of a crate, counted from zero at the top.
pub fn layer_of(name: &str) -> Option<usize> {
    CRATES.iter().position(|(_, crates)| crates.contains(&name))
}

/// Returns the dependencies that go upwards, and the crates that are in no layer.
pub fn check(manifests: &[Manifest]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests {
        let name = manifest.name.as_str();
        if OUTSIDE.iter().any(|(outside, _)| name == *outside) {
            continue;
        }
        let Some(own) = layer_of(name) else {
            let message = format!("{name} is in no layer; add it to tidy/src/graph/layers.rs");
            findings.push(Finding::new(&manifest.path, 1, message));
            continue;
        };
        for dependency in &manifest.dependencies {
            if layer_of(dependency).is_some_and(|layer| layer <= own) {
                let message = format!("{name} depends on {dependency}, which is not below it");
                findings.push(Finding::new(&manifest.path, 1, message));
            }
            for (from, to, reason) in FORBIDDEN {
                if name == *from && dependency == to {
                    let message = format!("{name} depends on {dependency}: {reason}");
                    findings.push(Finding::new(&manifest.path, 1, message));
                }
            }
        }
    }
    findings
}

/// Returns the layer of each node, counted from zero at the bottom: nodes that import nothing. The
/// nodes of a circle share the layer of the highest of them.
pub fn layers<'a>(
    nodes: &[&'a str],
    edges: &BTreeSet<(&'a str, &'a str)>,
) -> BTreeMap<&'a str, usize> {
    let mut layers: BTreeMap<&str, usize> = nodes.iter().map(|node| (*node, 0)).collect();
    // A longest way without a circle has fewer steps than there are nodes.
    for _ in 0..nodes.len() {
        let mut is_settled = true;
        for (from, to) in edges {
            let above = layers[to] + 1;
            if layers[from] < above && above < nodes.len() {
                layers.insert(from, above);
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    layers
}
