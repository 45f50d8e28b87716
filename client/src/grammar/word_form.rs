//! The word form: a word and its operands, already split.

use dkv_api::{Attach, LeaseId, WatchToken};
use dkv_base::id::Revision;
use dkv_console::units::parse_duration;
use dkv_wire::message::{Condition, Level};

use super::{
    Command, GrammarError, History, Key, ProcessAction, ProcessTarget, ReadParameters, Scan,
    ValueSource, Watch, comma_form, quote,
};

/// A word that begins a command.
pub(crate) struct Keyword {
    /// The word.
    pub(crate) word: &'static str,
    /// The word with its operands, for messages.
    pub(crate) form: &'static str,
    /// What it does, for the help.
    pub(crate) does: &'static str,
    /// Whether it acts on the processes of a local network.
    pub(crate) local: bool,
}

const fn keyword(
    word: &'static str,
    form: &'static str,
    does: &'static str,
    local: bool,
) -> Keyword {
    Keyword { word, form, does, local }
}

/// All words, in the order of the help.
pub(crate) const KEYWORDS: &[Keyword] = &[
    keyword(
        "get",
        "get KEY [LEVEL] [max-staleness MS] [at-least REVISION] [--revision N]",
        "print the value of a key",
        false,
    ),
    keyword(
        "put",
        "put KEY VALUE [LEVEL] [if-absent|if-present|if-revision N] [--ttl TIME|--lease ID]",
        "store a value; - reads standard input, @FILE a file",
        false,
    ),
    keyword(
        "insert",
        "insert KEY VALUE [LEVEL] [--ttl TIME|--lease ID]",
        "store a value if the key does not exist",
        false,
    ),
    keyword(
        "update",
        "update KEY VALUE [LEVEL] [--ttl TIME|--lease ID]",
        "store a value if the key exists",
        false,
    ),
    keyword("delete", "delete KEY [LEVEL] [if-present|if-revision N]", "remove a key", false),
    keyword(
        "scan",
        "scan [PREFIX] [--after KEY] [--limit N] [--keys] [--revision N|--snapshot]",
        "list keys and values in order, as CSV that load accepts",
        false,
    ),
    keyword(
        "history",
        "history KEY [--limit N] [--before REVISION] [--json]",
        "list the versions of a key, newest first",
        false,
    ),
    keyword(
        "watch",
        "watch [PREFIX] [--key] [--from TOKEN] [--previous] [--json]",
        "show changes as they happen, until Ctrl-C",
        false,
    ),
    keyword("search", "search KEY", "show what each replica has of a key", false),
    keyword("show-all", "show-all NODE", "list what one node holds, as CSV", false),
    keyword("wait", "wait MS", "wait for some milliseconds", false),
    keyword("status", "status [--json]", "show the state of the network", false),
    keyword("nodes", "nodes", "list the nodes", false),
    keyword("kill", "kill coordinator|NAME", "kill a process, as a crash would", true),
    keyword("start", "start NAME", "start it again in its directory", true),
    keyword("stop", "stop coordinator|NAME", "stop it gracefully", true),
    keyword("pause", "pause coordinator|NAME", "freeze it, like a machine that hangs", true),
    keyword("resume", "resume NAME", "let it continue", true),
    keyword("help", "help [COMMAND]", "show this help, or the help of a command", false),
    keyword("exit", "exit", "leave; also quit, or Ctrl-D", false),
];

/// Words of other stores, and what they mean here.
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

/// Returns whether a word takes operands.
pub(crate) fn takes_operands(word: &[u8]) -> bool {
    KEYWORDS.iter().any(|known| {
        known.word.as_bytes() == word
            && known.form.len() > word.len()
            && !matches!(word, b"status" | b"help")
    })
}

/// Returns whether this is a word of the grammar.
pub(crate) fn is_word(word: &[u8]) -> bool {
    word == b"quit" || KEYWORDS.iter().any(|known| known.word.as_bytes() == word)
}

