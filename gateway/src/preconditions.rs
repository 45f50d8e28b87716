//! Entity tags and preconditions (RFC 9110, sections 8.8.3 and 13).
//!
//! The entity tag of a value is the revision of the write that stored it, in quotes. It is a strong
//! one: two values of a key with the same revision are the same bytes.
//!
//! A write has one condition at most, because the network knows one for each write: `If-Match` with
//! `*` or the entity tag of one revision, beside which those that match nothing may stand, or
//! `If-None-Match: *`. A list of several revisions is refused rather than half kept. Deliberately
//! missing: `If-Modified-Since` and its like, since revisions are no times; they are passed over,
//! as RFC 9110 asks.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use dkv_api::{Condition, Revision};

/// A header field of preconditions.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// The revision, if it is one of ours.
    revision: Option<Revision>,
}

/// What the conditions of a write come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// This has to hold.
    If(Condition),
    /// It cannot hold: the entity tag is none that a value can have.
    Never,
}

/// What the conditions of a read come to, for a key that exists at `revision`, or does not. An
/// eventual write that is not ordered yet is at none, which is zero: it matches `*` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Answer with the value.
    Serve,
    /// 304: the caller has it.
    NotModified,
    /// 412: it is not what the caller expects.
    Failed,
}

/// The entity tag of a revision.
pub fn entity_tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// The condition of a write.
///
/// # Errors
/// What is wrong with the header fields, in one line.
pub fn for_write(headers: &HeaderMap) -> Result<WriteCondition, String> {
    match (read(headers, &IF_MATCH)?, read(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(WriteCondition::If(Condition::Always)),
        // No key is there and not there.
        (Some(_), Some(Tags::Any)) => Ok(WriteCondition::Never),
        (Some(_), Some(Tags::List(_))) => Err("If-None-Match of a write must be *".into()),
        (None, Some(Tags::Any)) => Ok(WriteCondition::If(Condition::Absent)),
        (None, Some(Tags::List(_))) => Err("If-None-Match of a write must be *".into()),
        (Some(Tags::Any), None) => Ok(WriteCondition::If(Condition::Present)),
        (Some(Tags::List(tags)), None) => {
            // A weak tag never matches here (RFC 9110, section 13.1.1), nor one that is not ours.
            let strong = tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.revision);
            let revisions: BTreeSet<Revision> = strong.collect();
            match (revisions.first(), revisions.len()) {
                (Some(revision), 1) => Ok(WriteCondition::If(Condition::Revision(*revision))),
                (None, _) => Ok(WriteCondition::Never),
                _ => Err("If-Match of a write takes the entity tag of one revision".into()),
            }
        }
    }
}

/// The conditions of a read, to be judged once the key was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadConditions {
    matching: Option<Tags>,
    none_matching: Option<Tags>,
}

impl ReadConditions {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong with the header fields, in one line.
    pub fn parse(headers: &HeaderMap) -> Result<Self, String> {
        let matching = read(headers, &IF_MATCH)?;
        Ok(Self { matching, none_matching: read(headers, &IF_NONE_MATCH)? })
    }

