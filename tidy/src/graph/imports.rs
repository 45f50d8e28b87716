//! Which module imports which, with re-exports followed to where a name is defined.

use crate::graph::modules::{Modules, join, parent};

/// How many re-exports are followed for one name.
const HOPS_MAX: usize = 8;

/// An import of one module of a crate by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Path of the module that imports.
    pub from: String,
    /// Path of the module that is imported.
    pub to: String,
    /// File of the importing module.
    pub file: String,
    /// Line in that file, counted from one.
    pub line: usize,
}

/// Returns the imports between different modules of a crate.
pub fn imports(modules: &Modules) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for (from, module) in &modules.modules {
        for used in &module.uses {
            let Some(to) = resolve(modules, from, &used.segments, HOPS_MAX) else { continue };
            let known = imports.iter().rev().take_while(|import| import.from == *from);
            if to != *from && !known.into_iter().any(|import| import.to == to) {
                let file = module.file.clone();
                imports.push(Import { from: from.clone(), to, file, line: used.line });
            }
        }
    }
    imports
}

/// Returns the module in which the path that `from` names is defined, if it is of this crate.
fn resolve(modules: &Modules, from: &str, segments: &[String], hops: usize) -> Option<String> {
    let mut rest = segments.iter().map(String::as_str).peekable();
    let mut here = match *rest.peek()? {
        "crate" => String::new(),
        "self" => from.into(),
        "super" => parent(from).into(),
        child => {
            let child = join(from, child);
            modules.modules.contains_key(&child).then_some(child)?
        }
    };
    rest.next();
    for segment in rest {
        if segment == "super" {
            here = parent(&here).into();
            continue;
        }
        let inner = join(&here, segment);
        if !modules.modules.contains_key(&inner) {
            return Some(definition(modules, &here, segment, hops).unwrap_or(here));
        }
        here = inner;
    }
    Some(here)
}

/// Returns the module that defines what `module` calls `name`.
fn definition(modules: &Modules, module: &str, name: &str, hops: usize) -> Option<String> {
    let there = modules.modules.get(module)?;
    if there.items.contains(name) || hops == 0 {
        return Some(module.into());
    }
    let named = there.uses.iter().find(|used| used.name.as_deref() == Some(name));
    if let Some(used) = named {
        return resolve(modules, module, &used.segments, hops - 1);
    }
    let mut globs = there.uses.iter().filter(|used| used.name.as_deref() == Some("*"));
    globs.find_map(|used| {
        let inner = resolve(modules, module, &used.segments, hops - 1)?;
        if inner == module { None } else { definition(modules, &inner, name, hops - 1) }
    })
}
