//! Links that lead somewhere.
//!
//! In Markdown, relative links and their anchors are followed, and code spans that look like the
//! path of a source file must be the end of a path in the tree: `raft/log.rs` may stand for
//! `node/src/raft/log.rs`. The module `foo` stands for any. In Rust, comments that name a document
//! of `docs/` must name one that is there, and code spans of comments are checked as those of
//! Markdown are.
//!
//! A code span such as `raft::log::tests::a_log_grows` names a test: the end of a module's path,
//! and a function of its tests. This crate makes up its samples, so its comments are exempt.

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
            if let Some(message) = dead(tree, &ends, &span.code) {
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
            let spans = line.comment.split('`').skip(1).step_by(2);
            for span in spans.filter(|_| !file.path.starts_with("tidy/")) {
                if let Some(message) = dead(tree, &ends, span) {
                    findings.push(Finding::new(&file.path, number + 1, message));
                }
            }
        }
    }
    findings
}

/// Returns what is wrong with a code span that names a source file or a test, if anything is.
fn dead(tree: &Tree, ends: &HashSet<&str>, span: &str) -> Option<String> {
    if span.ends_with(".rs") && span.chars().all(is_of_path) {
        let is_there = span.starts_with("foo") || ends.contains(span);
        return (!is_there).then(|| format!("no file ends with `{span}`; name one of the tree"));
    }
    let is_name =
        |character: char| character.is_ascii_lowercase() || crate::rust::is_word(character);
    let (modules, test) = match span.split_once("::tests::") {
        Some((modules, test)) => (modules, Some(test)),
        None => (span.strip_suffix("::tests")?, None),
    };
    if !modules.split("::").all(|name| !name.is_empty() && name.chars().all(is_name)) {
        return None;
    }
    let files: Vec<&File> = tests_of(tree, &modules.replace("::", "/")).collect();
    if files.is_empty() {
        return Some(format!("no module has the tests `{span}`; name one of the tree"));
    }
    let test = test.filter(|test| test.chars().all(crate::rust::is_word))?;
    let function = format!("fn {test}(");
    (!files.iter().any(|file| file.text.contains(&function)))
        .then(|| format!("no test is called `{span}`; name one of the tree"))
}

/// Returns the files that may hold the tests of the modules whose paths end with `module`.
fn tests_of<'a>(tree: &'a Tree, module: &str) -> impl Iterator<Item = &'a File> {
    let inside = format!("/{module}.rs");
    let beside = format!("/{module}/tests.rs");
    let below = format!("/{module}/tests/");
    tree.rust().filter(move |file| {
        let path = format!("/{}", file.path.replacen("/src/", "/", 1));
        path.ends_with(&beside)
            || path.contains(&below)
            || (path.ends_with(&inside) && file.text.contains("mod tests"))
    })
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
