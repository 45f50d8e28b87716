//! Crates that say what they are for, forbid unsafe code, and import downwards only.

use crate::Finding;
use crate::graph::layers;
use crate::manifest::{manifests, workspace_forbids_unsafe};
use crate::tree::Tree;

/// Crates that may hold unsafe code, each with its reason.
const UNSAFE: &[(&str, &str)] = &[("dkv-fuzz", "the macro of libFuzzer expands to it")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let workspace_forbids = workspace_forbids_unsafe(tree);
    let manifests = manifests(tree);
    for manifest in &manifests {
        let mut report = |message: &str| findings.push(Finding::new(&manifest.path, 1, message));
        if manifest.description.is_empty() {
            report("no description; say in one line what the crate is for");
        }
        let root = ["lib", "main"]
            .iter()
            .find_map(|root| tree.file(&format!("{}/src/{root}.rs", manifest.folder)));
        let root_forbids = root.is_some_and(|root| root.text.contains("#![forbid(unsafe_code)]"));
        let lints_forbid = manifest.has_workspace_lints && workspace_forbids;
        let may = UNSAFE.iter().any(|(name, _)| *name == manifest.name);
        if !root_forbids && !lints_forbid && !may {
            report("unsafe code is not forbidden; take the lints of the workspace");
        }
    }
    findings.extend(layers::check(&manifests));
    findings
}
