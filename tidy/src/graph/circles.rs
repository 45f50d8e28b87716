//! Modules that import one another, and so can only be understood together.
//!
//! A parent and its children may: the children are its parts. Any other circle is a finding, and so
//! is one between folders: if something in `a/` imports `b` and something in `b/` imports `a`.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::graph::are_related;
use crate::graph::imports::{Import, imports};
use crate::graph::modules::{crates, parent};
use crate::tree::Tree;

/// Returns a finding for each import that is part of a circle.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for modules in crates(tree) {
        let imports = imports(&modules);
        for circle in circles(&imports) {
            let names: Vec<&str> = circle.modules.iter().map(String::as_str).collect();
            let names = names.join(", ");
            for import in &circle.imports {
                let Import { from, to, file, line } = import;
                let message = format!(
                    "{from} imports {to}, in a circle of {names}; move what both need below both"
                );
                findings.push(Finding::new(file, *line, message));
            }
        }
    }
    findings
}

/// Modules of which each imports each other one, directly or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle {
    /// The modules or folders of modules in the circle, all inside of one folder.
    pub modules: BTreeSet<String>,
    /// The imports between them.
    pub imports: Vec<Import>,
}

/// Returns the circles among the modules of each folder of a crate.
pub fn circles(imports: &[Import]) -> Vec<Circle> {
    let mut by_folder: BTreeMap<String, Vec<(String, String, &Import)>> = BTreeMap::new();
    for import in imports.iter().filter(|import| !are_related(&import.from, &import.to)) {
        let (folder, from, to) = siblings(&import.from, &import.to);
        by_folder.entry(folder).or_default().push((from, to, import));
    }
    let mut found = Vec::new();
    for edges in by_folder.values() {
        let graph = edges.iter().map(|(from, to, _)| (from.as_str(), to.as_str())).collect();
        for component in components(&graph) {
            let inside = |name: &String| component.contains(name.as_str());
            let within = edges.iter().filter(|(from, to, _)| inside(from) && inside(to));
            found.push(Circle {
                imports: within.map(|(_, _, import)| (*import).clone()).collect(),
                modules: component.into_iter().map(String::from).collect(),
            });
        }
    }
    found
}

/// Returns the innermost folder that holds both modules, and the two in it that hold one each.
pub fn siblings(one: &str, other: &str) -> (String, String, String) {
    let mut folder = parent(one);
    while !folder.is_empty() && !other.starts_with(&format!("{folder}::")) {
        folder = parent(folder);
    }
    let length = if folder.is_empty() { 1 } else { folder.split("::").count() + 1 };
    let cut = |path: &str| path.split("::").take(length).collect::<Vec<_>>().join("::");
    (folder.into(), cut(one), cut(other))
}

/// Returns the sets of two or more nodes of which each can be reached from each other one.
fn components<'a>(edges: &BTreeSet<(&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let nodes: BTreeSet<&str> = edges.iter().flat_map(|(from, to)| [*from, *to]).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        nodes.iter().map(|node| (*node, reachable(edges, node))).collect();
    let mut components: Vec<BTreeSet<&str>> = Vec::new();
    for node in &nodes {
        let both =
            |other: &&&str| reached[*node].contains(**other) && reached[**other].contains(*node);
        let component: BTreeSet<&str> = nodes.iter().filter(both).copied().collect();
        if component.len() > 1 && !components.contains(&component) {
            components.push(component);
        }
    }
    components
}

/// Returns the nodes that can be reached from `begin` in one step or more.
fn reachable<'a>(edges: &BTreeSet<(&'a str, &'a str)>, begin: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![begin];
    while let Some(node) = open.pop() {
        for (_, to) in edges.iter().filter(|(from, _)| *from == node) {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}
