//! The words form: a word and its operands, already split.

use dkv_base::id::Revision;
use dkv_wire::message::{Condition, Level};

use super::{Action, Command, Content, GrammarError, HowToRead, Key, Scan, Target, comma, quote};

/// A word of the words form.
pub(crate) struct Word {
    /// The word.
    pub(crate) word: &'static str,
    /// The word with its operands.
    pub(crate) form: &'static str,
    /// What it does, for the help.
    pub(crate) does: &'static str,
    /// Whether it is for the processes of a local network.
    pub(crate) local: bool,
}

const fn word(word: &'static str, form: &'static str, does: &'static str, local: bool) -> Word {
    Word { word, form, does, local }
}

/// All words, in the order of the help.
pub(crate) const WORDS: &[Word] = &[
    word(
        "get",
        "get KEY [LEVEL] [max-staleness MS] [at-least REVISION]",
        "print the value of a key",
        false,
    ),
    word(
        "put",
        "put KEY VALUE [LEVEL] [if-absent|if-present|if-revision N]",
        "store a value; -, @FILE: from standard input, from a file",
        false,
    ),
    word("insert", "insert KEY VALUE [LEVEL]", "store a value if the key does not exist", false),
    word("update", "update KEY VALUE [LEVEL]", "store a value if the key exists", false),
    word("delete", "delete KEY [LEVEL] [if-present|if-revision N]", "remove a key", false),
    word(
        "scan",
        "scan [PREFIX] [--after KEY] [--limit N] [--keys]",
        "list keys and values in order, as CSV that load takes",
        false,
    ),
    word("search", "search KEY", "show what each replica has of a key", false),
    word("show-all", "show-all NODE", "list what one node holds, as CSV", false),
    word("wait", "wait MS", "wait that many milliseconds", false),
    word("status", "status [--json]", "show how the network is", false),
    word("nodes", "nodes", "list the nodes", false),
    word("kill", "kill coordinator|NAME", "end a process at once, as a crash would", true),
    word("start", "start NAME", "start it again in its directory", true),
    word("stop", "stop coordinator|NAME", "stop it gracefully", true),
    word("pause", "pause coordinator|NAME", "freeze it, as a machine that hangs would", true),
    word("resume", "resume NAME", "let it continue", true),
    word("help", "help [COMMAND]", "show this help, or that of a command", false),
    word("exit", "exit", "leave; also quit, or Ctrl-D", false),
];

/// What people try, and what they mean.
const ALIASES: &[(&str, &str)] = &[
    ("read", "get"),
    ("set", "put"),
    ("write", "put"),
    ("del", "delete"),
    ("rm", "delete"),
    ("list", "scan"),
    ("keys", "scan"),
    ("sleep", "wait"),
    ("ls", "nodes"),
    ("restart", "start"),
    ("?", "help"),
];

/// Whether this is a word that something follows.
pub(crate) fn takes_operands(word: &[u8]) -> bool {
    WORDS.iter().any(|known| {
        known.word.as_bytes() == word
            && known.form.len() > word.len()
            && !matches!(word, b"status" | b"help")
    })
}

/// Whether this is one of the words.
pub(crate) fn is_word(word: &[u8]) -> bool {
    word == b"quit" || WORDS.iter().any(|known| known.word.as_bytes() == word)
}

