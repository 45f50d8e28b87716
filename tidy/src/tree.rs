//! The files of the repository, read once and shared by all rules.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{fs, io};

use crate::markdown::Markdown;
use crate::rust::Source;

/// The text files of a source tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// The folder that the paths are relative to.
    pub root: PathBuf,
    /// All text files, in the order of their paths.
    pub files: Vec<File>,
}

/// A text file.
#[derive(Debug)]
pub struct File {
    /// Path relative to the root of the tree, with `/` between its parts.
    pub path: String,
    /// The file as it is.
    pub text: String,
    source: OnceLock<Source>,
    markdown: OnceLock<Markdown>,
}

impl Tree {
    /// Reads the repository that this crate lies in.
    ///
    /// # Errors
    /// If `git ls-files` fails, as it does outside of a working copy.
    pub fn of_this_repository() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Self::read(&root)
    }

    /// Reads the repository that the current directory belongs to.
    ///
    /// # Errors
    /// If git fails, as it does outside of a working copy.
    pub fn of_current_directory() -> io::Result<Self> {
        let root = git(Path::new("."), &["rev-parse", "--show-toplevel"])?;
        Self::read(Path::new(root.trim_end()))
    }

    /// Reads all files below `root` that git tracks or would track. Files that are not UTF-8 and
    /// files that were deleted from the working copy are left out.
    ///
    /// # Errors
    /// If `git ls-files` fails.
    pub fn read(root: &Path) -> io::Result<Self> {
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed = git(root, &listed)?;
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        let mut paths: Vec<String> = paths.map(String::from).collect();
        paths.sort();
        paths.dedup();
        let read = |path: String| {
            let on_disk: PathBuf = root.join(&path);
            Some(File::new(&path, &fs::read_to_string(on_disk).ok()?))
        };
        let files = paths.into_iter().filter_map(read).collect();
        Ok(Self { root: root.into(), files })
    }

    /// A tree of the given paths and texts, for samples.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files.into_iter().map(|(path, text)| File::new(path, text)).collect();
        Self { root: PathBuf::new(), files }
    }

    /// Returns the file at `path`.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Returns whether `path` is a file or a folder of the tree.
    pub fn contains(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The Markdown files.
    pub fn markdown(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".md"))
    }
}

/// Returns what git prints when it is run in `folder`.
fn git(folder: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("git").args(arguments).current_dir(folder).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            source: OnceLock::new(),
            markdown: OnceLock::new(),
        }
    }

    /// The file as Rust.
    pub fn source(&self) -> &Source {
        self.source.get_or_init(|| Source::new(&self.text))
    }

    /// The file as Markdown.
    pub fn as_markdown(&self) -> &Markdown {
        self.markdown.get_or_init(|| Markdown::new(&self.text))
    }

    /// Returns whether the file says near its beginning that a program wrote it.
    pub fn is_generated(&self) -> bool {
        self.text.lines().take(5).any(|line| line.contains("@generated"))
    }

    /// Returns whether the file holds unit tests only: `tests.rs`, or a file below a folder `tests`
    /// of a crate's sources.
    pub fn is_unit_test(&self) -> bool {
        let Some((_, inside)) = self.path.split_once("src/") else { return false };
        inside.ends_with("tests.rs") || inside.split('/').any(|part| part == "tests")
    }
}
