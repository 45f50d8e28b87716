//! The modules of a crate: where they lie, what they define, what they use.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::crate_of;
use crate::rust::is_word;
use crate::tree::Tree;

/// The modules of a crate by their paths, such as `raft::log`. The root has the empty path.
#[derive(Debug, Default)]
pub struct Modules {
    /// Folder of the crate.
    pub folder: String,
    /// The modules that are compiled outside of tests.
    pub modules: BTreeMap<String, Module>,
}

/// A module, as its file shows it.
#[derive(Debug, Default)]
pub struct Module {
    /// Path of the file.
    pub file: String,
    /// The first sentence of its header.
    pub story: String,
    /// Names of the items that it defines.
    pub items: BTreeSet<String>,
    /// The paths that it names.
    pub uses: Vec<Use>,
}

/// A path that a module names, in a `use` declaration or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Line of the file, counted from one.
    pub line: usize,
    /// The segments of the path.
    pub segments: Vec<String>,
    /// The name that a `use` declaration gives it: `*` for all names, nothing for other paths.
    pub name: Option<String>,
}

/// Returns the modules of all crates that have a library, or else a binary.
pub fn crates(tree: &Tree) -> Vec<Modules> {
    let mut folders: Vec<String> = tree.rust().filter_map(|file| crate_of(&file.path)).collect();
    folders.dedup();
    folders.into_iter().map(|folder| Modules::read(tree, folder)).collect()
}

impl Modules {
    /// Reads the modules of the crate in `folder`.
    pub fn read(tree: &Tree, folder: String) -> Self {
        let sources = format!("{folder}/src/");
        let has_library = tree.file(&format!("{sources}lib.rs")).is_some();
        let mut modules = BTreeMap::new();
        let mut only_tests = BTreeSet::new();
        for file in tree.rust().filter(|file| !file.is_unit_test()) {
            let Some(inside) = file.path.strip_prefix(&sources) else { continue };
            if inside.starts_with("bin/") || (has_library && inside == "main.rs") {
                continue;
            }
            let path = module_path(inside);
            let mut code = file.source().code();
            for name in cut_tests(&mut code) {
                only_tests.insert(join(&path, &name));
            }
            let module = Module {
                file: file.path.clone(),
                story: story(&file.text),
                items: items(&code),
                uses: uses(&code),
            };
            modules.insert(path, module);
        }
        let is_for_tests = |path: &String| {
            only_tests.iter().any(|test| path == test || path.starts_with(&format!("{test}::")))
        };
        modules.retain(|path, _| !is_for_tests(path));
        Self { folder, modules }
    }
}

/// Returns the path of a module within another one.
pub fn join(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.into() } else { format!("{outer}::{name}") }
}

/// Returns the path of the module around `path`.
pub fn parent(path: &str) -> &str {
    path.rsplit_once("::").map_or("", |(outer, _)| outer)
}

fn module_path(inside: &str) -> String {
    let path = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(path, "lib" | "main" | "mod") { String::new() } else { path.replace('/', "::") }
}

/// Returns the first sentence of the header of a module, on one line and without brackets of links.
fn story(text: &str) -> String {
    let header = text.lines().skip_while(|line| !line.starts_with("//!"));
    let header = header.map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = header.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ").replace("[`", "`").replace("`]", "`");
    paragraph.split_inclusive(". ").next().unwrap_or_default().trim().into()
}

/// Blanks what is compiled for tests only, and returns the modules that it declares.
fn cut_tests(code: &mut String) -> Vec<String> {
    let mut declared = Vec::new();
    let mut cut = String::new();
    let mut rest = code.as_str();
    while let Some(begin) = rest.find("#[cfg(test)]").or_else(|| rest.find("#[cfg(any(test")) {
        let item = &rest[begin..];
        let end = end_of_item(item);
        let words: Vec<&str> = item[..end].split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "mod") {
            declared.extend(words.get(at + 1).map(|name| name.trim_end_matches(';').into()));
        }
        cut.push_str(&rest[..begin]);
        cut.extend(item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[end..];
    }
    cut.push_str(rest);
    *code = cut;
    declared
}

/// Returns the length of the item at the beginning of `code`: as far as a semicolon, or the brace
/// that closes the first one that is opened.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0;
    for (index, character) in code.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth <= 1 => return index + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns the names of the items that stand at the outermost level.
fn items(code: &str) -> BTreeSet<String> {
    const KEYWORDS: &[&str] =
        &["struct", "enum", "trait", "type", "union", "fn", "const", "static", "macro_rules!"];
    let lines = code.lines().filter(|line| line.starts_with(|c: char| c.is_alphabetic()));
    let name = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| !KEYWORDS.contains(word));
        let mut word = words.nth(1)?;
        if KEYWORDS.contains(&word) {
            word = words.next()?;
        }
        Some(word.chars().take_while(|&character| is_word(character)).collect())
    };
    lines.filter_map(name).collect()
}

/// Returns the paths that the code names.
fn uses(code: &str) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut declaration: Option<(usize, String)> = None;
    for (number, line) in code.lines().enumerate() {
        let begin = line.trim_start();
        if declaration.is_none() && begins_use(begin) {
            declaration = Some((number + 1, String::new()));
        }
        let Some((first, text)) = &mut declaration else {
            let named = paths(line);
            uses.extend(named.map(|segments| Use { line: number + 1, segments, name: None }));
            continue;
        };
        text.push_str(begin);
        text.push(' ');
        if text.contains(';') {
            let tree = text.split_once("use ").map_or("", |(_, tree)| tree);
            let tree = tree.split(';').next().unwrap_or_default();
            expand(&[], tree, *first, &mut uses);
            declaration = None;
        }
    }
    uses
}

fn begins_use(line: &str) -> bool {
    let line = line.strip_prefix("pub").map_or(line, |rest| match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest).trim_start(),
        None => rest.trim_start(),
    });
    line.starts_with("use ")
}

/// Adds the paths of a tree of `use`, such as `a::{b, c as d}`.
fn expand(outer: &[String], tree: &str, line: usize, uses: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some((path, inner)) = tree.split_once('{') {
        let mut segments = outer.to_vec();
        segments.extend(split(path));
        let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
        for branch in branches(inner) {
            expand(&segments, branch, line, uses);
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(p, a)| (p, Some(a.trim())));
    let mut segments = outer.to_vec();
    segments.extend(split(path));
    if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
        segments.pop();
    }
    let name = alias.map(String::from).or_else(|| segments.last().cloned());
    if segments.last().is_some_and(|last| last == "*") {
        segments.pop();
    }
    if !segments.is_empty() {
        uses.push(Use { line, segments, name });
    }
}

fn split(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty())
}

/// Splits the inside of braces at the commas that are not inside of further braces.
fn branches(inner: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut begin = 0;
    let mut branches = Vec::new();
    for (index, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&inner[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    branches.push(&inner[begin..]);
    branches.retain(|branch| !branch.trim().is_empty());
    branches
}

/// Returns the paths in a line of code that begin with `crate`, `super` or `self`.
fn paths(line: &str) -> impl Iterator<Item = Vec<String>> {
    let words = line.split(|character| !is_word(character) && character != ':');
    words.filter_map(|word| {
        let first = word.split("::").next()?;
        let is_ours = matches!(first, "crate" | "super" | "self") && word.contains("::");
        is_ours.then(|| split(word).map(|segment| segment.trim_matches(':').to_owned()).collect())
    })
}
