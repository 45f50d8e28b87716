//! One name for one type: a reader who searches a crate for a type finds one.
//!
//! Types count that other modules can see, `pub` and `pub(...)` alike.

use std::collections::BTreeMap;

use crate::Finding;
use crate::graph::crate_of;
use crate::tree::Tree;

/// Names that may stand for several types of a crate, each with its reason.
const ALLOWED: &[(&str, &str)] = &[
    ("Args", "each command has its own arguments, and clap derives them"),
    ("Error", "`module::Error` is the custom of the standard library"),
];

const KEYWORDS: &[&str] = &["struct ", "enum ", "trait ", "type ", "union "];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut first: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_unit_test()) {
        let Some(of) = crate_of(&file.path) else { continue };
        for (number, line) in file.source().lines.iter().enumerate() {
            let Some(name) = public_type(&line.code) else { continue };
            if ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
                continue;
            }
            let here = format!("{}:{}", file.path, number + 1);
            match first.get(&(of.clone(), name.clone())) {
                Some(other) => findings.push(Finding::new(
                    &file.path,
                    number + 1,
                    format!("a second `{name}` in {of}, beside {other}; name one of them anew"),
                )),
                None => drop(first.insert((of.clone(), name), here)),
            }
        }
    }
    findings
}

/// Returns the name of the type that a line of code defines for others, if it defines one.
fn public_type(code: &str) -> Option<String> {
    // An associated type or a type inside of a function is indented.
    let rest = code.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    let name = KEYWORDS.iter().find_map(|keyword| rest.strip_prefix(keyword))?;
    Some(name.chars().take_while(|&character| crate::rust::is_word(character)).collect())
}
