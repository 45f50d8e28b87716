//! The position of a watch in one shard: what it has shown, and where it goes on.
//!
//! Plain data: nodes and frames come in, and what to do comes out. The task of the shard does it.
//!
//! ```text
//! loop
//!     locate a replica, not one of avoid(); located(...) says whether to watch it
//!     send request() on a stream of its own
//!     for each frame: handle_frame(...), until it says to go on elsewhere, or to end
//!     failed(...) when the stream ends or is silent; pause as it says
//! ```
//!
//! The position moves only to revisions through which a frame has shown everything, and the next
//! replica is asked for what comes after it. So a cut between any two frames, or within one, costs
//! nothing and repeats nothing. Frames are checked: changes at or before the position are dropped,
//! and a frame out of order moves the watch to another replica.

use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::message::{Change, KeyRange, Refusal, WatchFrame, WatchRequest};
use dkv_wire::user::User;

use crate::error::Error;
use crate::router::timing;

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Shortest pause of a watch whose user has used up its limits, whatever a node tells.
pub(super) const LIMITED_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause of a watch whose user has used up its limits. No node tells a longer one.
pub(super) const LIMITED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ShardPosition {
    shard: GroupId,
    keys: KeyRange,
    previous: bool,
    /// The revision through which everything was shown; `None` before the first frame of a watch
    /// that begins with what is new.
    through: Option<Revision>,
    /// Nodes that failed since the last frame.
    avoid: Vec<NodeId>,
    /// Failures since the last frame.
    failures: u32,
}

/// What to do with a replica that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// Watch it.
    Watch,
    /// It has not reached the position: ask the primary for the shard's latest revision.
    Behind,
}

/// What a frame means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Everything through this revision, beginning after the position: these changes.
    Changes(Vec<Change>, Revision),
    /// Nothing new.
    Nothing,
    /// The node does not continue the watch; another may.
    Elsewhere(String),
    /// The user has used up its limits: to go on after this time.
    Later(Duration, String),
    /// The watch ends.
    End(Error),
}

impl ShardPosition {
    pub(super) fn new(
        shard: GroupId,
        keys: KeyRange,
        previous: bool,
        from: Option<Revision>,
    ) -> Self {
        Self { shard, keys, previous, through: from, avoid: Vec::new(), failures: 0 }
    }

    pub(super) fn shard(&self) -> GroupId {
        self.shard
    }

    /// Returns the revision through which everything was shown.
    pub(super) fn through(&self) -> Option<Revision> {
        self.through
    }

    /// Returns the nodes to watch only if no other can be.
    pub(super) fn avoid(&self) -> Vec<NodeId> {
        self.avoid.clone()
    }

    /// Returns what to ask the next replica for, for a user if there is one.
    pub(super) fn request(&self, user: Option<User>) -> WatchRequest {
        WatchRequest {
            shard: self.shard,
            keys: self.keys.clone(),
            after: match planted(Mutant::RepeatAfterResume) {
                true => self.through.map(|through| Revision(through.0.saturating_sub(1))),
                false => self.through,
            },
            previous: self.previous,
            user,
        }
    }

    /// Handles a replica that was found, with its latest revision.
    pub(super) fn located(&self, latest: Revision) -> Located {
        match self.through {
            Some(through) if latest < through => Located::Behind,
            _ => Located::Watch,
        }
    }

    /// Handles the shard's latest revision, as its primary gave it.
    ///
    /// # Errors
    /// [`Error::NotYet`] if the shard has not reached the position, which is then not its own.
    pub(super) fn handle_latest(&self, latest: Revision) -> Result<(), Error> {
        match self.through {
            Some(asked) if latest < asked => Err(Error::NotYet { asked, latest }),
            _ => Ok(()),
        }
    }

    /// Handles a frame from the replica that is watched.
    pub(super) fn handle_frame(&mut self, frame: WatchFrame) -> Received {
        let (mut changes, through) = match frame {
            WatchFrame::Changes { changes, through } => (changes, through),
            WatchFrame::Ended(refusal) => return ended(refusal),
        };
        let mut last = Revision(0);
        for change in &changes {
            let revision = change.version.revision;
            if revision < last || revision > through || !self.keys.contains(&change.key) {
                return Received::Elsewhere("its changes are not those of the watch".to_owned());
            }
            last = revision;
        }
        self.failures = 0;
        self.avoid.clear();
        match self.through {
            Some(position) if through <= position => return Received::Nothing,
            Some(_) if planted(Mutant::RepeatAfterResume) => {}
            Some(position) => changes.retain(|change| change.version.revision > position),
            None => {}
        }
        self.through = Some(through);
        Received::Changes(changes, through)
    }

    /// Handles a failure: of a replica to be watched, or of the search for one. Returns the pause
    /// before the next attempt.
    pub(super) fn failed(&mut self, node: Option<NodeId>) -> Duration {
        match node {
            Some(node) if !self.avoid.contains(&node) => self.avoid.push(node),
            Some(_) => {}
            // None of the others can be watched.
            None => self.avoid.clear(),
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            times => timing::doubled(timing::BACKOFF_MIN, times, PAUSE_MAX),
        }
    }
}

/// Sets where a watch begins, once: what later frames show is still to be handed out when its
/// opener asks. Returns whether this did it.
pub(super) fn begin_at(begun: &mut Option<Revision>, at: Option<Revision>) -> bool {
    let is_first = begun.is_none();
    *begun = begun.or(at);
    is_first
}

/// Returns what the end of a watch means, as a node gives it.
fn ended(refusal: Refusal) -> Received {
    match refusal {
        Refusal::Compacted { floor } => Received::End(Error::Compacted { floor }),
        Refusal::Invalid(why) => Received::End(Error::Invalid(why)),
        Refusal::TooLarge { what, bytes, limit } => {
            Received::End(Error::TooLarge { what, bytes, limit })
        }
        Refusal::Denied(why) => Received::End(Error::Denied(why)),
        Refusal::Limited { retry_after_ms, .. } => {
            let told = Duration::from_millis(retry_after_ms.into());
            Received::Later(told.clamp(LIMITED_PAUSE_MIN, LIMITED_PAUSE_MAX), refusal.to_string())
        }
        other => Received::Elsewhere(other.to_string()),
    }
}
