//! The rules of the tree.
//!
//! A [`Rule`] looks at the whole tree and returns its findings. A rule that the tree still breaks
//! holds the number of its findings down: tidy/tolerated.txt has the number, which only falls.
//! `cargo run -p tidy -- ratchet` lowers it to what is found. Rules that the file does not name are
//! strict.

mod crates;
mod figures;
mod headers;
mod homonyms;
mod imports;
mod length;
mod links;
mod lock_files;
mod modules;
mod old_names;
mod phrases;
mod width;

use crate::Finding;
use crate::graph;
use crate::tree::Tree;

pub use length::warnings;

/// One rule of the tree.
#[derive(Debug)]
pub struct Rule {
    /// Short name, as the test that checks it has it.
    pub name: &'static str,
    /// What the rule demands, in one sentence.
    pub demand: &'static str,
    /// Returns the places that break it.
    pub check: fn(&Tree) -> Vec<Finding>,
}

/// The numbers of findings that are still tolerated, a rule on each line.
const TOLERATED: &str = include_str!("../tolerated.txt");

impl Rule {
    /// Returns how many findings the tree may have.
    pub fn tolerated(&self) -> usize {
        let lines = TOLERATED.lines().filter_map(|line| line.split_once(' '));
        let mut numbers = lines.filter(|(name, _)| *name == self.name);
        numbers.next().map_or(0, |(_, number)| number.trim().parse().unwrap_or(0))
    }
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "width",
        demand: "Lines of Rust and Markdown have at most 100 columns.",
        check: width::check,
    },
    Rule { name: "length", demand: "A source file has at most 600 lines.", check: length::check },
    Rule {
        name: "headers",
        demand: "Every module begins with `//!` and its story.",
        check: headers::check,
    },
    Rule {
        name: "phrases",
        demand: "Comments and texts avoid turns that a native reader stumbles over.",
        check: phrases::check,
    },
    Rule {
        name: "module_files",
        demand: "A module `foo` is `foo.rs` beside `foo/`, found without `#[path]`.",
        check: modules::check,
    },
    Rule {
        name: "links",
        demand: "Links, anchors, paths and tests that documentation and comments name are there.",
        check: links::check,
    },
    Rule {
        name: "figures",
        demand: "A table of figures stands near the command that measures them.",
        check: figures::check,
    },
    Rule {
        name: "crates",
        demand: "Every crate has a description, forbids unsafe code and keeps to its layer.",
        check: crates::check,
    },
    Rule {
        name: "lock_files",
        demand: "The lock file of the fuzz targets knows our crates as they are.",
        check: lock_files::check,
    },
    Rule {
        name: "homonyms",
        demand: "No two types of a crate have one name.",
        check: homonyms::check,
    },
    Rule {
        name: "old_names",
        demand: "No module and no identifier has a name that was given up.",
        check: old_names::check,
    },
    Rule {
        name: "libraries",
        demand: "A library that is to be replaceable is named in one module only.",
        check: imports::check,
    },
    Rule {
        name: "circles",
        demand: "Modules import one another in one direction.",
        check: graph::circles::check,
    },
    Rule {
        name: "pictures",
        demand: "The committed pictures of the architecture are those that would be generated.",
        check: graph::pictures::check,
    },
];

#[cfg(test)]
mod tests;
