//! The architecture as the code has it: which crate depends on which, which module imports which.
//!
//! [`modules`] reads the modules of a crate, [`imports`] what each of them imports, [`circles`]
//! finds modules that import one another, [`layers`] orders crates and modules, and [`pictures`]
//! writes all that into the documentation.
//!
//! Imports are `use` declarations and paths that begin with `crate`, `super` or `self`. A name that
//! a module only passes on with `use` counts as imported from where it is defined. Code that is
//! compiled for tests only is left out: tests may look at anything.

pub mod circles;
pub mod imports;
pub mod layers;
pub mod modules;
pub mod pictures;

/// Returns the folder of the crate whose sources `path` belongs to, if it is below a `src/`.
pub fn crate_of(path: &str) -> Option<String> {
    let (folder, _) = path.split_once("/src/")?;
    Some(folder.into())
}

/// Returns whether one module path is the other, or contains it.
pub fn are_related(one: &str, other: &str) -> bool {
    let contains = |outer: &str, inner: &str| {
        outer.is_empty()
            || inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    contains(one, other) || contains(other, one)
}

#[cfg(test)]
mod tests;
