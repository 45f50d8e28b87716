//! Checks the source tree itself.
//!
//! The compiler checks what the code does, rustfmt how it is laid out, clippy how it is written.
//! This crate checks what none of them sees: line width in comments, file length, module headers,
//! wording, links in the documentation, manifests, and which module may import which.
//!
//! `cargo test -p tidy` runs every rule over all files that git tracks or would track. A finding is
//! one line: file, line, what is wrong, what to do. `cargo run -p tidy` prints the findings of all
//! rules, with warnings; `cargo run -p tidy -- graph` regenerates the pictures of the architecture.
//!
//! The crate has no dependencies and reads Rust with a small lexer of its own ([`rust`]): it tells
//! code, comments and strings apart, and needs no more than that.
#![forbid(unsafe_code)]

pub mod graph;
pub mod manifest;
pub mod markdown;
pub mod rules;
pub mod rust;
pub mod tree;

use std::fmt;

/// One place in the tree that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path of the file, relative to the root of the repository.
    pub path: String,
    /// Line in the file, counted from one.
    pub line: usize,
    /// What is wrong and what to do, on one line.
    pub message: String,
}

impl Finding {
    /// A finding at `line` (counted from one) of `path`.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
