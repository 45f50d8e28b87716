//! Source files that can be read in one sitting: 600 lines at most, better 300.

use crate::Finding;
use crate::tree::Tree;

const LINES_MAX: usize = 600;
const LINES_TO_WARN_AT: usize = 450;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    longer_than(tree, LINES_MAX, "split it by concern")
}

/// Returns the files that come near the bound.
pub fn warnings(tree: &Tree) -> Vec<Finding> {
    longer_than(tree, LINES_TO_WARN_AT, "it may grow to 600; aim at 300")
}

fn longer_than(tree: &Tree, lines_max: usize, advice: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let is_source = [".rs", ".js", ".css", ".sh"].iter().any(|end| file.path.ends_with(end));
        let is_allowed = LONGER.iter().any(|(path, _)| *path == file.path);
        let lines = file.text.lines().count();
        if is_source && lines > lines_max && !is_allowed && !file.is_generated() {
            findings.push(Finding::new(&file.path, lines, format!("{lines} lines; {advice}")));
        }
    }
    findings
}
