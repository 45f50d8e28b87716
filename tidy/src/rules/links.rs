//! Links that lead somewhere.
//!
//! In Markdown, relative links and their anchors are followed, and code spans that look like the
//! path of a source file must be the end of a path in the tree: `raft/log.rs` may stand for
//! `node/src/raft/log.rs`. The module `foo` stands for any. In Rust, comments that name a document
//! of `docs/` must name one that is there.

use std::collections::HashSet;

use crate::Finding;
use crate::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ends = ends_of_paths(tree);
    for file in tree.markdown() {
        for link in &file.as_markdown().links {
            if let Some(message) = broken(tree, file, &link.target) {
                findings.push(Finding::new(&file.path, link.line, message));
            }
        }
        for span in &file.as_markdown().spans {
            let is_path = span.code.ends_with(".rs") && span.code.chars().all(is_of_path);
            let is_path = is_path && !span.code.starts_with("foo");
            if is_path && !ends.contains(span.code.as_str()) {
                let message = format!("no file ends with `{}`; name one of the tree", span.code);
                findings.push(Finding::new(&file.path, span.line, message));
            }
        }
    }
    for file in tree.rust() {
        for (number, line) in file.source().lines.iter().enumerate() {
            for path in documents(&line.comment) {
                if !tree.contains(path) {
                    let message = format!("no document {path}; name one of docs/");
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
            }
        }
    }
    findings
}

/// Returns what is wrong with a link, if anything is.
fn broken(tree: &Tree, file: &File, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { file.path.clone() } else { join(&file.path, path) };
    if !tree.contains(&path) {
        return Some(format!("dead link to {path}; name a file of the tree"));
    }
    let there = tree.file(&path).filter(|file| file.path.ends_with(".md"))?;
    let anchors = &there.as_markdown().anchors;
    (!anchor.is_empty() && !anchors.iter().any(|known| known == anchor))
        .then(|| format!("no heading #{anchor} in {path}; link to one that is there"))
}

/// Returns `relative`, seen from the folder of `file`, as a path from the root.
fn join(file: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn is_of_path(character: char) -> bool {
    crate::rust::is_word(character) || matches!(character, '/' | '.' | '-')
}

/// Returns every end of every path, cut at its slashes.
fn ends_of_paths(tree: &Tree) -> HashSet<&str> {
    let paths = tree.files.iter().map(|file| file.path.as_str());
    paths
        .flat_map(|path| path.match_indices('/').map(|(at, _)| &path[at + 1..]).chain([path]))
        .collect()
}

/// Returns the documents of `docs/` that a comment names.
fn documents(comment: &str) -> impl Iterator<Item = &str> {
    comment
        .split(|character| !is_of_path(character))
        .filter_map(|word| {
            word.trim_end_matches('.').split_once("docs/").map(|(_, name)| (word, name))
        })
        .filter(|(_, name)| name.trim_end_matches('.').ends_with(".md"))
        .map(|(word, _)| {
            word.trim_end_matches('.').trim_start_matches("../").trim_start_matches('/')
        })
}
