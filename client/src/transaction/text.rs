//! Transactions as text: conditions, a line `then` and operations, a line `else` and operations.

use dkv_api::{Compare, Relation, Revision, Transaction, TransactionOperation};
use dkv_console::quote;

/// A transaction that was parsed.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) transaction: Transaction,
    /// Whether it says what to do if a condition does not hold.
    pub(super) has_else: bool,
}

/// Why a text is no transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(super) struct TextError {
    line: usize,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Conditions,
    Then,
    Else,
}

const FORMS: &str = "write put KEY VALUE, get KEY, delete KEY, increment KEY [N] or \
                     append KEY VALUE";
const CONDITIONS: &str = "write if KEY = VALUE, if KEY exists, if KEY absent, \
                          if revision KEY = N or if version KEY > N";

/// Parses a transaction.
///
/// # Errors
/// Names the first line that is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Written, TextError> {
    let (mut transaction, mut part) = (Transaction::new(), Part::Conditions);
    let mut last = 0;
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |why: String| TextError { line: index + 1, why };
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        last = index;
        let words = quote::split(line).map_err(|error| wrong(error.to_string()))?;
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        match (words.as_slice(), part) {
            ([b"if", condition @ ..], Part::Conditions) => {
                transaction = transaction.when(compare(condition).map_err(wrong)?);
            }
            ([b"if", ..], _) => {
                return Err(wrong("conditions come before the line then".into()));
            }
            ([b"then"], Part::Conditions) => part = Part::Then,
            ([b"else"], Part::Then) => part = Part::Else,
            ([b"else"], Part::Conditions) => {
                return Err(wrong("else comes after the line then".into()));
            }
            ([word @ (b"then" | b"else")], _) => {
                let word = quote::escaped(word);
                return Err(wrong(format!("there is one line {word} only; omit this one")));
            }
            (words, part) => {
                let operation = operation(words).map_err(wrong)?;
                transaction = match part {
                    Part::Conditions => {
                        let why = "operations come after a line with the word then";
                        return Err(wrong(why.into()));
                    }
                    Part::Then => transaction.then(operation),
                    Part::Else => transaction.otherwise(operation),
                };
            }
        }
    }
    let is_empty = [true, false].iter().all(|&then| transaction.operations(then).is_empty());
    if is_empty {
        let why = format!("the transaction ends without an operation; {FORMS} after a line then");
        return Err(TextError { line: last + 1, why });
    }
    Ok(Written { transaction, has_else: part == Part::Else })
}

fn compare(words: &[&[u8]]) -> Result<Compare, String> {
    let wrong = || format!("this is no condition; {CONDITIONS}");
    match *words {
        [key, b"exists"] => Ok(Compare::exists(key)),
        [key, b"absent"] => Ok(Compare::absent(key)),
        [key, relation, value] => {
            let relation = relation_of(relation).ok_or_else(wrong)?;
            Ok(Compare::value(key, relation, value.to_vec()))
        }
        [part @ (b"revision" | b"created" | b"version"), key, relation, text] => {
            let relation = relation_of(relation).ok_or_else(wrong)?;
            let other: u64 = number_of(text)?;
            Ok(match part {
                b"revision" => Compare::revision(key, relation, Revision(other)),
                b"created" => Compare::created(key, relation, Revision(other)),
                _ => Compare::version(key, relation, other),
            })
        }
        _ => Err(wrong()),
    }
}

fn relation_of(word: &[u8]) -> Option<Relation> {
    match word {
        b"=" => Some(Relation::Equal),
        b"!=" => Some(Relation::NotEqual),
        b"<" => Some(Relation::Less),
        b">" => Some(Relation::Greater),
        _ => None,
    }
}

fn operation(words: &[&[u8]]) -> Result<TransactionOperation, String> {
    match *words {
        [b"put", key, value] => Ok(TransactionOperation::put(key, value.to_vec())),
        [b"get", key] => Ok(TransactionOperation::get(key)),
        [b"delete", key] => Ok(TransactionOperation::delete(key)),
        [b"increment", key] => Ok(TransactionOperation::increment(key, 1)),
        [b"increment", key, by] => Ok(TransactionOperation::increment(key, number_of(by)?)),
        [b"append", key, value] => Ok(TransactionOperation::append(key, value.to_vec())),
        [word @ (b"put" | b"get" | b"delete" | b"increment" | b"append"), ..] => {
            Err(format!("{} has other operands; {FORMS}", quote::escaped(word)))
        }
        [word, ..] => Err(format!("there is no operation \"{}\"; {FORMS}", quote::escaped(word))),
        [] => Err(FORMS.into()),
    }
}

fn number_of<T: std::str::FromStr>(word: &[u8]) -> Result<T, String> {
    let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("\"{}\" is no whole number of 64 bits", quote::escaped(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_transaction() {
        let text = b"# an order\nif 'order 17' absent\nif stock > \"0\"\nif revision stock = 7\n\
            if version stock != 3\n\nthen\n  put 'order 17' bolt\n  increment stock -1\n\
            get stock\nelse\nget stock\nappend log \"a\\n\"\ndelete x\nincrement n\n";
        let Written { transaction, has_else } = parse(text).unwrap();
        let same = Transaction::new()
            .when(Compare::absent("order 17"))
            .when(Compare::value("stock", Relation::Greater, "0"))
            .when(Compare::revision("stock", Relation::Equal, Revision(7)))
            .when(Compare::version("stock", Relation::NotEqual, 3))
            .then(TransactionOperation::put("order 17", "bolt"))
            .then(TransactionOperation::increment("stock", -1))
            .then(TransactionOperation::get("stock"))
            .otherwise(TransactionOperation::get("stock"))
            .otherwise(TransactionOperation::append("log", "a\n"))
            .otherwise(TransactionOperation::delete("x"))
            .otherwise(TransactionOperation::increment("n", 1));
        assert_eq!((transaction, has_else), (same, true));
        assert!(!parse(b"then\r\nput if then\r\n").unwrap().has_else);
    }

    #[test]
    fn an_error_names_the_line() {
        for (text, says) in [
            ("", "line 1: the transaction ends without an operation"),
            ("if a = 1\nthen\n", "line 2: the transaction ends without an operation"),
            ("put a 1", "line 1: operations come after a line with the word then"),
            ("then\nput a", "line 2: put has other operands; write put KEY VALUE"),
            ("then\nput a 1\n\nif a = 1", "line 4: conditions come before the line then"),
            ("then\nput a 1\nthen", "line 3: there is one line then only"),
            ("else", "line 1: else comes after the line then"),
            ("then\nfetch a", "line 2: there is no operation \"fetch\"; write put"),
            ("then\nincrement a x", "line 2: \"x\" is no whole number"),
            ("if a ~ b\nthen", "line 1: this is no condition; write if KEY = VALUE"),
            ("if revision a = -1", "line 1: \"-1\" is no whole number"),
            ("then\nput 'a 1", "line 2: a quote ' is not closed"),
        ] {
            let said = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(said.starts_with(says), "{said}");
        }
    }
}