/// Parses a command from its words.
///
/// # Errors
/// A mistake in it.
pub(crate) fn command(words: &[Vec<u8>]) -> Result<Command, GrammarError> {
    let Some((first, operands)) = words.split_first() else {
        return Err(GrammarError::new("empty command", "help lists the commands"));
    };
    let name = if first == b"quit" { "exit" } else { &quote::escaped(first) };
    let Some(known) = KEYWORDS.iter().find(|known| known.word == name) else {
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
            let (rest, attach) = attachment(rest, known.form)?;
            let condition = condition(rest, known.form)?.ok_or_else(wrong)?;
            Ok(Command::Write {
                key: key(name)?,
                value: ValueSource::of_operand(value)?,
                level,
                condition,
                attach,
            })
        }
        ("insert" | "update", [name, value, rest @ ..]) => {
            let (rest, attach) = attachment(rest, known.form)?;
            let (level, []) = leading_level(rest) else { return Err(wrong()) };
            let inserts = known.word == "insert";
            let condition = if inserts { Condition::Absent } else { Condition::Present };
            Ok(Command::Write {
                key: key(name)?,
                value: ValueSource::of_operand(value)?,
                level,
                condition,
                attach,
            })
        }
        ("delete", [name, rest @ ..]) => {
            let (level, rest) = leading_level(rest);
            match condition(rest, known.form)? {
                // Deleting a key on the condition that it is absent makes no sense.
                None | Some(Condition::Absent) => Err(wrong()),
                Some(condition) => Ok(Command::Delete { key: key(name)?, level, condition }),
            }
        }
        ("scan", rest) => scan(rest, known.form)?.map(Command::Scan).ok_or_else(wrong),
        ("history", [name, rest @ ..]) => {
            history(key(name)?, rest, known.form)?.map(Command::History).ok_or_else(wrong)
        }
        ("watch", rest) => watch(rest, known.form)?.map(Command::Watch).ok_or_else(wrong),
        ("search", [name]) => Ok(Command::Search(key(name)?)),
        ("show-all", [node]) => Ok(Command::ShowAll { node: quote::escaped(node) }),
        ("wait", [time]) => Ok(Command::Wait { ms: comma_form::milliseconds(time, known.form)? }),
        ("status", []) => Ok(Command::Status { json: false }),
        ("status", [b"--json" | b"json"]) => Ok(Command::Status { json: true }),
        ("nodes", []) => Ok(Command::Nodes),
        ("help", _) => Ok(Command::Help),
        ("exit", []) => Ok(Command::Exit),
        ("kill", [name]) => Ok(Command::Process(ProcessAction::Kill, target(name))),
        ("start", [name]) if *name != b"coordinator" => {
            Ok(Command::Process(ProcessAction::Start, target(name)))
        }
        ("stop", [name]) => Ok(Command::Process(ProcessAction::Stop, target(name))),
        ("pause", [name]) => Ok(Command::Process(ProcessAction::Pause, target(name))),
        ("resume", [name]) if *name != b"coordinator" => {
            Ok(Command::Process(ProcessAction::Resume, target(name)))
        }
        _ => Err(wrong()),
    }
}

/// Says what is wrong with the operands of a word.
fn problem(known: &Keyword, operands: &[Vec<u8>]) -> String {
    let needed = match known.word {
        "put" | "insert" | "update" => 2,
        "get" | "delete" | "history" | "search" | "show-all" | "wait" | "kill" | "start"
        | "stop" | "pause" | "resume" => 1,
        _ => 0,
    };
    if operands.len() < needed {
        let missing = known.form.split(' ').nth(1 + operands.len()).unwrap_or("an operand");
        return format!("{missing} is missing");
    }
    let mut rest = &operands[needed..];
    if let ("scan" | "watch", Some(first)) = (known.word, rest.first())
        && !is_option(first)
    {
        rest = &rest[1..];
    }
    match (rest.iter().find(|word| !is_option(word)), rest.last()) {
        (Some(strange), _) => format!("unexpected argument {:?}", quote::escaped(strange)),
        (None, Some(last)) => {
            format!("{:?} is not allowed here", quote::escaped(last))
        }
        (None, None) => "the operands are wrong".to_owned(),
    }
}

/// Returns whether a word is an option of some command.
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
                | b"--revision"
                | b"--snapshot"
                | b"--before"
                | b"--key"
                | b"--from"
                | b"--previous"
                | b"--ttl"
                | b"--lease"
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
            format!("write one of {}, or see help for the others", comma_form::FORMS),
        ),
    }
}

