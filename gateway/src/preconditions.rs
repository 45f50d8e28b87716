//! Entity tags and preconditions (RFC 9110, sections 8.8.3 and 13).
//!
//! The entity tag of a value is the revision of the write that stored it, in quotes. It is a strong
//! validator: two values of a key with the same revision are the same bytes.
//!
//! A write has at most one condition, because the network supports one per write: `If-Match` with
//! `*` or the entity tag of one revision (tags that match nothing may stand beside it), or
//! `If-None-Match: *`. A list of several revisions is refused rather than half honoured.
//! Deliberately missing: `If-Modified-Since` and the like, since revisions are not times; they are
//! ignored, as RFC 9110 requires.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use dkv_api::{Condition, Revision};

/// The value of a precondition field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`.
    Any,
    List(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// The revision; `None` for a tag that this gateway never issues.
    revision: Option<Revision>,
}

/// Why the precondition fields of a request are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreconditionError {
    /// A field is neither `*` nor a list of entity tags.
    #[error("{0} must be * or entity tags in double quotes")]
    Malformed(HeaderName),
    /// `If-None-Match` of a write names entity tags.
    #[error("If-None-Match of a write must be *")]
    NoneMatchOfWrite,
    /// `If-Match` of a write names several revisions.
    #[error("If-Match of a write takes the entity tag of one revision")]
    ManyRevisions,
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// The write happens if this holds.
    If(Condition),
    /// It cannot hold: no value can have the entity tag.
    Never,
}

/// The outcome of the preconditions of a read. An eventual write that is not ordered yet has
/// revision zero, which matches only `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Answer with the value.
    Serve,
    /// 304: the caller has the value already.
    NotModified,
    /// 412: the value is not the one that the caller expects.
    Failed,
}

/// Formats the entity tag of a revision.
pub fn entity_tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// Parses the condition of a write.
///
/// # Errors
/// See [`PreconditionError`].
pub fn for_write(headers: &HeaderMap) -> Result<WriteCondition, PreconditionError> {
    match (read(headers, &IF_MATCH)?, read(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(WriteCondition::If(Condition::Always)),
        // No key both exists and does not.
        (Some(_), Some(Tags::Any)) => Ok(WriteCondition::Never),
        (_, Some(Tags::List(_))) => Err(PreconditionError::NoneMatchOfWrite),
        (None, Some(Tags::Any)) => Ok(WriteCondition::If(Condition::Absent)),
        (Some(Tags::Any), None) => Ok(WriteCondition::If(Condition::Present)),
        (Some(Tags::List(tags)), None) => {
            // Weak tags never match here (RFC 9110, section 13.1.1), nor do foreign ones.
            let strong = tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.revision);
            let revisions: BTreeSet<Revision> = strong.collect();
            match (revisions.first(), revisions.len()) {
                (Some(revision), 1) => Ok(WriteCondition::If(Condition::Revision(*revision))),
                (None, _) => Ok(WriteCondition::Never),
                _ => Err(PreconditionError::ManyRevisions),
            }
        }
    }
}

/// The preconditions of a read, evaluated once the key is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPreconditions {
    matching: Option<Tags>,
    none_matching: Option<Tags>,
}

impl ReadPreconditions {
    /// Parses the preconditions of a read.
    ///
    /// # Errors
    /// [`PreconditionError::Malformed`].
    pub fn parse(headers: &HeaderMap) -> Result<Self, PreconditionError> {
        let matching = read(headers, &IF_MATCH)?;
        Ok(Self { matching, none_matching: read(headers, &IF_NONE_MATCH)? })
    }

    /// Evaluates the preconditions in the order of RFC 9110, section 13.2.2, for a key at revision
    /// `current`, or for one that does not exist.
    pub fn evaluate(&self, current: Option<Revision>) -> ReadOutcome {
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

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, PreconditionError> {
    let mut tags = Vec::new();
    let mut fields = headers.get_all(name).iter().peekable();
    if fields.peek().is_none() {
        return Ok(None);
    }
    let malformed = || PreconditionError::Malformed(name.clone());
    for field in fields {
        let text = field.to_str().map_err(|_| malformed())?.trim();
        if text == "*" && headers.get_all(name).iter().count() == 1 {
            return Ok(Some(Tags::Any));
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (tag, after) = first_tag(rest).ok_or_else(malformed)?;
            tags.push(tag);
            rest = after;
        }
    }
    if tags.is_empty() { Err(malformed()) } else { Ok(Some(Tags::List(tags))) }
}

/// Parses the first tag of a list; returns it with what follows its comma.
fn first_tag(text: &str) -> Option<(Tag, &str)> {
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
    // Revisions begin at one; a value without a revision has no tag either.
    let is_ours = opaque.bytes().all(|byte| byte.is_ascii_digit()) && !opaque.starts_with('0');
    let revision = opaque.parse().ok().filter(|_| is_ours).map(Revision);
    Some((Tag { weak, revision }, after))
}

#[cfg(test)]
mod tests;