    /// Judges them in the order of RFC 9110, section 13.2.2.
    pub fn judge(&self, current: Option<Revision>) -> ReadOutcome {
        let has = |tags: &Tags, weak: bool| match (tags, current) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            (Tags::List(tags), Some(_)) => {
                tags.iter().any(|tag| tag.revision == current && (weak || !tag.weak))
            }
        };
        if self.matching.as_ref().is_some_and(|tags| !has(tags, false)) {
            return ReadOutcome::Failed;
        }
        match &self.none_matching {
            Some(tags) if has(tags, true) => ReadOutcome::NotModified,
            _ => ReadOutcome::Serve,
        }
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, String> {
    let mut tags = Vec::new();
    let mut fields = headers.get_all(name).iter().peekable();
    if fields.peek().is_none() {
        return Ok(None);
    }
    let wrong = || format!("{name} must be * or entity tags in double quotes");
    for field in fields {
        let text = field.to_str().map_err(|_| wrong())?.trim();
        if text == "*" && headers.get_all(name).iter().count() == 1 {
            return Ok(Some(Tags::Any));
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (tag, after) = one(rest).ok_or_else(wrong)?;
            tags.push(tag);
            rest = after;
        }
    }
    if tags.is_empty() { Err(wrong()) } else { Ok(Some(Tags::List(tags))) }
}

/// The first tag of a list, and what follows its comma.
fn one(text: &str) -> Option<(Tag, &str)> {
    let (weak, opaque) = match text.strip_prefix("W/") {
        Some(opaque) => (true, opaque),
        None => (false, text),
    };
    let (opaque, after) = opaque.strip_prefix('"')?.split_once('"')?;
    let after = after.trim_start();
    let after = match after.strip_prefix(',') {
        Some(after) => after.trim_start(),
        None if after.is_empty() => after,
        None => return None,
    };
    // Revisions begin at one; a value that has none yet has no tag either.
    let ours = opaque.bytes().all(|byte| byte.is_ascii_digit()) && !opaque.starts_with('0');
    let revision = opaque.parse().ok().filter(|_| ours).map(Revision);
    Some((Tag { weak, revision }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, axum::http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn conditions_of_writes() {
        let parse = |fields: &[_]| for_write(&headers(fields));
        let holds = |condition| Ok(WriteCondition::If(condition));
        assert_eq!(parse(&[]), holds(Condition::Always));
        assert_eq!(parse(&[("if-match", "*")]), holds(Condition::Present));
        assert_eq!(parse(&[("if-none-match", " * ")]), holds(Condition::Absent));
        assert_eq!(parse(&[("if-match", "\"7\"")]), holds(Condition::Revision(Revision(7))));
        for never in ["W/\"7\"", "\"seven\"", "\"07\"", "\"\"", "\"18446744073709551616\""] {
            assert_eq!(parse(&[("if-match", never)]), Ok(WriteCondition::Never), "{never}");
        }
        for wrong in ["7", "\"7", "\"7\" \"8\"", "\"7\", \"8\"", "", ",", "*, \"7\""] {
            assert!(parse(&[("if-match", wrong)]).is_err(), "{wrong}");
        }
        assert!(parse(&[("if-none-match", "\"7\"")]).is_err());
        assert_eq!(parse(&[("if-match", "*"), ("if-none-match", "*")]), Ok(WriteCondition::Never));
        assert!(parse(&[("if-match", "*"), ("if-match", "*")]).is_err());
    }

    #[test]
    fn conditions_of_reads() {
        let judge = |fields: &[_], current: Option<u64>| {
            ReadConditions::parse(&headers(fields)).unwrap().judge(current.map(Revision))
        };
        use ReadOutcome::{Failed, NotModified, Serve};
        for (fields, current, expected) in [
            (&[][..], Some(7), Serve),
            (&[("if-none-match", "\"7\"")], Some(7), NotModified),
            (&[("if-none-match", "W/\"7\"")], Some(7), NotModified),
            (&[("if-none-match", "\"1\", \"7\"")], Some(7), NotModified),
            (&[("if-none-match", "\"1\""), ("if-none-match", "\"7\"")], Some(7), NotModified),
            (&[("if-none-match", "\"8\"")], Some(7), Serve),
            (&[("if-none-match", "*")], Some(7), NotModified),
            (&[("if-none-match", "*")], None, Serve),
            (&[("if-none-match", "\"0\"")], Some(0), Serve),
            (&[("if-match", "\"0\"")], Some(0), Failed),
            (&[("if-match", "*")], Some(0), Serve),
            (&[("if-match", "\"7\"")], Some(7), Serve),
            (&[("if-match", "W/\"7\"")], Some(7), Failed),
            (&[("if-match", "\"8\", \"9\"")], Some(7), Failed),
            (&[("if-match", "*")], None, Failed),
            (&[("if-match", "\"8\""), ("if-none-match", "\"7\"")], Some(7), Failed),
        ] {
            assert_eq!(judge(fields, current), expected, "{fields:?} {current:?}");
        }
    }
}
