//! The commands that messages of all programs advise exist.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::cli::Cli;

/// What stands for an address in a message.
const ADDRESSES: [&str; 4] = ["ADDRESS", "SERVER", "ADDR", "HOST"];

/// A command that a message advises: whether it is sent to an address, and its words.
type Advice<'a> = (bool, Vec<&'a str>);

/// Collects the source files below a directory, without tests.
fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            into.push(path);
        }
    }
}

/// Returns the words after `dkv` wherever a line tells the reader to run it: in a code span, or
/// with an address.
fn advised(line: &str) -> Vec<Advice<'_>> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("dkv ") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || "-_/".contains(before)) {
            continue;
        }
        let text = &line[at + "dkv ".len()..];
        let text = text.split(['`', '"', ',', ';', ':', '\\', '<', '(']).next().unwrap_or("");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let has_address = words.first().is_some_and(|word| ADDRESSES.contains(word));
        if has_address {
            words.remove(0);
        }
        if (has_address || before == Some('`')) && !words.is_empty() {
            found.push((has_address, words));
        }
    }
    found
}

/// Returns whether the words begin with a command that there is.
fn exists(has_address: bool, words: &[&str]) -> bool {
    // What starts a program is sent to no address.
    if has_address && ["node", "server"].contains(&words[0]) {
        return false;
    }
    let root = Cli::command();
    let mut command = &root;
    for word in words {
        if !command.has_subcommands() {
            return true;
        }
        match command.find_subcommand(word) {
            Some(next) => command = next,
            // An option, or something to fill in.
            None => return !word.starts_with(|first: char| first.is_ascii_lowercase()),
        }
    }
    true
}

#[test]
fn every_advised_command_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(workspace).unwrap() {
        let src = entry.unwrap().path().join("src");
        if src.is_dir() {
            sources(&src, &mut files);
        }
    }
    let mut count = 0;
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for (has_address, words) in advised(line) {
                count += 1;
                let place = format!("{}:{}", path.display(), number + 1);
                assert!(
                    exists(has_address, &words),
                    "{place}: `dkv {}` does not exist",
                    words.join(" ")
                );
            }
        }
    }
    assert!(count > 30, "{count} commands found");
}

#[test]
fn what_does_not_exist_is_found() {
    let advice = advised("run `dkv recover group`, or dkv SERVER node drop {0}");
    assert_eq!(advice, [(false, vec!["recover", "group"]), (true, vec!["node", "drop", "{0}"])]);
    assert!(advised("a dkv network; dkv-node SERVER; /dkv status").is_empty());
    for (line, holds) in [
        ("token create --role node", true),
        ("token make", false),
        ("remove {}", true),
        ("node remove n1", false),
        ("put k v", true),
        ("--version", true),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(exists(true, &words), holds, "{line}");
    }
}
