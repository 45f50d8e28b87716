//! Lines of at most 100 columns, in Rust and in Markdown.
//!
//! Longer lines are right where a break would spoil them: in a string, in a table, in a fenced
//! block of Markdown, and where a single word without a blank, such as a URL, reaches beyond the
//! edge.

use crate::Finding;
use crate::markdown::Part;
use crate::rust::Line;
use crate::tree::{File, Tree};

const COLUMNS_MAX: usize = 100;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_generated()) {
        let lines = file.text.lines().zip(&file.source().lines);
        for (number, (text, line)) in lines.enumerate() {
            if is_too_wide(text) && !is_string(line) && !is_table(&line.comment) {
                findings.push(finding(file, number, text));
            }
        }
    }
    for file in tree.markdown().filter(|file| !file.is_generated()) {
        let lines = file.text.lines().zip(&file.as_markdown().lines);
        for (number, (text, part)) in lines.enumerate() {
            if is_too_wide(text) && *part == Part::Prose && !text.trim_start().starts_with('|') {
                findings.push(finding(file, number, text));
            }
        }
    }
    findings
}

fn finding(file: &File, number: usize, text: &str) -> Finding {
    let columns = text.chars().count();
    let message = format!("{columns} columns; break the line before column {COLUMNS_MAX}");
    Finding::new(&file.path, number + 1, message)
}

/// Returns whether a line is too wide and has a blank at which it could be broken.
fn is_too_wide(text: &str) -> bool {
    if text.chars().count() <= COLUMNS_MAX {
        return false;
    }
    let begin = text.trim_start_matches([' ', '/', '!', '*', '-', '>']);
    let indent = text.chars().count() - begin.chars().count();
    let words = begin.split(' ').scan(indent, |end, word| {
        *end += word.chars().count() + 1;
        Some(*end - 1)
    });
    // The first word that reaches beyond the edge may stand alone on its line.
    words.enumerate().any(|(index, end)| index > 0 && end > COLUMNS_MAX)
}

/// Returns whether the line is inside of a string, or short without the strings that it holds.
fn is_string(line: &Line) -> bool {
    let text = line.text.chars().filter(|&character| character != ' ').count();
    let columns = line.code.trim_end().chars().count().max(line.text.trim_end().chars().count());
    text > 0 && (line.continues || columns.saturating_sub(text) <= COLUMNS_MAX)
}

fn is_table(comment: &str) -> bool {
    comment.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|')
}
