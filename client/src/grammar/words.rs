//! The words form: a word and its operands, already split.

use dkv_wire::id::Revision;
use dkv_wire::message::{Condition, Level};

use super::{Action, Command, GrammarError, HowToRead, Key, Scan, Target, comma, quote};

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
        "store a value, on a condition if one is given",
        false,
    ),
    word("insert", "insert KEY VALUE [LEVEL]", "store a value, if there is none yet", false),
    word("update", "update KEY VALUE [LEVEL]", "store a value in the place of another", false),
    word(
        "delete",
        "delete KEY [LEVEL] [if-present|if-revision N]",
        "remove a key, on a condition if one is given",
        false,
    ),
    word(
        "scan",
        "scan [PREFIX] [--after KEY] [--limit N] [--keys]",
        "list keys and values in order, as CSV",
        false,
    ),
    word(
        "search",
        "search KEY",
        "show what each replica has of a key, and when it was written",
        false,
    ),
    word("show-all", "show-all NODE", "list what one node holds, as CSV", false),
    word("wait", "wait MS", "wait that many milliseconds", false),
    word("status", "status [--json]", "show how the network is", false),
    word("nodes", "nodes", "list the nodes", false),
    word("kill", "kill coordinator|NAME", "end a process at once, as a crash would", true),
    word("start", "start NAME", "start it again in its directory", true),
    word("stop", "stop coordinator|NAME", "stop it in good order", true),
    word("pause", "pause coordinator|NAME", "make it stand still, as a hang would", true),
    word("resume", "resume NAME", "let it go on", true),
    word("help", "help", "show this help", false),
    word("exit", "exit", "leave; also quit, or Ctrl-D", false),
];

/// What people try, and what they mean.
const ALIASES: &[(&str, &str)] = &[
    ("read", "get"),
    ("set", "put"),
    ("write", "put"),
    ("del", "delete"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("list", "scan"),
    ("keys", "scan"),
    ("sleep", "wait"),
    ("ls", "nodes"),
    ("restart", "start"),
    ("?", "help"),
];

/// Whether this is a word that something follows.
pub(super) fn takes_operands(word: &[u8]) -> bool {
    WORDS.iter().any(|known| {
        known.word.as_bytes() == word && known.form.len() > word.len() && word != b"status"
    })
}

/// Reads a command from its words.
pub(super) fn command(words: &[Vec<u8>]) -> Result<Command, GrammarError> {
    let Some((first, operands)) = words.split_first() else {
        return Err(GrammarError::new("it is empty", "type help for the commands"));
    };
    let name = if first == b"quit" { "exit" } else { &quote::shown(first) };
    let Some(known) = WORDS.iter().find(|known| known.word == name) else {
        return Err(unknown(name));
    };
    let wrong = || GrammarError::new(problem(operands), format!("write {}", known.form));
    let operands: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
    match (known.word, operands.as_slice()) {
        ("get", [name, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            let mut how = bounds(rest).ok_or_else(wrong)?;
            how.level = level;
            Ok(Command::Read { key: key(name)?, how })
        }
        ("put", [name, value, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            let condition = condition(rest).ok_or_else(wrong)?;
            Ok(Command::Write { key: key(name)?, value: value.to_vec(), level, condition })
        }
        ("insert" | "update", [name, value, rest @ ..]) => {
            let (level, []) = leading_level(rest) else { return Err(wrong()) };
            let inserts = known.word == "insert";
            let condition = if inserts { Condition::Absent } else { Condition::Present };
            Ok(Command::Write { key: key(name)?, value: value.to_vec(), level, condition })
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

fn problem<T>(operands: &[T]) -> &'static str {
    if operands.is_empty() { "something is missing" } else { "what follows does not fit" }
}

fn unknown(name: &str) -> GrammarError {
    let problem = if name.chars().count() > 32 {
        "there is no such command".to_owned()
    } else {
        format!("there is no command {name}")
    };
    let lower = name.to_lowercase();
    let meant = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, word)| *word);
    let meant = meant.or_else(|| {
        let close = |known: &&Word| distance(known.word, &lower) <= 1;
        WORDS.iter().find(close).map(|known| known.word)
    });
    match meant.and_then(|word| WORDS.iter().find(|known| known.word == word)) {
        Some(known) => GrammarError::new(problem, format!("did you mean {}?", known.form)),
        None => GrammarError::new(
            problem,
            format!("write one of {}, or type help for the words", comma::FORMS),
        ),
    }
}

/// How many letters must be put in, left out or exchanged to come from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.iter().enumerate() {
            let exchanged = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
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

/// How far behind an eventual answer may be.
fn bounds(words: &[&[u8]]) -> Option<HowToRead> {
    let mut how = HowToRead::default();
    for pair in words.chunks(2) {
        let [name, number] = pair else { return None };
        let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let twice = match *name {
            b"max-staleness" => how.max_staleness_ms.replace(number).is_some(),
            b"at-least" => how.at_least.replace(Revision(number)).is_some(),
            _ => return None,
        };
        if twice {
            return None;
        }
    }
    Some(how)
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
