//! Rust, read just well enough to tell code, comments and strings apart.
//!
//! Every character of a file is of one [`Kind`]. A line can then be seen as code only, comment only
//! or strings only, with blanks in place of all else, so that columns stay where they are.
//!
//! Deliberately missing: everything that needs a syntax tree. Macros are read as they stand.

/// What a character of a Rust file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code, with the blanks between words.
    Code,
    /// A comment, with the characters that open and close it.
    Comment,
    /// A string or character literal, quotes included.
    Text,
}

/// A Rust file, split into lines of three views.
#[derive(Debug)]
pub struct Source {
    /// The lines, in order.
    pub lines: Vec<Line>,
}

/// One line in three views of the same number of characters.
#[derive(Debug, Default)]
pub struct Line {
    /// Code, with blanks in place of comments and strings.
    pub code: String,
    /// Comments, with blanks in place of all else.
    pub comment: String,
    /// Strings, with blanks in place of all else.
    pub text: String,
    /// Whether the line begins inside of a string or a block comment.
    pub continues: bool,
}

impl Source {
    /// Reads a file.
    pub fn new(file: &str) -> Self {
        let characters: Vec<char> = file.chars().collect();
        let kinds = kinds(&characters);
        let mut lines = vec![Line::default()];
        for (index, (&character, &kind)) in characters.iter().zip(&kinds).enumerate() {
            if character == '\n' {
                let continues = kind != Kind::Code && kinds.get(index + 1) == Some(&kind);
                lines.push(Line { continues, ..Line::default() });
            } else if let Some(line) = lines.last_mut() {
                let blank = |wanted| if kind == wanted { character } else { ' ' };
                line.code.push(blank(Kind::Code));
                line.comment.push(blank(Kind::Comment));
                line.text.push(blank(Kind::Text));
            }
        }
        if file.ends_with('\n') {
            lines.pop();
        }
        Self { lines }
    }

    /// The code of all lines, with line feeds between them.
    pub fn code(&self) -> String {
        let mut code = String::new();
        for line in &self.lines {
            code.push_str(&line.code);
            code.push('\n');
        }
        code
    }
}

/// Returns the kind of each character.
fn kinds(characters: &[char]) -> Vec<Kind> {
    let mut kinds = Vec::with_capacity(characters.len());
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut index = 0;
    while index < characters.len() {
        let (kind, end) = match (at(index), at(index + 1)) {
            ('/', '/') => (Kind::Comment, end_of_line(characters, index)),
            ('/', '*') => (Kind::Comment, end_of_block(characters, index)),
            ('"', _) => (Kind::Text, end_of_string(characters, index + 1)),
            ('\'', _) => match end_of_character(characters, index) {
                Some(end) => (Kind::Text, end),
                None => (Kind::Code, index + 1),
            },
            ('r', '"' | '#') if !is_word(before(characters, index)) => {
                match raw_string(characters, index) {
                    Some(end) => (Kind::Text, end),
                    None => (Kind::Code, index + 1),
                }
            }
            _ => (Kind::Code, index + 1),
        };
        kinds.resize(end.min(characters.len()), kind);
        index = end;
    }
    kinds
}

/// Returns the character before `index`, leaving out the `b` or `c` that may open a raw string.
fn before(characters: &[char], index: usize) -> char {
    match index.checked_sub(1).and_then(|index| characters.get(index)) {
        Some('b' | 'c') => index.checked_sub(2).map_or(' ', |index| characters[index]),
        Some(&character) => character,
        None => ' ',
    }
}

/// Returns whether `character` can be part of an identifier.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn end_of_line(characters: &[char], from: usize) -> usize {
    let rest = &characters[from..];
    from + rest.iter().position(|&character| character == '\n').unwrap_or(rest.len())
}

fn end_of_block(characters: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut index = from;
    while index + 1 < characters.len() {
        match (characters[index], characters[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            return index;
        }
    }
    characters.len()
}

/// Returns the index after the quote that closes the string whose inside begins at `from`.
fn end_of_string(characters: &[char], from: usize) -> usize {
    let mut index = from;
    while index < characters.len() {
        match characters[index] {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    characters.len()
}

/// Returns the end of the character literal at `from`, or nothing if a lifetime begins there.
fn end_of_character(characters: &[char], from: usize) -> Option<usize> {
    match (characters.get(from + 1)?, characters.get(from + 2)?) {
        ('\\', _) => {
            let rest = &characters[from + 3..];
            Some(from + 4 + rest.iter().take(12).position(|&character| character == '\'')?)
        }
        (_, '\'') => Some(from + 3),
        _ => None,
    }
}

/// Returns the end of the raw string that begins with the `r` at `from`, if one does.
fn raw_string(characters: &[char], from: usize) -> Option<usize> {
    let hashes = characters[from + 1..].iter().take_while(|&&character| character == '#').count();
    let open = from + 1 + hashes;
    if characters.get(open) != Some(&'"') {
        return None;
    }
    let closes = |index: usize| {
        characters[index] == '"'
            && characters[index + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    let close = (open + 1..characters.len()).find(|&index| closes(index));
    Some(close.map_or(characters.len(), |close| close + 1 + hashes))
}

#[cfg(test)]
mod tests;
