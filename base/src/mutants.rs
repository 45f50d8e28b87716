//! Bugs that are planted to see whether the tests find them, **never part of a release**.
//!
//! With the feature `mutants` one bug can be planted in a thread, which then runs a simulation.
//! Without it, [`planted`] is a constant, and nothing of this is left.

/// A known bug, each one against a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Entries are acknowledged before they are synced.
    AnswerBeforeSync,
    /// A strong read is answered without asking a quorum who leads.
    ReadWithoutQuorum,
    /// A write that was executed before is executed again.
    SkipSessions,
    /// A vote is given and not put on disk.
    ForgetVote,
    /// A snapshot is installed although half of it is missing.
    HalfSnapshot,
    /// The server confirms a coordinator of an older term.
    OlderCoordinator,
    /// Of eventual writes the one stays that arrives last, not the latest.
    LastArrivalWins,
    /// A page of a scan begins one key too late.
    SkipInScan,
    /// A replica does not know of one that was deleted in its place.
    ForgetFormer,
    /// That a node may be switched off is said without asking it.
    PromiseWithoutAsking,
    /// A late acknowledgement of an entry confirms a leader to who asked only afterwards.
    TrustLateAcknowledgements,
    /// Who votes by the newest configuration that it knows is all that counts for who stands.
    ElectByNewest,
    /// A directory that is older than what is known of its node is believed.
    BelieveCopies,
    /// That a task has ended which a process cannot be without is noticed by nobody.
    OverlookDeadTasks,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AnswerBeforeSync,
        Self::ReadWithoutQuorum,
        Self::SkipSessions,
        Self::ForgetVote,
        Self::HalfSnapshot,
        Self::OlderCoordinator,
        Self::LastArrivalWins,
        Self::SkipInScan,
        Self::ForgetFormer,
        Self::PromiseWithoutAsking,
        Self::TrustLateAcknowledgements,
        Self::ElectByNewest,
        Self::BelieveCopies,
        Self::OverlookDeadTasks,
    ];
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Plants a bug in what this thread runs, or none.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }

    /// Whether a bug is planted here.
    pub fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{plant, planted};

/// Whether a bug is planted here: never, without the feature.
#[cfg(not(feature = "mutants"))]
pub const fn planted(_: Mutant) -> bool {
    false
}