/// Reads a command from its words.
pub(crate) fn command(words: &[Vec<u8>]) -> Result<Command, GrammarError> {
    let Some((first, operands)) = words.split_first() else {
        return Err(GrammarError::new("empty command", "help lists the commands"));
    };
    let name = if first == b"quit" { "exit" } else { &quote::shown(first) };
    let Some(known) = WORDS.iter().find(|known| known.word == name) else {
        return Err(unknown(name));
    };
    let wrong = || GrammarError::new(problem(known, operands), format!("write {}", known.form));
    let operands: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
    match (known.word, operands.as_slice()) {
        ("get", [name, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            let mut how = bounds(rest, known.form)?.ok_or_else(wrong)?;
            how.level = level;
            Ok(Command::Read { key: key(name)?, how })
        }
        ("put", [name, value, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            let condition = condition(rest).ok_or_else(wrong)?;
            Ok(Command::Write {
                key: key(name)?,
                value: Content::of_word(value)?,
                level,
                condition,
            })
        }
        ("insert" | "update", [name, value, rest @ ..]) => {
            let (level, []) = leading_level(rest) else { return Err(wrong()) };
            let inserts = known.word == "insert";
            let condition = if inserts { Condition::Absent } else { Condition::Present };
            Ok(Command::Write {
                key: key(name)?,
                value: Content::of_word(value)?,
                level,
                condition,
            })
        }
        ("delete", [name, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            match condition(rest) {
                // A delete on the condition that there is nothing to delete would be a mistake.
                None | Some(Condition::Absent) => Err(wrong()),
                Some(condition) => Ok(Command::Delete { key: key(name)?, level, condition }),
            }
        }
        ("scan", rest) => scan(rest).map(Command::Scan).ok_or_else(wrong),
        ("search", [name]) => Ok(Command::Search(key(name)?)),
        ("show-all", [node]) => Ok(Command::ShowAll { node: quote::shown(node) }),
        ("wait", [time]) => Ok(Command::Wait { ms: comma::milliseconds(time, known.form)? }),
        ("status", []) => Ok(Command::Status { json: false }),
        ("status", [b"--json" | b"json"]) => Ok(Command::Status { json: true }),
        ("nodes", []) => Ok(Command::Nodes),
        ("help", _) => Ok(Command::Help),
        ("exit", []) => Ok(Command::Exit),
        ("kill", [name]) => Ok(Command::Process(Action::Kill, target(name))),
        ("start", [name]) if *name != b"coordinator" => {
            Ok(Command::Process(Action::Start, target(name)))
        }
        ("stop", [name]) => Ok(Command::Process(Action::Stop, target(name))),
        ("pause", [name]) => Ok(Command::Process(Action::Pause, target(name))),
        ("resume", [name]) if *name != b"coordinator" => {
            Ok(Command::Process(Action::Resume, target(name)))
        }
        _ => Err(wrong()),
    }
}

/// What is wrong with the operands of a word.
fn problem(known: &Word, operands: &[Vec<u8>]) -> String {
    let needed = match known.word {
        "put" | "insert" | "update" => 2,
        "get" | "delete" | "search" | "show-all" | "wait" | "kill" | "start" | "stop" | "pause"
        | "resume" => 1,
        _ => 0,
    };
    if operands.len() < needed {
        let missing = known.form.split(' ').nth(1 + operands.len()).unwrap_or("an operand");
        return format!("{missing} is missing");
    }
    let rest = &operands[needed..];
    match (rest.iter().find(|word| !is_option(word)), rest.last()) {
        (Some(strange), _) => format!("unexpected argument {:?}", quote::shown(strange)),
        (None, Some(last)) => {
            format!("{:?} is not allowed here", quote::shown(last))
        }
        (None, None) => "something is wrong with it".to_owned(),
    }
}

/// Whether a word is an option of some command.
fn is_option(word: &[u8]) -> bool {
    level(word).is_some()
        || matches!(
            word,
            b"if-absent"
                | b"if-present"
                | b"if-revision"
                | b"max-staleness"
                | b"at-least"
                | b"--after"
                | b"--limit"
                | b"--keys"
                | b"--json"
        )
}

fn unknown(name: &str) -> GrammarError {
    let problem = if name.chars().count() > 32 {
        "there is no such command".to_owned()
    } else {
        format!("there is no command {name}")
    };
    match meant(name) {
        Some(known) => GrammarError::new(problem, format!("did you mean {}?", known.form)),
        None => GrammarError::new(
            problem,
            format!("use one of {}, or see help for the others", comma::FORMS),
        ),
    }
}

/// The word that somebody meant who wrote this one.
pub(crate) fn meant(name: &str) -> Option<&'static Word> {
    let lower = name.to_lowercase();
    let meant = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, word)| *word);
    let meant = meant.or_else(|| slip_of(&lower, WORDS.iter().map(|known| known.word)));
    WORDS.iter().find(|known| Some(known.word) == meant)
}

/// The first of some names that a word is a slip of: one letter too many, too few or wrong, or two
/// exchanged.
pub(crate) fn slip_of<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().find(|name| distance(name, word) <= 1)
}

