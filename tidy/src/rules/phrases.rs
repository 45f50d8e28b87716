//! Turns of phrase that a native reader stumbles over, in comments, strings and the documentation.
//!
//! Each entry says what to write instead. The list grows by what reviews find. This crate quotes
//! the phrases and is exempt.

use crate::Finding;
use crate::markdown::Part;
use crate::rust::is_word;
use crate::tree::{File, Tree};

/// Where in a text a phrase is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Anywhere.
    Anywhere,
    /// At the beginning of a comment, a paragraph or a sentence.
    Begin,
}

use At::{Anywhere, Begin};

/// The phrases, where they are wrong, and the advice.
const BANNED: &[(&str, At, &str)] = &[
    ("of", Begin, "begin with the subject"),
    ("what is", Begin, "begin with a noun, or with a verb in the third person"),
    ("what was", Begin, "begin with a noun, or with a verb in the third person"),
    ("what are", Begin, "begin with a noun, or with a verb in the third person"),
    ("who is", Begin, "begin with the actor: the client, the node, the caller that ..."),
    ("who was", Begin, "begin with the actor: the client, the node, the caller that ..."),
    ("whoever", Anywhere, "name the actor: the client, the node, the caller that ..."),
    ("nobody", Begin, "name the actor: no node, no client, no caller"),
    ("so much as", Anywhere, "say what is done"),
    ("at that.", Anywhere, "drop it"),
    ("at that,", Anywhere, "drop it"),
    ("that much", Anywhere, "name the quantity"),
    ("a thing of its own", Anywhere, "say what it is"),
    ("is told", Anywhere, "name the actor: X reports, sends, learns"),
    ("are told", Anywhere, "name the actor: X reports, sends, learns"),
    ("is held here", Anywhere, "use a concrete verb: stores, owns, caches"),
    ("are kept here", Anywhere, "use a concrete verb: stores, owns, caches"),
    ("is looked at", Anywhere, "use a concrete verb: checks, reads, inspects"),
    ("are looked at", Anywhere, "use a concrete verb: checks, reads, inspects"),
    ("mourned", Anywhere, "handled"),
    ("mourns", Anywhere, "say what it does"),
    ("by and by", Anywhere, "gradually"),
    ("ere", Anywhere, "before"),
    ("hitherto", Anywhere, "until now"),
    ("thereof", Anywhere, "of it"),
    ("whereof", Anywhere, "of which"),
    ("for want of", Anywhere, "without"),
    ("for aught", Anywhere, "as far as"),
    ("lest", Anywhere, "so that ... not"),
    ("is gone with", Anywhere, "say who deletes it, and when"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = |file: &&File| !file.path.starts_with("tidy/");
    for file in tree.rust().filter(own).filter(|file| !file.is_generated()) {
        let mut ends_sentence = true;
        for (number, line) in file.source().lines.iter().enumerate() {
            let comment = line.comment.trim();
            let words = comment.trim_start_matches(['/', '!', '*']).trim_start();
            report(file, number, words, ends_sentence, &mut findings);
            ends_sentence = is_end(words) || comment.is_empty();
            // A string is a message of its own; its beginning is where a name may stand.
            report(file, number, line.text.trim().trim_matches('"'), false, &mut findings);
        }
    }
    for file in tree.markdown().filter(own).filter(|file| !file.is_generated()) {
        let mut ends_sentence = true;
        for (number, (line, part)) in file.text.lines().zip(&file.as_markdown().lines).enumerate() {
            if *part == Part::Prose {
                let words = line.trim_start_matches([' ', '-', '*', '>', '|', '#']);
                report(file, number, words, ends_sentence || words != line, &mut findings);
                ends_sentence = is_end(words);
            }
        }
    }
    findings
}

/// Returns whether what follows `words` begins a sentence.
fn is_end(words: &str) -> bool {
    words.is_empty() || words.ends_with(['.', ':', '!', '?', '`', '|']) || words.starts_with('#')
}

/// Adds the phrases that `words` contain. `begins` says whether a sentence begins with them.
fn report(file: &File, number: usize, words: &str, begins: bool, findings: &mut Vec<Finding>) {
    if words.is_empty() {
        return;
    }
    let lower = words.to_lowercase();
    for (phrase, at, advice) in BANNED {
        let is_there = match at {
            Anywhere => occurrences(&lower, phrase).next().is_some(),
            Begin => occurrences(&lower, phrase)
                .any(|index| if index == 0 { begins } else { lower[..index].ends_with(". ") }),
        };
        if is_there {
            let place = if *at == Begin { " at the beginning of a sentence" } else { "" };
            let message = format!("\"{phrase}\"{place}; {advice}");
            findings.push(Finding::new(&file.path, number + 1, message));
        }
    }
}

/// Returns where `phrase` occurs in `text` as whole words. An order, such as "is told to stop", is
/// plain English.
fn occurrences<'a>(text: &'a str, phrase: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(phrase).map(|(index, _)| index).filter(move |&index| {
        let before = text[..index].chars().next_back().unwrap_or(' ');
        let after = text[index + phrase.len()..].chars().next().unwrap_or(' ');
        let rest = &text[index + phrase.len()..];
        let is_order = rest.starts_with(" to ");
        !is_word(before)
            && (!phrase.ends_with(is_word) || !is_word(after))
            && before != '-'
            && !is_order
    })
}
