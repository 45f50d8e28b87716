//! The model of one key: what an operation may find, and what it leaves behind.
//!
//! Not everything about a key is known at every moment: a write with an unknown outcome has an
//! unknown revision, and a history may begin in the middle. So a register stands for all contents
//! that agree with the operations so far, and the first operation that reveals an unknown settles
//! it. One fact is not represented: that an unknown revision differs from a certain one. That is
//! all that a conflict reveals if the store does not report what it found.

use crate::history::{Condition, Current};

/// What one operation did and saw. Numbers stand for the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A read found this value at this revision.
    Found(u32, Option<u64>),
    /// A read or a delete did not find the key, while this was the latest revision of the shard.
    Missing(Option<u64>),
    /// A delete under a condition did not find the key.
    MissingOn(Condition, Option<u64>),
    /// A write stored a value, or removed the key.
    Wrote {
        /// The value that it stored; `None` for a delete.
        value: Option<u32>,
        /// Its condition.
        condition: Condition,
        /// Its revision.
        revision: Option<u64>,
        /// Whether the key existed.
        existed: Option<bool>,
    },
    /// A write whose condition did not hold.
    Conflicted(Condition, Option<Current>),
    /// A write without an answer, which may take effect.
    Open {
        /// The value that it stores; `None` for a delete.
        value: Option<u32>,
        /// Its condition.
        condition: Condition,
    },
}

/// The state of a key, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Register {
    content: Content,
    /// Every write from here on has a later revision than this. A value of unknown revision has
    /// this revision or a later one.
    floor: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    /// Nothing is known.
    Any,
    Absent,
    /// The key exists; its value and revision may be known.
    Present(Option<u32>, Option<u64>),
}

impl Register {
    /// A key that does not exist, before the first write.
    pub(crate) const ABSENT: Self = Self { content: Content::Absent, floor: 0 };
    /// A key of which nothing is known.
    pub(crate) const ANY: Self = Self { content: Content::Any, floor: 0 };

    /// The register after a step; `None` if the step is impossible here. An open step without an
    /// effect counts as impossible.
    pub(crate) fn after(self, step: Step) -> Option<Self> {
        match step {
            Step::Found(value, revision) => self.present(Some(value), revision),
            Step::Missing(revision) => self.absent()?.raised(revision),
            Step::MissingOn(condition, revision) => {
                let allowed = condition == Condition::Always || condition == Condition::Absent;
                if allowed { self.absent()?.raised(revision) } else { None }
            }
            Step::Wrote { value, condition, revision, existed } => {
                let before = match existed {
                    None => self.meeting(condition)?,
                    Some(true) => self.meeting(condition)?.present(None, None)?,
                    Some(false) => self.meeting(condition)?.absent()?,
                };
                before.written(value, revision)
            }
            Step::Open { value, condition } => {
                let before = self.meeting(condition)?;
                if value.is_none() && before.content == Content::Absent {
                    return None;
                }
                before.written(value, None)
            }
            Step::Conflicted(condition, current) => self.conflicting(condition, current),
        }
    }

    /// A lower bound of all later revisions.
    pub(crate) fn floor(self) -> u64 {
        self.floor
    }

    /// Whether every step that is possible on `other` is possible on this register.
    pub(crate) fn allows_all_of(self, other: Self) -> bool {
        self.content == other.content && self.floor <= other.floor
    }

    /// This register with the key absent, if that is possible.
    fn absent(self) -> Option<Self> {
        match self.content {
            Content::Any | Content::Absent => Some(Self { content: Content::Absent, ..self }),
            Content::Present(..) => None,
        }
    }

    /// This register with this value and revision of the key, where given, if that is possible.
    fn present(self, value: Option<u32>, revision: Option<u64>) -> Option<Self> {
        let (known_value, known_revision) = match self.content {
            Content::Any => (None, None),
            Content::Absent => return None,
            Content::Present(value, revision) => (value, revision),
        };
        let value = agree(known_value, value)?;
        let settled = agree(known_revision, revision)?;
        let mut floor = self.floor;
        if known_revision.is_none()
            && let Some(revision) = settled
        {
            if revision < floor {
                return None;
            }
            floor = revision;
        }
        Some(Self { content: Content::Present(value, settled), floor })
    }

    /// This register when the shard was at `revision`, if that is possible.
    fn raised(self, revision: Option<u64>) -> Option<Self> {
        match revision {
            Some(revision) if revision < self.floor => None,
            Some(revision) => Some(Self { floor: revision, ..self }),
            None => Some(self),
        }
    }

    /// This register with the condition true, if that is possible.
    fn meeting(self, condition: Condition) -> Option<Self> {
        match condition {
            Condition::Always => Some(self),
            Condition::Absent => self.absent(),
            Condition::Present => self.present(None, None),
            Condition::Revision(revision) => self.present(None, Some(revision)),
        }
    }

    fn conflicting(self, condition: Condition, current: Option<Current>) -> Option<Self> {
        match (condition, current) {
            (Condition::Always, _)
            | (Condition::Absent, Some(Current::Absent))
            | (Condition::Present, Some(Current::Revision(_))) => None,
            (Condition::Revision(wanted), Some(Current::Revision(found))) if wanted == found => {
                None
            }
            (_, Some(Current::Absent)) | (Condition::Present, None) => self.absent(),
            (_, Some(Current::Revision(found))) => self.present(None, Some(found)),
            (Condition::Absent, None) => self.present(None, None),
            (Condition::Revision(wanted), None) => match self.content {
                Content::Present(_, Some(revision)) if revision == wanted => None,
                // The fact that is not represented: the revision is not `wanted`.
                _ => Some(self),
            },
        }
    }

    fn written(self, value: Option<u32>, revision: Option<u64>) -> Option<Self> {
        let floor = match revision {
            Some(revision) if revision <= self.floor => return None,
            Some(revision) => revision,
            None => self.floor.saturating_add(1),
        };
        let content = match value {
            Some(value) => Content::Present(Some(value), revision),
            None => Content::Absent,
        };
        Some(Self { content, floor })
    }
}

/// The union of two pieces of knowledge; `None` if they contradict each other.
fn agree<T: Copy + PartialEq>(one: Option<T>, other: Option<T>) -> Option<Option<T>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => Some(one.or(other)),
    }
}
