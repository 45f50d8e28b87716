//! One key as its clients may know it: what an operation may find and what it leaves behind.
//!
//! Not everything about a key is known at each moment. A write whose outcome is not known has no
//! revision that anybody was told, and a history may begin in the middle. So what is unknown is
//! left open, and the first operation that tells it settles it: a register stands for all contents
//! that agree with what was seen. One thing is forgotten: that an unknown revision is not a certain
//! one, which is all that a conflict says whose store does not tell what was there instead.

use crate::history::{Condition, Current};

/// What one operation did and saw. Values are numbers that stand for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A read found this, at this revision.
    Found(u32, Option<u64>),
    /// A read or a delete found nothing, while this was the latest revision of the shard.
    Missing(Option<u64>),
    /// A delete under a condition found nothing.
    MissingOn(Condition, Option<u64>),
    /// A write stored a value, or removed the key.
    Wrote {
        /// What it stored.
        value: Option<u32>,
        /// Under which condition.
        condition: Condition,
        /// Its revision.
        revision: Option<u64>,
        /// Whether the key was there.
        existed: Option<bool>,
    },
    /// A write whose condition did not hold.
    Conflicted(Condition, Option<Current>),
    /// A write that was sent and not answered: what it does, if it happens.
    Open {
        /// What it stores.
        value: Option<u32>,
        /// Under which condition.
        condition: Condition,
    },
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Register {
    content: Content,
    /// Every write from here on has a later revision than this. A value whose revision is not known
    /// has this one or a later one.
    floor: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    /// Nothing is known.
    Any,
    Absent,
    /// There is a value, of which value and revision are known or not.
    Present(Option<u32>, Option<u64>),
}

impl Register {
    /// A key that does not exist, before the first write.
    pub(crate) const ABSENT: Self = Self { content: Content::Absent, floor: 0 };
    /// A key of which nothing is known.
    pub(crate) const ANY: Self = Self { content: Content::Any, floor: 0 };

    /// The key after a step, or nothing if the step cannot have happened here. An open step that
    /// would have no effect is taken not to have happened.
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

    /// What comes after has a revision that is not earlier than this.
    pub(crate) fn floor(self) -> u64 {
        self.floor
    }

    /// Whether everything that may follow on the other may follow on this one.
    pub(crate) fn allows_all_of(self, other: Self) -> bool {
        self.content == other.content && self.floor <= other.floor
    }

    /// This register, if the key is absent in it.
    fn absent(self) -> Option<Self> {
        match self.content {
            Content::Any | Content::Absent => Some(Self { content: Content::Absent, ..self }),
            Content::Present(..) => None,
        }
    }

    /// This register, if the key has that value and that revision, where they are given.
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

    /// This register at a moment at which the shard had come to a revision.
    fn raised(self, revision: Option<u64>) -> Option<Self> {
        match revision {
            Some(revision) if revision < self.floor => None,
            Some(revision) => Some(Self { floor: revision, ..self }),
            None => Some(self),
        }
    }

    /// This register, if the condition holds in it.
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
                // Here it is forgotten.
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

/// What two sides know together, or nothing if they contradict each other.
fn agree<T: Copy + PartialEq>(one: Option<T>, other: Option<T>) -> Option<Option<T>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => Some(one.or(other)),
    }
}
