//! The rules of the tree.
//!
//! A [`Rule`] looks at the whole tree and returns its findings. `tolerated` is a ratchet: a rule
//! that the tree still breaks holds the number of its findings down, and the number only falls.

mod crates;
mod figures;
mod headers;
mod homonyms;
mod imports;
mod length;
mod links;
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
    /// How many findings the tree may have.
    pub tolerated: usize,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "width",
        demand: "Lines of Rust and Markdown have at most 100 columns.",
        check: width::check,
        tolerated: 1000000,
    },
    Rule {
        name: "length",
        demand: "A source file has at most 600 lines.",
        check: length::check,
        tolerated: 1000000,
    },
    Rule {
        name: "headers",
        demand: "Every module begins with `//!` and its story.",
        check: headers::check,
        tolerated: 1000000,
    },
    Rule {
        name: "phrases",
        demand: "Comments and texts avoid turns that a native reader stumbles over.",
        check: phrases::check,
        tolerated: 1000000,
    },
    Rule {
        name: "module_files",
        demand: "A module `foo` is `foo.rs` beside `foo/`, found without `#[path]`.",
        check: modules::check,
        tolerated: 1000000,
    },
    Rule {
        name: "links",
        demand: "Links, anchors and paths in the documentation lead somewhere.",
        check: links::check,
        tolerated: 1000000,
    },
    Rule {
        name: "figures",
        demand: "A table of figures stands near the command that measures them.",
        check: figures::check,
        tolerated: 1000000,
    },
    Rule {
        name: "crates",
        demand: "Every crate has a description, forbids unsafe code and keeps to its layer.",
        check: crates::check,
        tolerated: 1000000,
    },
    Rule {
        name: "homonyms",
        demand: "No two types of a crate have one name.",
        check: homonyms::check,
        tolerated: 1000000,
    },
    Rule {
        name: "old_names",
        demand: "No module has a name that was given up.",
        check: old_names::check,
        tolerated: 1000000,
    },
    Rule {
        name: "libraries",
        demand: "A library that is to be replaceable is named in one module only.",
        check: imports::check,
        tolerated: 1000000,
    },
    Rule {
        name: "circles",
        demand: "Modules import one another in one direction.",
        check: graph::circles::check,
        tolerated: 1000000,
    },
    Rule {
        name: "pictures",
        demand: "The committed pictures of the architecture are those that would be generated.",
        check: graph::pictures::check,
        tolerated: 1000000,
    },
];

#[cfg(test)]
mod tests;
