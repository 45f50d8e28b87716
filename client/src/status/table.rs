//! Text tables. Columns are as wide as their content, and optional ones are omitted if space is
//! short.

use dkv_console::Tone;

/// One cell: its text and its tone.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    pub(super) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// A column: its heading, its alignment, and when it may be omitted.
pub(super) struct Column {
    heading: &'static str,
    right: bool,
    /// If space is short, columns with a higher number are omitted first; zero always stays.
    expendable: u8,
}

/// A column that always stays.
pub(super) const fn column(heading: &'static str) -> Column {
    Column { heading, right: false, expendable: 0 }
}

impl Column {
    pub(super) const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    pub(super) const fn expendable(mut self, order: u8) -> Self {
        self.expendable = order;
        self
    }
}

const GAP: &str = "  ";

/// Renders a table. The last column is wrapped if it does not fit.
pub(super) fn render(
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: Option<usize>,
    paint: impl Fn(Tone, &str) -> String,
) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().map(|row| length(&row[index].text));
            cells.chain([length(column.heading)]).max().unwrap_or(0)
        })
        .collect();
    let shown = choose(columns, &widths, width);
    let Some((&last, others)) = shown.split_last() else {
        return String::new();
    };
    let indent: usize = others.iter().map(|index| widths[*index] + GAP.len()).sum();
    let last_width = width.map(|width| width.saturating_sub(indent).max(12));

    let mut text = String::new();
    for index in others {
        text.push_str(&paint(
            Tone::Dim,
            &pad(columns[*index].heading, widths[*index], columns[*index].right),
        ));
        text.push_str(GAP);
    }
    let last_right = if columns[last].right { widths[last] } else { 0 };
    text.push_str(&paint(Tone::Dim, &pad(columns[last].heading, last_right, true)));
    text.push('\n');
    for row in rows {
        for index in others {
            let padded = pad(&row[*index].text, widths[*index], columns[*index].right);
            text.push_str(&paint(row[*index].tone, &padded));
            text.push_str(GAP);
        }
        let lines = broken(&row[last].text, last_width);
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
            }
            text.push_str(&paint(row[last].tone, &pad(line, last_right, true)));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Returns the columns that fit.
fn choose(columns: &[Column], widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return shown };
    loop {
        let total: usize = shown.iter().map(|index| widths[*index] + GAP.len()).sum();
        let expendable = shown.iter().copied().max_by_key(|index| columns[*index].expendable);
        match expendable.filter(|index| columns[*index].expendable > 0) {
            Some(index) if total > width + GAP.len() => shown.retain(|it| *it != index),
            _ => return shown,
        }
    }
}

/// Wraps a text at double blanks, which separate the items of a list.
fn broken(text: &str, width: Option<usize>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for item in text.split(GAP) {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(item);
        } else if width.is_some_and(|width| length(line) + GAP.len() + length(item) > width) {
            lines.push(item.to_owned());
        } else {
            line.push_str(GAP);
            line.push_str(item);
        }
    }
    lines
}

fn pad(text: &str, width: usize, right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(length(text)));
    if right { format!("{blanks}{text}") } else { format!("{text}{blanks}") }
}

/// Returns the number of columns of a text. Names usually have characters of one column each, so
/// this simply counts characters.
fn length(text: &str) -> usize {
    text.chars().count()
}
