//! One convention for the files of modules: `foo.rs` beside `foo/`, never `foo/mod.rs`, and no
//! `#[path]`.
//!
//! Folders below `tests/` of a crate are an exception, as cargo asks for it: there every `.rs` file
//! is a test of its own, and `mod.rs` keeps a shared module from becoming one.

use crate::Finding;
use crate::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        if file.path.ends_with("/mod.rs") && !is_shared_by_tests(&file.path) {
            let folder = file.path.trim_end_matches("/mod.rs");
            let message = format!("a `mod.rs`; move it to {folder}.rs");
            findings.push(Finding::new(&file.path, 1, message));
        }
        for (number, line) in file.source().lines.iter().enumerate() {
            if line.code.trim_start().starts_with("#[path") {
                let message = "`#[path]`; put the file where its module is looked for";
                findings.push(Finding::new(&file.path, number + 1, message));
            }
        }
    }
    findings
}

/// Returns whether `path` is `CRATE/tests/FOLDER/mod.rs`.
fn is_shared_by_tests(path: &str) -> bool {
    let parts: Vec<&str> = path.rsplit('/').collect();
    !path.contains("src/") && parts.get(2) == Some(&"tests")
}