/// Returns the word that a wrong one probably means.
pub(crate) fn meant(name: &str) -> Option<&'static Keyword> {
    let lower = name.to_lowercase();
    let meant = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, word)| *word);
    let meant = meant.or_else(|| typo_of(&lower, KEYWORDS.iter().map(|known| known.word)));
    KEYWORDS.iter().find(|known| Some(known.word) == meant)
}

/// Returns the first name that differs from a word by a typo: one letter too many, too few or
/// wrong, or two swapped.
pub(crate) fn typo_of<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().find(|name| distance(name, word) <= 1)
}

/// Returns the edit distance of two words, where swapping two neighbours is one edit.
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
    Key::new(bytes).map_err(|error| GrammarError::new(error.to_string(), "use another key"))
}

/// All levels, for messages.
pub(crate) const LEVELS: &str = "strong, session, eventual or all";

/// Returns the level of a word. The words of other stores are accepted, too, such as `quorum`,
/// `one` and the number of replicas.
pub(crate) fn level(word: &[u8]) -> Option<Level> {
    match word {
        b"strong" | b"quorum" => Some(Level::Strong),
        b"session" => Some(Level::Session),
        b"eventual" | b"one" | b"1" => Some(Level::Eventual),
        b"all" | b"9" => Some(Level::All),
        _ => None,
    }
}

/// Splits off a level, if the first word is one.
fn leading_level<'a, 'b>(words: &'a [&'b [u8]]) -> (Option<Level>, &'a [&'b [u8]]) {
    match words {
        [first, rest @ ..] if level(first).is_some() => (level(first), rest),
        _ => (None, words),
    }
}

/// Parses bounds for an eventual read; `None` if the words are something else.
fn bounds(words: &[&[u8]], form: &str) -> Result<Option<ReadParameters>, GrammarError> {
    let mut how = ReadParameters::default();
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
            b"--revision" => {
                let revision = Revision(whole(number, "a revision", form)?);
                how.revision.replace(revision).is_some()
            }
            _ => return Ok(None),
        };
        if twice {
            return Ok(None);
        }
    }
    Ok(Some(how))
}

/// Parses a decimal number.
fn whole(text: &[u8], of: &str, form: &str) -> Result<u64, GrammarError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        GrammarError::new(
            format!("{:?} is not {of}", quote::escaped(text)),
            format!("write {form} with a number from 0 to {}", u64::MAX),
        )
    })
}

/// Parses an optional condition. Returns `None` if the words are not one.
fn condition(words: &[&[u8]], form: &str) -> Result<Option<Condition>, GrammarError> {
    Ok(match words {
        [] => Some(Condition::Always),
        [b"if-absent"] => Some(Condition::Absent),
        [b"if-present"] => Some(Condition::Present),
        [b"if-revision", number] => {
            Some(Condition::Revision(Revision(whole(number, "a revision", form)?)))
        }
        _ => None,
    })
}

/// Splits off how long a key will live, which stands at the end.
fn attachment<'a, 'b>(
    words: &'a [&'b [u8]],
    form: &str,
) -> Result<(&'a [&'b [u8]], Option<Attach>), GrammarError> {
    let wrong = |problem: String| GrammarError::new(problem, format!("write {form}"));
    let text = |word: &[u8]| quote::escaped(word);
    let (rest, attach) = match words {
        [rest @ .., b"--ttl", time] => {
            let ttl = parse_duration(&text(time));
            let ttl = ttl.map_err(|error| wrong(format!("--ttl {}: {error}", text(time))))?;
            (rest, Attach::Ttl(ttl))
        }
        [rest @ .., b"--lease", id] => {
            let lease = text(id).parse::<LeaseId>();
            (rest, Attach::Lease(lease.map_err(|error| wrong(format!("{error}")))?))
        }
        [.., b"--ttl" | b"--lease"] => return Err(wrong("an option has no value".to_owned())),
        _ => return Ok((words, None)),
    };
    if rest.iter().any(|word| matches!(*word, b"--ttl" | b"--lease")) {
        return Err(wrong("a key has one time to live or one lease".to_owned()));
    }
    Ok((rest, Some(attach)))
}

