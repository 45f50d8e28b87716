//! Libraries that the architecture confines to one place, so that they can be replaced there.

use crate::Finding;
use crate::rust::is_word;
use crate::tree::Tree;

/// A library, the folders whose code may name it, and the reason.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("openraft", &["node/src/raft"], "the rest of the node knows groups, not the Raft library"),
    ("fjall", &["state/src/engine"], "the state knows tables, not the engine below them"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_unit_test()) {
        for (library, folders, reason) in CONFINED {
            let may = |folder: &&str| {
                file.path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with(['/', '.']))
            };
            if folders.iter().any(may) {
                continue;
            }
            let names = |code: &str| {
                code.match_indices(library).any(|(index, _)| {
                    let after = &code[index + library.len()..];
                    let before = code[..index].chars().next_back().unwrap_or(' ');
                    !is_word(before) && after.starts_with("::")
                })
            };
            for (number, line) in file.source().lines.iter().enumerate() {
                if names(&line.code) {
                    let place = folders.join(" or ");
                    let message = format!("`{library}` outside of {place}: {reason}");
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
            }
        }
    }
    findings
}
