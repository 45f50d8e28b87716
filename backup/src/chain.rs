//! Chains: what the chunks of a keyspace make together.
//!
//! Plain data: headers in, answers out. A chain is a sequence of *runs*. Each begins with a base,
//! or with the changes after a cut of another backup, and can be restored at each of its cuts once
//! its pages are complete.

use dkv_api::SnapshotToken;

use super::chunk::{ChunkError, Content, CutMark, Hash, Header};

/// A chunk of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) header: Header,
    pub(crate) hash: Hash,
    pub(crate) stored_bytes: u64,
}

/// The chunks of a keyspace in one backup, or the last ones of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    links: Vec<Link>,
    /// Whether the chunks before its first one are left out.
    is_tail: bool,
}

/// The beginning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin<'a> {
    /// With pages of its own.
    Base,
    /// After a cut of another backup.
    After {
        /// The backup.
        parent: &'a str,
        /// Its cut.
        cut: &'a str,
    },
}

/// A run up to a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    pub(crate) begin: Begin<'a>,
    /// The chunks from the first of the run through the one that completes the cut.
    pub(crate) links: &'a [Link],
    pub(crate) cut: &'a CutMark,
}

/// What follows a run up to a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next cut.
    Cut,
    /// A base of a later moment: changes in between are missing.
    Gap,
    /// The end of the keyspace.
    Dropped {
        /// When it was noticed, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Nothing that is complete.
    End,
}

/// How far a chain has come whose writer was interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of use is there: a run has to begin.
    Nothing,
    /// Pages are being written.
    Pages {
        /// The snapshot of the last pages.
        of: String,
        /// The number of the last chunk with pages, which has the last key.
        last: Option<u64>,
        /// The position of the watch.
        position: String,
    },
    /// The pages are complete, changes are being written.
    Changes {
        /// The position of the watch.
        position: String,
        /// Whether nothing was written after the last cut.
        at_cut: bool,
    },
    /// The keyspace was dropped.
    Dropped,
}

impl Chain {
    /// Creates the end of a chain, which may begin anywhere.
    pub(crate) fn tail() -> Self {
        Self { links: Vec::new(), is_tail: true }
    }

    /// Adds the next chunk. Ignores what an interrupted prune has left of a run that began earlier.
    ///
    /// # Errors
    /// It does not follow the last one.
    pub(crate) fn push(&mut self, link: Link) -> Result<(), ChunkError> {
        let Header { number, before, backup, keyspace, content, .. } = &link.header;
        let wrong = |why: &str| Err(ChunkError::Malformed(why.into()));
        let begins = matches!(content, Content::Base { .. } | Content::After { .. });
        match self.links.last() {
            Some(last) => {
                let Header { number: last_number, backup: other, .. } = &last.header;
                if *number != last_number + 1 || backup != other {
                    return wrong("it is not the next chunk of its chain");
                }
                if *before != last.hash {
                    return wrong("it does not follow the chunk before it");
                }
                if *keyspace != last.header.keyspace {
                    return wrong("it is of another keyspace");
                }
            }
            None if !begins && !self.is_tail && *number == 1 => {
                return wrong("a chain does not begin with it");
            }
            None if !begins && !self.is_tail => return Ok(()),
            None => {}
        }
        self.links.push(link);
        Ok(())
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(crate) fn last(&self) -> Option<&Link> {
        self.links.last()
    }

    /// Returns the runs up to each cut at which the keyspace can be restored, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        // The run that is whole, and the one whose pages are on their way.
        let (mut whole, mut begun): (Option<(usize, Begin<'_>)>, Option<usize>) = (None, None);
        self.links.iter().enumerate().filter_map(move |(index, link)| {
            match &link.header.content {
                Content::Base { continues, .. } => {
                    begun = Some(index);
                    whole = whole.filter(|_| *continues);
                }
                Content::After { parent, cut, .. } => {
                    (whole, begun) = (Some((index, Begin::After { parent, cut })), None);
                }
                Content::Pages { last: true, .. } => {
                    whole = begun.take().map(|first| (first, Begin::Base)).or(whole);
                }
                Content::Dropped { .. } => (whole, begun) = (None, None),
                Content::Changes { cut: Some(cut), .. } => {
                    let (first, begin) = whole?;
                    return Some(Run { begin, links: &self.links[first..=index], cut });
                }
                Content::Pages { .. } | Content::Changes { .. } => {}
            }
            None
        })
    }

    /// Returns the run up to the last cut of a time in milliseconds since 1970 or before.
    pub(crate) fn run_at(&self, at_ms: u64) -> Option<Run<'_>> {
        self.runs().filter(|run| moment_ms(run.cut) <= at_ms).last()
    }

    /// Returns the run up to a cut that another backup goes on from.
    pub(crate) fn run_of(&self, token: &str) -> Option<Run<'_>> {
        self.runs().find(|run| run.cut.token == token)
    }

    /// Returns what follows a run.
    pub(crate) fn after(&self, run: &Run<'_>) -> After {
        let last = run.links.last().map_or(0, |last| last.header.number);
        let after = self.links.iter().skip_while(|link| link.header.number <= last);
        let known = after.filter_map(|link| match link.header.content {
            Content::Changes { cut: Some(_), .. } => Some(After::Cut),
            Content::Base { continues: false, .. } => Some(After::Gap),
            Content::Dropped { at_ms } => Some(After::Dropped { at_ms }),
            _ => None,
        });
        known.into_iter().next().unwrap_or(After::End)
    }

    /// Returns how far the writer had come.
    pub(crate) fn stage(&self) -> Stage {
        let mut stage = Stage::Nothing;
        for link in &self.links {
            stage = match (&link.header.content, stage) {
                (Content::Base { from, .. }, _) => {
                    let position = position_after(from);
                    Stage::Pages { of: from.clone(), last: None, position }
                }
                (Content::After { cut, .. }, _) => {
                    Stage::Changes { position: position_after(cut), at_cut: false }
                }
                (Content::Pages { of, last: false }, Stage::Pages { position, .. }) => {
                    let last = Some(link.header.number);
                    Stage::Pages { of: of.clone(), last, position }
                }
                (Content::Pages { .. }, Stage::Pages { position, .. }) => {
                    Stage::Changes { position, at_cut: false }
                }
                (Content::Changes { position, .. }, Stage::Pages { of, last, .. }) => {
                    Stage::Pages { of, last, position: position.clone() }
                }
                (Content::Changes { position, cut }, _) => {
                    Stage::Changes { position: position.clone(), at_cut: cut.is_some() }
                }
                (Content::Dropped { .. }, _) => Stage::Dropped,
                (Content::Pages { .. }, other) => other,
            };
        }
        stage
    }
}

/// Returns the position after a snapshot, as text.
fn position_after(token: &str) -> String {
    let token = token.parse::<SnapshotToken>();
    token.map(|token| token.changes_since().to_string()).unwrap_or_default()
}

/// Returns the moment of a cut, in milliseconds since 1970: nothing in it was written later.
pub(crate) fn moment_ms(cut: &CutMark) -> u64 {
    let moment = cut.token.parse::<SnapshotToken>().map(|token| token.moment().since_1970());
    // A malformed token is found when the cut is used.
    moment.map_or(cut.taken_ms, |moment| moment.as_millis() as u64)
}

#[cfg(test)]
mod tests;