/// Splits off an optional prefix. One that looks like an option follows `--`, as in a shell.
fn leading_prefix<'a, 'b>(words: &'a [&'b [u8]]) -> (Vec<u8>, &'a [&'b [u8]]) {
    match words {
        [b"--", prefix, rest @ ..] => (prefix.to_vec(), rest),
        [prefix, rest @ ..] if !prefix.starts_with(b"--") => (prefix.to_vec(), rest),
        _ => (Vec::new(), words),
    }
}

/// Parses the operands of a scan; `None` if they are something else.
fn scan(words: &[&[u8]], form: &str) -> Result<Option<Scan>, GrammarError> {
    let (prefix, mut words) = leading_prefix(words);
    let mut scan = Scan { prefix, ..Scan::default() };
    loop {
        words = match words {
            [] => return Ok(Some(scan)),
            [b"--after", key, rest @ ..] if scan.after.is_empty() => {
                scan.after = key.to_vec();
                rest
            }
            [b"--limit", number, rest @ ..] if scan.limit.is_none() => {
                scan.limit = Some(whole(number, "a number of keys", form)?);
                rest
            }
            [b"--keys", rest @ ..] if !scan.keys_only => {
                scan.keys_only = true;
                rest
            }
            [b"--snapshot", rest @ ..] if !scan.snapshot && scan.revision.is_none() => {
                scan.snapshot = true;
                rest
            }
            [b"--revision", number, rest @ ..] if scan.revision.is_none() && !scan.snapshot => {
                scan.revision = Some(Revision(whole(number, "a revision", form)?));
                rest
            }
            _ => return Ok(None),
        }
    }
}

/// Parses the options of a history; `None` if they are something else.
fn history(key: Key, words: &[&[u8]], form: &str) -> Result<Option<History>, GrammarError> {
    let mut history = History { key, before: None, limit: None, json: false };
    let mut words = words;
    loop {
        words = match words {
            [] => return Ok(Some(history)),
            [b"--before", number, rest @ ..] if history.before.is_none() => {
                history.before = Some(Revision(whole(number, "a revision", form)?));
                rest
            }
            [b"--limit", number, rest @ ..] if history.limit.is_none() => {
                history.limit = Some(whole(number, "a number of versions", form)?);
                rest
            }
            [b"--json", rest @ ..] if !history.json => {
                history.json = true;
                rest
            }
            _ => return Ok(None),
        }
    }
}

/// Parses the operands of a watch; `None` if they are something else.
fn watch(words: &[&[u8]], form: &str) -> Result<Option<Watch>, GrammarError> {
    let (keys, mut words) = leading_prefix(words);
    let mut watch = Watch { keys, ..Watch::default() };
    loop {
        words = match words {
            [] if watch.exact => {
                key(&watch.keys)?;
                return Ok(Some(watch));
            }
            [] => return Ok(Some(watch)),
            [b"--key", rest @ ..] if !watch.exact => {
                watch.exact = true;
                rest
            }
            [b"--from", token, rest @ ..] if watch.from.is_none() => {
                watch.from = Some(token_of(token, form)?);
                rest
            }
            [b"--previous", rest @ ..] if !watch.previous => {
                watch.previous = true;
                rest
            }
            [b"--json", rest @ ..] if !watch.json => {
                watch.json = true;
                rest
            }
            _ => return Ok(None),
        }
    }
}

/// Parses a position in the changes of shards.
fn token_of(text: &[u8], form: &str) -> Result<WatchToken, GrammarError> {
    let token = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    token.ok_or_else(|| {
        let mut shown = quote::escaped(text);
        if shown.chars().count() > 48 {
            shown = shown.chars().take(48).chain("…".chars()).collect();
        }
        GrammarError::new(
            format!("{shown:?} is not a position of a watch, such as 1:500,2:33 or 500"),
            format!("write {form} with a position that watch has printed"),
        )
    })
}

fn target(name: &[u8]) -> ProcessTarget {
    match name {
        b"coordinator" => ProcessTarget::Coordinator,
        _ => ProcessTarget::Named(quote::escaped(name)),
    }
}