/// How many letters must be put in, left out, changed or exchanged with the next to come from one
/// word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.iter().enumerate() {
        let mut next = vec![line + 1];
        for (column, right) in to.iter().enumerate() {
            let changed = row[column] + usize::from(left != right);
            let mut least = changed.min(row[column + 1] + 1).min(next[column] + 1);
            if line > 0 && column > 0 && from[line - 1] == *right && *left == to[column - 1] {
                least = least.min(before[column - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

fn key(bytes: &[u8]) -> Result<Key, GrammarError> {
    Key::new(bytes).map_err(|error| GrammarError::new(error.to_string(), "give another key"))
}

/// All levels, for messages.
pub(crate) const LEVELS: &str = "strong, session, eventual or all";

/// The level of that word. Those of older stores are understood: how many replicas take part.
pub(crate) fn level(word: &[u8]) -> Option<Level> {
    match word {
        b"strong" | b"quorum" => Some(Level::Strong),
        b"session" => Some(Level::Session),
        b"eventual" | b"one" | b"1" => Some(Level::Eventual),
        b"all" | b"9" => Some(Level::All),
        _ => None,
    }
}

/// A level, if the first word is one, and the words after it.
fn leading_level<'a, 'b>(words: &'a [&'b [u8]]) -> (Option<Level>, &'a [&'b [u8]]) {
    match words {
        [first, rest @ ..] if level(first).is_some() => (level(first), rest),
        _ => (None, words),
    }
}

/// How far behind an eventual answer may be; nothing if that is not what stands there.
fn bounds(words: &[&[u8]], form: &str) -> Result<Option<HowToRead>, GrammarError> {
    let mut how = HowToRead::default();
    for pair in words.chunks(2) {
        let [name, number] = pair else { return Ok(None) };
        let twice = match *name {
            b"max-staleness" => {
                let ms = whole(number, "a number of milliseconds", form)?;
                how.max_staleness_ms.replace(ms).is_some()
            }
            b"at-least" => {
                let revision = Revision(whole(number, "a revision", form)?);
                how.at_least.replace(revision).is_some()
            }
            _ => return Ok(None),
        };
        if twice {
            return Ok(None);
        }
    }
    Ok(Some(how))
}

/// A number in digits.
fn whole(text: &[u8], of: &str, form: &str) -> Result<u64, GrammarError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        GrammarError::new(
            format!("{:?} is not {of}", quote::shown(text)),
            format!("write {form} with a number from 0 to {}", u64::MAX),
        )
    })
}

fn condition(words: &[&[u8]]) -> Option<Condition> {
    match words {
        [] => Some(Condition::Always),
        [b"if-absent"] => Some(Condition::Absent),
        [b"if-present"] => Some(Condition::Present),
        [b"if-revision", number] => {
            let number = std::str::from_utf8(number).ok()?.parse().ok()?;
            Some(Condition::Revision(Revision(number)))
        }
        _ => None,
    }
}

/// A prefix, which comes first, and options. A prefix that looks like an option is written `--`
/// before it, as in a shell.
fn scan(mut words: &[&[u8]]) -> Option<Scan> {
    let mut scan = Scan::default();
    match words {
        [b"--", prefix, rest @ ..] => (scan.prefix, words) = (prefix.to_vec(), rest),
        [prefix, rest @ ..] if !prefix.starts_with(b"--") => {
            (scan.prefix, words) = (prefix.to_vec(), rest);
        }
        _ => {}
    }
    loop {
        words = match words {
            [] => return Some(scan),
            [b"--after", key, rest @ ..] if scan.after.is_empty() => {
                scan.after = key.to_vec();
                rest
            }
            [b"--limit", number, rest @ ..] if scan.limit.is_none() => {
                scan.limit = Some(std::str::from_utf8(number).ok()?.parse().ok()?);
                rest
            }
            [b"--keys", rest @ ..] if !scan.keys_only => {
                scan.keys_only = true;
                rest
            }
            _ => return None,
        }
    }
}

fn target(name: &[u8]) -> Target {
    match name {
        b"coordinator" => Target::Coordinator,
        _ => Target::Named(quote::shown(name)),
    }
}
