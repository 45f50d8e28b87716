//! Positions in a stream of changes, as the ids of its events.
//!
//! A token of the client library names whole revisions, and a transaction changes several keys in
//! one revision. A stream that is cut between two of these changes must neither repeat the first
//! nor miss the second. So an id is a token and, for each shard that is within a revision, that
//! revision and the number of its changes that were shown: `1:500,2:33+2:34:1`.
//!
//! The changes of a revision come in the same order each time, for the same keys.

use std::collections::BTreeMap;
use std::fmt;

use dkv_api::{GroupId, Revision, TokenFormError, WatchEvent, WatchToken};

/// Changes of a revision that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Within {
    revision: Revision,
    changes: u64,
}

/// The position of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    token: WatchToken,
    /// The revisions of which only some changes were shown.
    within: BTreeMap<GroupId, Within>,
    /// The latest revision of the running watch that is not complete, with the number of changes
    /// that came.
    current: Option<(GroupId, Within)>,
}

impl From<WatchToken> for Position {
    fn from(token: WatchToken) -> Self {
        Self { token, within: BTreeMap::new(), current: None }
    }
}

impl Position {
    /// Parses a token or an id.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn parse(text: &str) -> Result<Self, TokenFormError> {
        let Some((token, rest)) = text.split_once('+') else {
            return text.parse().map(|token: WatchToken| token.into());
        };
        let mut position = Self::from(token.parse::<WatchToken>()?);
        for part in rest.split(',') {
            let parsed = part.rsplit_once(':').and_then(|(place, changes)| {
                let place: WatchToken = place.parse().ok()?;
                let (shard, revision) = place.iter().next()?;
                let is_number = !changes.is_empty() && changes.bytes().all(|c| c.is_ascii_digit());
                let changes = changes.parse().ok().filter(|_| is_number)?;
                Some((shard, Within { revision, changes }))
            });
            match parsed {
                Some((shard, within)) => position.within.insert(shard, within),
                // Fails, because no token has a plus.
                None => return text.parse().map(|token: WatchToken| token.into()),
            };
        }
        Ok(position)
    }

    /// Returns the token from which a watch must begin.
    pub(super) fn token(&self) -> &WatchToken {
        &self.token
    }

    /// Begins at the token of a watch that has just begun, which names every shard.
    pub(super) fn begin(&mut self, token: WatchToken) {
        self.token = token;
    }

    /// Moves on to the position after an event; `token` is that of the watch after it. Returns
    /// whether to show the event: it may have been shown before the stream was resumed.
    pub(super) fn advance(&mut self, event: &WatchEvent, token: WatchToken) -> bool {
        self.token = token;
        let is_new = match event {
            WatchEvent::Change(change) => {
                let (shard, revision) = (change.shard, change.revision);
                let changes = match self.current {
                    Some((last, within)) if last == shard && within.revision == revision => {
                        within.changes + 1
                    }
                    _ => 1,
                };
                let within = Within { revision, changes };
                self.current = Some((shard, within));
                let shown = self.within.get(&shard).filter(|shown| shown.revision == revision);
                let is_new = shown.is_none_or(|shown| shown.changes < changes);
                if is_new {
                    self.within.insert(shard, within);
                }
                is_new
            }
            _ => true,
        };
        self.within.retain(|shard, within| self.token.revision(*shard) < Some(within.revision));
        is_new
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)?;
        for (index, (shard, Within { revision, changes })) in self.within.iter().enumerate() {
            let before = if index == 0 { '+' } else { ',' };
            write!(f, "{before}{shard}:{revision}:{changes}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::{KeyChange, LeaseId, Stamp};

    use super::*;

    fn change(shard: u32, revision: u64) -> WatchEvent {
        WatchEvent::Change(Box::new(KeyChange {
            shard: GroupId(shard),
            key: "k".into(),
            value: None,
            revision: Revision(revision),
            created: Revision(revision),
            version: 0,
            stamp: Stamp::default(),
            lease: LeaseId::default(),
            expiry: None,
            previous: None,
        }))
    }

    #[test]
    fn ids_are_parsed_and_others_refused() {
        for id in ["500", "1:500", "1:500,2:33", "1:500,2:33+2:34:1", "1:5,2:3+1:6:1,2:4:20"] {
            assert_eq!(Position::parse(id).unwrap().to_string(), id);
        }
        for wrong in ["", "x", "1:500+", "1:500+2:34", "1:500+2:34:", "1:500+2:34:+1", "+1:2:3"] {
            assert!(Position::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stream_cut_within_a_revision_goes_on_with_its_next_change() {
        let token = |text: &str| text.parse::<WatchToken>().unwrap();
        // Revision 6 of shard 1 has three changes; those of shard 2 come in between.
        let events = [
            (change(1, 6), "1:5,2:3"),
            (change(1, 6), "1:5,2:3"),
            (change(1, 6), "1:6,2:3"),
            (change(2, 4), "1:6,2:4"),
        ];
        let mut position = Position::from(token("1:5,2:3"));
        let mut ids = Vec::new();
        for (event, after) in &events {
            assert!(position.advance(event, token(after)));
            ids.push(position.to_string());
        }
        assert_eq!(ids, ["1:5,2:3+1:6:1", "1:5,2:3+1:6:2", "1:6,2:3", "1:6,2:4"]);

        let mut resumed = Position::parse(&ids[1]).unwrap();
        let other = [(change(2, 4), "1:5,2:4")];
        let again = other.iter().chain(&events[..3]);
        let shown: Vec<(bool, String)> = again
            .map(|(event, after)| {
                let after = after.replace("2:3", "2:4");
                (resumed.advance(event, token(&after)), resumed.to_string())
            })
            .collect();
        let expected = [
            (true, "1:5,2:4+1:6:2"),
            (false, "1:5,2:4+1:6:2"),
            (false, "1:5,2:4+1:6:2"),
            (true, "1:6,2:4"),
        ];
        assert_eq!(shown, expected.map(|(shown, id)| (shown, id.to_owned())));
    }
}
