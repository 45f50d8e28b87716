//! A story at the head of every module: what it is for, how it works.
//!
//! Unit tests need none: they tell the story of the module that they lie beside.

use crate::Finding;
use crate::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_unit_test()) {
        let first = file.text.lines().find(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("#![") && !is_plain_comment(line)
        });
        if !first.is_some_and(|line| line.starts_with("//!")) {
            let message = "no module header; begin with `//!` and what the module is for";
            findings.push(Finding::new(&file.path, 1, message));
        }
    }
    findings
}

fn is_plain_comment(line: &str) -> bool {
    line.starts_with("//") && !line.starts_with("//!") && !line.starts_with("///")
}
