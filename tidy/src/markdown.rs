//! Markdown, read line by line: what is prose and what is a fenced block, headings, links.

/// What a line of Markdown belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Prose, headings, lists and tables.
    Prose,
    /// A fenced block, its fences included.
    Fenced,
}

/// A Markdown file.
#[derive(Debug)]
pub struct Markdown {
    /// What each line belongs to.
    pub lines: Vec<Part>,
    /// The anchors of its headings, as GitHub derives them.
    pub anchors: Vec<String>,
    /// Its links and images.
    pub links: Vec<Link>,
    /// Its code spans.
    pub spans: Vec<Span>,
}

/// A link `[text](target)`.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Line of the file, counted from one.
    pub line: usize,
    /// What stands in the parentheses.
    pub target: String,
}

/// A code span between backticks.
#[derive(Debug, PartialEq, Eq)]
pub struct Span {
    /// Line of the file, counted from one.
    pub line: usize,
    /// What stands between the backticks.
    pub code: String,
}

impl Markdown {
    /// Reads a file.
    pub fn new(text: &str) -> Self {
        let mut markdown =
            Self { lines: Vec::new(), anchors: Vec::new(), links: Vec::new(), spans: Vec::new() };
        let mut fence: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let begin = line.trim_start().trim_start_matches("> ");
            let ticks: String = begin.chars().take_while(|&c| c == '`' || c == '~').collect();
            let is_fence = ticks.len() >= 3;
            if is_fence || fence.is_some() {
                markdown.lines.push(Part::Fenced);
                match &fence {
                    None => fence = Some(ticks),
                    Some(open) if is_fence && ticks.starts_with(open.as_str()) => fence = None,
                    Some(_) => {}
                }
                continue;
            }
            markdown.lines.push(Part::Prose);
            if let Some(heading) = heading(line) {
                markdown.add_anchor(heading);
            }
            let without_spans = markdown.take_spans(line, index + 1);
            markdown.take_links(&without_spans, index + 1);
        }
        markdown
    }

    fn add_anchor(&mut self, heading: &str) {
        let anchor = anchor(heading);
        let numbered = |number: usize| match number {
            0 => anchor.clone(),
            _ => format!("{anchor}-{number}"),
        };
        let free = (0..).map(numbered).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }

    /// Takes the code spans of a line, and returns the line with blanks in their place.
    fn take_spans(&mut self, line: &str, number: usize) -> String {
        let mut rest = String::new();
        for (index, piece) in line.split('`').enumerate() {
            if index % 2 == 0 {
                rest.push_str(piece);
            } else {
                rest.push_str(" span ");
                self.spans.push(Span { line: number, code: piece.into() });
            }
        }
        rest
    }

    fn take_links(&mut self, line: &str, number: usize) {
        for (index, _) in line.match_indices("](") {
            if let Some((target, _)) = line[index + 2..].split_once(')') {
                let target = target.split(' ').next().unwrap_or_default().into();
                self.links.push(Link { line: number, target });
            }
        }
    }
}

/// Returns the text of a heading, if the line is one.
pub fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then_some(text).and_then(|text| text.strip_prefix(' '))
}

/// Returns the anchor that GitHub derives from a heading: lower case, without punctuation, with
/// hyphens for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ if character.is_alphanumeric() => Some(character),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
