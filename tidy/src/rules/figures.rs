//! Figures that a reader can measure again.
//!
//! A table with a unit in its header and numbers in its cells stands near the command that gives
//! the numbers: a fenced block or a code span that runs something, between the headings around the
//! table and at most 30 lines away from it.

use crate::Finding;
use crate::markdown::heading;
use crate::tree::Tree;

const LINES_AWAY_MAX: usize = 30;

/// Units of what is measured.
const UNITS: &[&str] = &[
    "ms",
    "µs",
    "us",
    "ns",
    "s",
    "MiB",
    "KiB",
    "GiB",
    "MB",
    "MB/s",
    "MiB/s",
    "%",
    "operations/s",
    "ops/s",
    "puts/s",
    "gets/s",
    "keys/s",
    "min",
];

/// What the command of a measurement begins with.
const COMMANDS: &[&str] = &["cargo ", "target/", "dkv", "sim ", "bench/", "scripts/", ".ci/"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let read =
        tree.markdown().filter(|file| file.path == "README.md" || file.path.starts_with("docs/"));
    for file in read {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, pair) in lines.windows(2).enumerate() {
            let begins = pair[0].starts_with('|') && pair[1].starts_with("|--");
            if !begins || !has_unit(pair[0]) || !has_numbers(lines.get(number + 2)) {
                continue;
            }
            if !section(&lines, number).iter().any(|line| is_command(line)) {
                let message = "figures without a command that gives them; say how to measure them";
                findings.push(Finding::new(&file.path, number + 1, message));
            }
        }
    }
    findings
}

/// Returns the lines around `number`, as far as its heading, the next one, and the bound.
fn section<'a, 'b>(lines: &'b [&'a str], number: usize) -> &'b [&'a str] {
    let is_heading = |line: &&str| heading(line).is_some_and(|_| line.starts_with("##"));
    let first = lines[..number].iter().rposition(is_heading).unwrap_or(0);
    let end_of_table = lines[number..].iter().position(|line| !line.starts_with('|'));
    let table_end = end_of_table.map_or(lines.len(), |length| number + length);
    let next = lines[table_end..].iter().position(is_heading);
    let last = next.map_or(lines.len(), |length| table_end + length);
    &lines[first.max(number.saturating_sub(LINES_AWAY_MAX))..last.min(table_end + LINES_AWAY_MAX)]
}

fn cells(row: &str) -> impl Iterator<Item = &str> {
    row.trim_matches('|').split('|').map(str::trim)
}

fn has_unit(header: &str) -> bool {
    let words = header.split([' ', ',', '|', '(', ')']);
    words.filter(|word| !word.is_empty()).any(|word| UNITS.contains(&word))
}

fn has_numbers(row: Option<&&str>) -> bool {
    let is_number = |cell: &str| {
        cell.starts_with(|character: char| character.is_ascii_digit())
            && cell
                .chars()
                .all(|character| character.is_ascii_digit() || " .,%–-to±×".contains(character))
    };
    row.is_some_and(|row| cells(row).filter(|cell| is_number(cell)).count() >= 2)
}

fn is_command(line: &str) -> bool {
    let begins = |text: &str| COMMANDS.iter().any(|command| text.starts_with(command));
    begins(line.trim_start().trim_start_matches("$ "))
        || line.split('`').enumerate().any(|(index, piece)| index % 2 == 1 && begins(piece))
}
