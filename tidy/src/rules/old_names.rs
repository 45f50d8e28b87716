//! Names that were given up for the field's terms, of modules and within identifiers.
//!
//! The lists keep them from coming back, and say what each is called now. This crate quotes the
//! names and is exempt.

use crate::Finding;
use crate::rust::is_word;
use crate::tree::Tree;

/// Folder below which the name was given up, the name, and what it is called now.
const OLD: &[(&str, &str, &str)] = &[
    ("", "lookout", "failure_detector"),
    ("", "hearing", "liveness"),
    ("", "pulse", "heartbeat coalescing"),
    ("", "rest", "quiescence"),
    ("", "pace", "timeout scaling"),
    ("", "sparing", "learner heartbeats"),
    ("", "metronome", "heartbeat ticker"),
    ("", "rhythm", "shared ticks"),
    ("node/", "drive", "adapter"),
    ("node/src/raft/", "service", "handlers"),
    ("node/src/raft/", "session", "append_stream"),
    ("node/src/raft/", "machine", "state_machine"),
    ("node/", "leadership", "read_index"),
    ("", "promises", "durability check"),
    ("", "freshness", "staleness"),
    ("", "graves", "tombstones of keys"),
    ("", "former", "tombstones of replicas"),
    ("", "departures", "replica removal"),
    ("", "stewards", "membership reconciler"),
    ("", "placing", "rebalancer"),
    ("", "measuring", "node reports"),
    ("", "turns", "in-flight window"),
    ("", "rounds", "quorum rounds"),
    ("node/", "book", "ledger"),
    ("", "keep", "credential store"),
    ("", "held", "inspect"),
    ("", "residence", "value cache"),
    ("node/", "ask", "rpc"),
    ("node/", "admission", "enrolment"),
    ("node/", "registration", "server link"),
    ("", "reign", "leader since"),
];

/// Words that no identifier may have, and what each is called now.
const OLD_WORDS: &[(&str, &str)] = &[
    ("departures", "replica removal"),
    ("dug", "deleted"),
    ("forsake", "forget"),
    ("forsaken", "forgotten"),
    ("freshness", "staleness"),
    ("grave", "tombstone"),
    ("graves", "tombstones"),
    ("hearing", "liveness"),
    ("hearings", "liveness"),
    ("lookout", "failure detector"),
    ("metronome", "heartbeat ticker"),
    ("mourned", "handled"),
    ("pulse", "heartbeats"),
    ("reign", "leader since"),
    ("residence", "value cache"),
    ("residents", "cached values"),
    ("rhythm", "shared ticks"),
    ("sparing", "learner heartbeats"),
    ("stewards", "membership reconciler"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let module = file.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let module = module.rsplit('/').next().unwrap_or(module);
        for (folder, old, new) in OLD {
            if module == *old && file.path.starts_with(folder) {
                let message = format!("`{old}` is an old name; the term is {new}");
                findings.push(Finding::new(&file.path, 1, message));
            }
        }
        if file.path.starts_with("tidy/") {
            continue;
        }
        for (number, line) in file.source().lines.iter().enumerate() {
            for identifier in line.code.split(|character| !is_word(character)) {
                for word in words(identifier) {
                    if let Some((old, new)) = OLD_WORDS.iter().find(|(old, _)| *old == word) {
                        let message =
                            format!("`{old}` in `{identifier}` is an old name; the term is {new}");
                        findings.push(Finding::new(&file.path, number + 1, message));
                    }
                }
            }
        }
    }
    findings
}

/// Returns the words of an identifier in lower case, whichever way they are joined.
fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_lower = false;
    for character in identifier.chars() {
        if character == '_' || (character.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = character.is_lowercase() || character.is_ascii_digit();
        if character != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(character.to_lowercase());
        }
    }
    words
}
