//! A story at the head of every module: what it is for, how it works.
//!
//! Unit tests need none: they tell the story of the module that they lie beside.

use crate::Finding;
use crate::tree::Tree;

/// Files without a header, each with its reason.
const EXEMPT: &[(&str, &str)] =
    &[("dkv-api/tests/network/fake.rs", "examples include it, where a header is a syntax error")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_unit_test()) {
        if EXEMPT.iter().any(|(path, _)| *path == file.path) {
            continue;
        }
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
