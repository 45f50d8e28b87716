//! The lock file of `fuzz/`, which is outside of the workspace: nothing but a fuzzer's build reads
//! it, so it goes stale in silence when one of our crates takes or drops a dependency.
//!
//! Each of our crates in it must have the version and, but for those of its tests, the dependencies
//! that it has in the workspace. Optional dependencies may be missing.

use std::collections::BTreeSet;

use crate::Finding;
use crate::manifest::{Manifest, manifests};
use crate::tree::Tree;

const WORKSPACE: &str = "Cargo.lock";
const FUZZ: &str = "fuzz/Cargo.lock";
const ADVICE: &str = "run `cargo update --workspace --manifest-path fuzz/Cargo.toml`";

/// A package of a lock file.
struct Package<'a> {
    line: usize,
    name: &'a str,
    version: &'a str,
    dependencies: BTreeSet<&'a str>,
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let (Some(workspace), Some(fuzz)) = (tree.file(WORKSPACE), tree.file(FUZZ)) else {
        return Vec::new();
    };
    let known = packages(&workspace.text);
    let manifests = manifests(tree);
    let mut findings = Vec::new();
    for package in packages(&fuzz.text) {
        let Some(manifest) = manifests.iter().find(|of| of.name == package.name) else { continue };
        let Some(here) = known.iter().find(|of| of.name == package.name) else { continue };
        for difference in differences(&package, here, manifest) {
            let message = format!("{}: {difference}; {ADVICE}", package.name);
            findings.push(Finding::new(FUZZ, package.line, message));
        }
    }
    findings
}

/// Returns in what a package of the fuzzer's lock file differs from that of the workspace.
fn differences(there: &Package, here: &Package, manifest: &Manifest) -> Vec<String> {
    let mut differences = Vec::new();
    if there.version != here.version {
        differences.push(format!("version {} is {} now", there.version, here.version));
    }
    let gone = there.dependencies.difference(&here.dependencies);
    differences.extend(gone.map(|name| format!("does not depend on {name} any more")));
    let wanted = manifest.dependencies.iter().map(String::as_str);
    let missing = wanted.filter(|name| {
        here.dependencies.contains(name)
            && !there.dependencies.contains(name)
            && !manifest.optional.iter().any(|optional| optional == name)
    });
    differences.extend(missing.map(|name| format!("depends on {name} now")));
    differences
}

/// Reads the packages of a lock file.
fn packages(text: &str) -> Vec<Package<'_>> {
    let mut packages: Vec<Package> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line == "[[package]]" {
            let dependencies = BTreeSet::new();
            packages.push(Package { line: number + 1, name: "", version: "", dependencies });
            continue;
        }
        let Some(package) = packages.last_mut() else { continue };
        if let Some((key, value)) = line.split_once(" = ") {
            let value = value.trim_matches('"');
            match key {
                "name" => package.name = value,
                "version" => package.version = value,
                _ => {}
            }
        } else if let Some(dependency) = line.trim().strip_prefix('"') {
            // Of two versions of a package, each dependency names its own behind a blank.
            let name = dependency.split([' ', '"']).next().unwrap_or_default();
            package.dependencies.insert(name);
        }
    }
    packages
}
