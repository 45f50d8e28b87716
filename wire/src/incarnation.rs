//! Incarnations of a node, and how a witness recognises a stale copy or a clone of its data
//! directory.
//!
//! A node's identity lives in its data directory, and a directory can be copied. So each start of
//! the process is an *incarnation* of the node: it takes a start number, one more than the last,
//! and a random [`BootId`], and writes both into the directory before it sends anything. Along with
//! them it reports its *mark*: how much its log has on disk, which only grows. A node or server
//! that hears an incarnation ([`IncarnationTracker`]) can recognise
//!
//! - a **stale copy**: it does not know an incarnation that was heard and has written something, or
//!   its log held less when that incarnation ended there than the incarnation had on disk, whatever
//!   was written since; this includes a whole machine restored to an earlier moment with its
//!   memory;
//! - a **clone**: an incarnation that answers a question asked after another one was heard that
//!   began in a copy of its directory; or two incarnations that each answer a question asked after
//!   the other was first heard. A killed process answers nothing, however late its datagrams
//!   arrive, so a restart is never mistaken for a clone.
//!
//! Both the registration server and the nodes track incarnations with this code. The commands and
//! the documentation call an incarnation a *run* of the node.
//!
//! Deliberately missing: clocks, random numbers, files, and any decision what to do about a
//! verdict.

mod record;
mod tracker;

use serde::{Deserialize, Serialize};

pub use record::{IncarnationRecord, Ruling};
pub use tracker::{IncarnationTracker, Observation};

/// Past incarnations that an incarnation names: as many as fit a frame of
/// [`crate::limits::JOIN_FRAME_BYTES_MAX`].
pub const PAST_MAX: usize = 128;

/// The id of one incarnation, drawn at random at each start of the process.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BootId(pub u64);

/// An earlier incarnation, as the data directory remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastIncarnation {
    /// Its id.
    pub boot: BootId,
    /// The mark of the log when the next incarnation opened it; `None` until then.
    pub left: Option<u64>,
}

/// One incarnation of a node, as it describes itself and as others remember it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// How often the process was started in this directory, this start included.
    pub start: u64,
    /// Its id.
    pub boot: BootId,
    /// The incarnations before it in this directory, the latest first, at most [`PAST_MAX`].
    pub past: Vec<PastIncarnation>,
    /// Its mark when it opened the log.
    pub opened: u64,
    /// How many entries and votes its log has ever put on disk. It only grows.
    pub mark: u64,
}

impl Incarnation {
    /// The incarnation that follows this one in the same directory.
    pub fn next(&self, boot: BootId) -> Self {
        let mut past = Vec::with_capacity(PAST_MAX);
        if self.start > 0 {
            past.push(PastIncarnation { boot: self.boot, left: None });
        }
        past.extend(self.past.iter().copied().take(PAST_MAX - past.len()));
        debug_assert!(past.len() <= PAST_MAX, "a frame cannot hold more past incarnations");
        let start = self.start.saturating_add(1);
        Self { start, boot, past, opened: self.mark, mark: self.mark }
    }

    /// This incarnation after it opened its log, which has `mark` on disk. No incarnation has
    /// written since the last one that opened the log.
    pub fn open(mut self, mark: u64) -> Self {
        for former in self.past.iter_mut().take_while(|former| former.left.is_none()) {
            former.left = Some(mark);
        }
        Self { opened: mark, mark, ..self }
    }

    /// Whether this incarnation and another one, which has written nothing, began in the same state
    /// of the directory. This one then knows all that the other knew.
    fn takes_the_place_of(&self, other: &Self) -> bool {
        other.mark == other.opened
            && self.opened == other.opened
            && (self.start, &self.past) == (other.start, &other.past)
    }

    /// Whether this incarnation began with more than another one ever had, all of it written by a
    /// common ancestor. The other one then lives in a stale copy and happened to be heard first.
    fn has_more_of_the_same_past(&self, other: &Self) -> bool {
        self.opened > other.mark && self.past.first().is_some_and(|last| other.names(last.boot))
    }

    fn descends_from(&self, boot: BootId) -> bool {
        self.boot == boot || self.names(boot)
    }

    fn names(&self, boot: BootId) -> bool {
        self.past.iter().any(|former| former.boot == boot)
    }

    /// Whether this incarnation began in the directory of a known one, later, with all that the
    /// known one had written.
    ///
    /// The current length of its log proves nothing: a copy may have gone on writing unheard.
    fn comes_after(&self, known: &Self) -> bool {
        if self.start <= known.start || self.mark < known.mark {
            return false;
        }
        let left = |former: &PastIncarnation| former.left.unwrap_or(0);
        let between = usize::try_from(self.start - known.start - 1).unwrap_or(usize::MAX);
        match self.past.get(between) {
            Some(former) => former.boot == known.boot && left(former) >= known.mark,
            // More starts than it lists: only the numbers are left to compare.
            None => self.past.len() == PAST_MAX && self.past.last().map_or(0, left) >= known.mark,
        }
    }
}

/// The judgement of a tracker on an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No newer incarnation is known.
    Sound,
    /// Its directory is a stale copy: an incarnation was heard that it does not know, or that had
    /// written more.
    Older {
        /// The start number of that incarnation.
        start: u64,
        /// Its mark.
        mark: u64,
    },
    /// Two processes of this node run, and no administrator has decided between them.
    Twice {
        /// The start number of the other.
        start: u64,
    },
    /// An administrator has decided for another incarnation.
    Dismissed {
        /// The start number of that one.
        start: u64,
    },
}

impl Verdict {
    /// Whether the incarnation may take part.
    pub fn is_sound(self) -> bool {
        self == Self::Sound
    }
}

#[cfg(test)]
mod tests;
