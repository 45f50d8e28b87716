//! Manifests of crates, read just well enough to know names, sections and dependencies.
//!
//! Deliberately missing: TOML. The manifests of this repository keep one key on a line, which is
//! all that is read here.

use crate::tree::Tree;

/// The manifest of a crate.
#[derive(Debug)]
pub struct Manifest {
    /// Path of the file.
    pub path: String,
    /// Folder of the crate, without a slash at its end.
    pub folder: String,
    /// Name of the package.
    pub name: String,
    /// Its description, empty if there is none.
    pub description: String,
    /// Whether it takes the lints of the workspace.
    pub has_workspace_lints: bool,
    /// Names of what it depends on.
    pub dependencies: Vec<String>,
    /// Names of those that only a feature asks for.
    pub optional: Vec<String>,
    /// Names of what its tests depend on besides.
    pub dev_dependencies: Vec<String>,
}

/// Returns the manifests of all crates, in the order of their folders.
pub fn manifests(tree: &Tree) -> Vec<Manifest> {
    let files = tree.files.iter();
    let files = files.filter(|file| file.path.ends_with("/Cargo.toml"));
    files.filter_map(|file| read(&file.path, &file.text)).collect()
}

/// Reads a manifest. Returns nothing if it is of a workspace only.
fn read(path: &str, text: &str) -> Option<Manifest> {
    let mut manifest = Manifest {
        path: path.into(),
        folder: path.trim_end_matches("/Cargo.toml").into(),
        name: String::new(),
        description: String::new(),
        has_workspace_lints: false,
        dependencies: Vec::new(),
        optional: Vec::new(),
        dev_dependencies: Vec::new(),
    };
    let mut section = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        let dependency = || key.trim_end_matches(".workspace").to_owned();
        match (section, key) {
            ("package", "name") => manifest.name = value.into(),
            ("package", "description") => manifest.description = value.into(),
            ("lints", "workspace") => manifest.has_workspace_lints = value == "true",
            ("dependencies", key) if !key.starts_with('#') => {
                if value.contains("optional = true") {
                    manifest.optional.push(dependency());
                }
                manifest.dependencies.push(dependency());
            }
            ("dev-dependencies", key) if !key.starts_with('#') => {
                manifest.dev_dependencies.push(dependency());
            }
            _ => {}
        }
    }
    (!manifest.name.is_empty()).then_some(manifest)
}

/// Returns whether the workspace forbids unsafe code.
pub fn workspace_forbids_unsafe(tree: &Tree) -> bool {
    tree.file("Cargo.toml").is_some_and(|file| {
        let lints = file.text.split("[workspace.lints.rust]").nth(1).unwrap_or_default();
        let lints = lints.split("\n[").next().unwrap_or_default();
        lints.lines().any(|line| line.trim() == "unsafe_code = \"forbid\"")
    })
}
